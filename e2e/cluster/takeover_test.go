package cluster_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/koratnet/korat/e2e/lab"
)

// otherPool is where the other network's pods have their addresses.
var otherPool = netip.MustParsePrefix("10.77.0.0/16")

// otherNetwork makes what flannel makes on a node: a bridge for pods, addresses by
// host-local, a tunnel to the other node and what hides pods from the rest.
const otherNetwork = `
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
`

// TestTakeOver moves nodes that have pods to Korat, as docs/install.md says.
func TestTakeOver(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	c := up(ctx, t, "ttake")
	called(t, c, imageTag(t, newest))
	p := newPage(t, c)
	nodes := c.Topology.Nodes()
	for i, n := range nodes {
		other := nodes[1-i]
		p.on(ctx, n.Name, fmt.Sprintf("SELF=%d PEER=%d ADDRESS=%s OTHER=%s\n%s", i+1, 2-i, n.Address.Addr(), other.Address.Addr(), otherNetwork))
	}
	a, b := runPod(ctx, t, c, nodes[0].Name), runPod(ctx, t, c, nodes[1].Name)
	ping(ctx, t, c, nodes[0].Name, a, b)

	p.run(ctx, strings.Join(p.commands("With kubectl"), ""))
	if err := c.ApplyNetwork(ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitInstalled(ctx); err != nil {
		t.Fatal(err)
	}
	ping(ctx, t, c, nodes[0].Name, a, b)
	told(ctx, t, p)

	move := p.commands("Take over from another network")
	drain, configuration, uncordon := move[0], move[1], move[2]
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
		}
		a, b = moved, a
	}
	ping(ctx, t, c, nodes[1].Name, a, b)
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
