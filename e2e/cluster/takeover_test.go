package cluster_test

import (
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/koratnet/korat/e2e/cluster"
	"github.com/koratnet/korat/e2e/lab"
	"github.com/koratnet/korat/e2e/lab/machine"
)

// otherPool is where the other network's pods have their addresses.
var otherPool = netip.MustParsePrefix("10.77.0.0/16")

// network is one that is on the nodes before Korat.
type network struct {
	file string // the runtime's configuration
	// script makes on a node what the network's agent makes. It knows the number of
	// the node and of the other, SELF and PEER, and their addresses, ADDRESS and OTHER.
	script string
	// before runs the commands of the page that come before the installation.
	before func(ctx context.Context, p *page, commands []string)
}

// flannel has a bridge for pods, addresses by host-local, a tunnel to the other node
// and what hides pods from the rest.
var flannel = network{
	file: "10-flannel.conflist",
	script: `
mkdir -p /etc/cni/net.d
cat > /etc/cni/net.d/10-flannel.conflist <<EOF
{"cniVersion": "0.3.1", "name": "cbr0", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isDefaultGateway": true, "mtu": 1450,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.77.$SELF.0/24"}]]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
EOF
sysctl -qw net.ipv4.ip_forward=1
ip link add flannel.1 type vxlan id 1 local $ADDRESS remote $OTHER dstport 8472
ip address add 10.77.$SELF.0/32 dev flannel.1
ip link set flannel.1 mtu 1450 up
ip route add 10.77.$PEER.0/24 via 10.77.$PEER.0 dev flannel.1 onlink
iptables -t nat -N FLANNEL-POSTRTG
iptables -t nat -A POSTROUTING -j FLANNEL-POSTRTG
iptables -t nat -A FLANNEL-POSTRTG -s 10.77.0.0/16 -d 10.77.0.0/16 -j RETURN
iptables -t nat -A FLANNEL-POSTRTG -s 10.77.0.0/16 -j MASQUERADE
`,
	before: func(context.Context, *page, []string) {},
}

// calico has an interface and a route for each pod, blocks of addresses, a tunnel, and
// chains in front of everybody's. It accepts what has its mark, 0x10000, and clears its
// marks from each packet that is forwarded.
var calico = network{
	file: "10-calico.conflist",
	script: `
mkdir -p /etc/cni/net.d
cat > /etc/cni/net.d/10-calico.conflist <<EOF
{"cniVersion": "0.3.1", "name": "k8s-pod-network", "plugins": [
  {"type": "ptp", "mtu": 1450,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.77.$SELF.0/26"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "snat": true, "capabilities": {"portMappings": true}}]}
EOF
sysctl -qw net.ipv4.ip_forward=1
ip link add vxlan.calico type vxlan id 4096 local $ADDRESS remote $OTHER dstport 4789
ip address add 10.77.$SELF.63/32 dev vxlan.calico
ip link set vxlan.calico mtu 1450 up
ip route add blackhole 10.77.$SELF.0/26 proto 80
ip route add 10.77.$PEER.0/26 via 10.77.$PEER.63 dev vxlan.calico onlink proto 80
ipset create cali40all-ipam-pools hash:net
ipset create cali40masq-ipam-pools hash:net
ipset add cali40all-ipam-pools 10.77.0.0/16
ipset add cali40masq-ipam-pools 10.77.0.0/16
iptables-restore --noflush <<EOF
*filter
:cali-FORWARD - [0:0]
:cali-INPUT - [0:0]
-I FORWARD -m comment --comment "cali:wUHhoiAYhphO9Mso" -j cali-FORWARD
-A FORWARD -m comment --comment "cali:S93hcgKJrXEqnTfs" -m comment --comment "Policy explicitly accepted packet." -m mark --mark 0x10000/0x10000 -j ACCEPT
-A FORWARD -m comment --comment "cali:mp77cMpurHhyjLrM" -j MARK --set-xmark 0x10000/0x10000
-I INPUT -m comment --comment "cali:Cz_u1IQiXIMmKD4c" -j cali-INPUT
-A cali-FORWARD -m comment --comment "cali:vjrMJCRpqwy5oRoX" -j MARK --set-xmark 0x0/0xe0000
-A cali-FORWARD -m comment --comment "cali:A_sPAO0mcxbT9mOV" -m mark --mark 0x0/0x10000 -j RETURN
-A cali-INPUT -m comment --comment "cali:msRIDfJRWnYwzW4g" -m mark --mark 0x10000/0x10000 -j ACCEPT
COMMIT
*nat
:cali-POSTROUTING - [0:0]
-I POSTROUTING -m comment --comment "cali:O3lYWMrLQYEMJtB5" -j cali-POSTROUTING
-A cali-POSTROUTING -m comment --comment "cali:flqWnvo8yq4ULQLa" -m set --match-set cali40masq-ipam-pools src -m set ! --match-set cali40all-ipam-pools dst -j MASQUERADE
COMMIT
EOF
`,
	before: func(ctx context.Context, p *page, commands []string) { p.run(ctx, commands[0]) },
}

func TestTakeOverFromFlannel(t *testing.T) { takeOver(t, "tflannel", flannel) }

func TestTakeOverFromCalico(t *testing.T) { takeOver(t, "tcalico", calico) }

// takeOver moves nodes that have pods to Korat, as docs/install.md says.
func takeOver(t *testing.T, name string, old network) {
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	c := up(ctx, t, cluster.Options{Name: name})
	called(t, c, imageTag(t, newest))
	p := newPage(t, c)
	nodes := c.Topology.Nodes()
	for i, n := range nodes {
		p.on(ctx, n.Name, fmt.Sprintf("SELF=%d PEER=%d ADDRESS=%s OTHER=%s\n%s", i+1, 2-i, n.Address.Addr(), nodes[1-i].Address.Addr(), old.script))
	}
	a, b := runPod(ctx, t, c, nodes[0].Name), runPod(ctx, t, c, nodes[1].Name)
	ping(ctx, t, c, nodes[0].Name, a, b)

	move := p.commands("Take over from another network")
	old.before(ctx, p, move)
	p.run(ctx, strings.Join(p.commands("With kubectl"), ""))
	if err := c.ApplyNetwork(ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitInstalled(ctx); err != nil {
		t.Fatal(err)
	}
	ping(ctx, t, c, nodes[0].Name, a, b)
	told(ctx, t, p)

	drain, configuration, uncordon, clean := move[1], strings.ReplaceAll(move[2], flannel.file, old.file), move[3], move[4]
	for i, n := range nodes {
		// The page's reader has controllers that make pods anew.
		p.run(ctx, "kubectl delete pod pod-"+n.Name+"\n"+drain, "NODE="+n.Name)
		p.on(ctx, n.Name, configuration)
		p.run(ctx, uncordon, "NODE="+n.Name)
		moved := runPod(ctx, t, c, n.Name)
		if otherPool.Contains(moved) {
			t.Fatalf("pod of %s has the address %s of the other network", n.Name, moved)
		}
		if i == 0 {
			ping(ctx, t, c, nodes[0].Name, moved, b)
			ping(ctx, t, c, nodes[1].Name, b, moved)
			p.run(ctx, "kubectl label pod pod-"+n.Name+" closed=yes\n"+closed)
			silent(ctx, t, c, nodes[1].Name, b, moved)
			p.run(ctx, "kubectl delete networkpolicy closed")
		}
		a, b = moved, a
	}
	ping(ctx, t, c, nodes[1].Name, a, b)
	for _, n := range nodes {
		p.on(ctx, n.Name, clean)
		if left := p.on(ctx, n.Name, ofOthers); left != "" {
			t.Errorf("left on %s:\n%s", n.Name, left)
		}
	}
	ping(ctx, t, c, nodes[1].Name, a, b)
}

// closed lets nobody reach pods with the label.
const closed = `kubectl apply --filename - <<EOF
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed}
spec: {podSelector: {matchLabels: {closed: "yes"}}, policyTypes: [Ingress]}
EOF
`

// ofOthers prints what is there of the networks above.
const ofOthers = `{
	ip -o link; ip route show proto 80; iptables-save; ip6tables-save; ipset list -n; ls /etc/cni/net.d
} 2> /dev/null | grep -i 'flannel\|cali\|cni0\|10\.77\.' || true`

// silent waits until nothing comes from the pod that has the address from on the node.
func silent(ctx context.Context, t *testing.T, c *cluster.Cluster, node string, from, to netip.Addr) {
	t.Helper()
	netns, err := c.PodNetns(ctx, node, from)
	if err != nil {
		t.Fatal(err)
	}
	err = lab.Eventually(ctx, func(ctx context.Context) error {
		if machine.InNetns(netns, exec.CommandContext(ctx, "ping", "-c", "1", "-W", "1", to.String()).Run) == nil {
			return fmt.Errorf("%s answers %s", to, from)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// told waits until an agent of every node has said that another network comes first.
func told(ctx context.Context, t *testing.T, p *page) {
	t.Helper()
	var agents corev1.PodList
	if err := p.cluster.Client.List(ctx, &agents, client.InNamespace("kube-system"), client.MatchingLabels{"app.kubernetes.io/component": "agent"}); err != nil {
		t.Fatal(err)
	}
	for _, a := range agents.Items {
		err := lab.Eventually(ctx, func(ctx context.Context) error {
			log := p.run(ctx, "kubectl --namespace kube-system logs "+a.Name+" --container agent")
			if !strings.Contains(log, "the container runtime uses another network for new pods") {
				return fmt.Errorf("%s does not tell of the other network:\n%s", a.Name, log)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}
