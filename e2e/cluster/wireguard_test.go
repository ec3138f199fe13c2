package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	v1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/e2e/cluster"
	"github.com/koratnet/korat/e2e/lab"
)

// TestUserspaceWireGuard: on nodes whose kernel knows no WireGuard agents say so and
// nodes are in use, in clear, where encryption is preferred. Given the device and the
// rights by the chart they encrypt, and from when that is required nothing travels in
// clear, also while an agent's pod is replaced.
func TestUserspaceWireGuard(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	plan, err := lab.Topology("dual-stack")
	if err != nil {
		t.Fatal(err)
	}
	c := up(ctx, t, cluster.Options{Name: "twire", Topology: plan})
	called(t, c, imageTag(t, newest))
	p := newPage(t, c)
	both := fmt.Sprintf("defaultPools={%s,%s}", plan.Pool, plan.Pool6)
	p.run(ctx, strings.Replace(p.commands("With Helm")[0], "defaultPools={10.244.0.0/16}", both, 1))
	installed(ctx, t, p)
	a, b := dualStackPod(ctx, t, c, "a1"), dualStackPod(ctx, t, c, "b1")

	prefer(ctx, p, "Preferred")
	encrypted(ctx, t, c, metav1.ConditionFalse, "/dev/net/tun")
	p.run(ctx, "kubectl --namespace kube-system rollout restart daemonset/korat-agent") // what begins so is ready too
	installed(ctx, t, p)
	before := listen(ctx, t, c, "a1")
	for i := range a {
		ping(ctx, t, c, "a1", a[i], b[i])
	}
	before.wait(ctx, t, "of nodes that cannot encrypt no packet is seen in clear", func(_, inClear []string) bool { return len(inClear) > 0 })

	p.run(ctx, "helm upgrade korat charts/korat --namespace kube-system --reuse-values --set agent.userspaceWireGuard=true")
	installed(ctx, t, p)
	encrypted(ctx, t, c, metav1.ConditionTrue, "")
	prefer(ctx, p, "Required")
	nowhere(ctx, t, p)

	after := listen(ctx, t, c, "a1")
	var flows []*traffic
	for i := range a {
		ping(ctx, t, c, "a1", a[i], b[i])
		flows = append(flows, startTraffic(ctx, t, c, "a1", a[i], b[i]))
	}
	p.run(ctx, "kubectl --namespace kube-system delete pod --selector app.kubernetes.io/component=agent --field-selector spec.nodeName=a1")
	for i := range a {
		ping(ctx, t, c, "a1", a[i], b[i])
		sent, came := flows[i].end(t)
		t.Logf("%s to %s: %d of %d packets came, 50 a second, while the agent's pod was replaced", a[i], b[i], came, sent)
	}
	encrypted(ctx, t, c, metav1.ConditionTrue, "")
	sealed, _ := after.packets()
	ping(ctx, t, c, "a1", a[0], b[0]) // what was before is seen when this is
	after.wait(ctx, t, "no packet is seen encrypted", func(now, _ []string) bool { return len(now) > len(sealed) })
	if _, inClear := after.packets(); len(inClear) > 0 {
		t.Errorf("where encryption is required packets are seen in clear:\n%s", strings.Join(inClear, ""))
	}
}

// installed waits until agents are ready and routers know where pods are.
func installed(ctx context.Context, t *testing.T, p *page) {
	t.Helper()
	if err := errors.Join(p.cluster.ApplyNetwork(ctx), p.cluster.WaitInstalled(ctx)); err != nil {
		t.Fatal(err)
	}
}

// dualStackPod starts a pod on the node and returns its addresses, that of IPv4 first.
func dualStackPod(ctx context.Context, t *testing.T, c *cluster.Cluster, node string) []netip.Addr {
	t.Helper()
	name := startPod(ctx, t, c, node)
	running(ctx, t, c, name)
	var pod corev1.Pod
	if err := c.Client.Get(ctx, types.NamespacedName{Namespace: "default", Name: name}, &pod); err != nil {
		t.Fatal(err)
	}
	var out []netip.Addr
	for _, a := range pod.Status.PodIPs {
		out = append(out, netip.MustParseAddr(a.IP))
	}
	if len(out) != 2 {
		t.Fatalf("pod of %s has the addresses %v, want two", node, out)
	}
	return out
}

// prefer asks for a mode of encryption on all nodes.
func prefer(ctx context.Context, p *page, mode v1.EncryptionMode) {
	p.Helper()
	p.run(ctx, fmt.Sprintf(`kubectl apply --filename - <<EOF
apiVersion: korat.dev/v1
kind: NodeConfiguration
metadata: {name: default}
spec: {encryption: {mode: %s}}
EOF`, mode))
}

// encrypted waits until the condition Encrypted of all nodes has this status, and a
// message that contains text.
func encrypted(ctx context.Context, t *testing.T, c *cluster.Cluster, status metav1.ConditionStatus, text string) {
	t.Helper()
	err := lab.Eventually(ctx, func(ctx context.Context) error {
		var nodes v1.NodeNetworkList
		if err := c.List(ctx, &nodes); err != nil {
			return err
		}
		for _, n := range nodes.Items {
			cond := meta.FindStatusCondition(n.Status.Conditions, v1.ConditionEncrypted)
			if cond == nil || cond.Status != status || !strings.Contains(cond.Message, text) {
				return fmt.Errorf("Encrypted of %s is %+v, want %s and %q", n.Name, cond, status, text)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// nowhere waits until pools as a whole lead nowhere, as where encryption is required.
func nowhere(ctx context.Context, t *testing.T, p *page) {
	t.Helper()
	err := lab.Eventually(ctx, func(ctx context.Context) error {
		for _, n := range p.cluster.Topology.Nodes() {
			routes := p.on(ctx, n.Name, "ip route show type unreachable; ip -6 route show type unreachable")
			for _, pool := range []netip.Prefix{p.cluster.Topology.Pool, p.cluster.Topology.Pool6} {
				if !strings.Contains(routes, pool.String()) {
					return fmt.Errorf("%s leads somewhere on %s:\n%s", pool, n.Name, routes)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// wire is the uplink of a node: packets with the address of a pod, and those that carry
// encrypted ones.
type wire struct{ *lab.Capture }

// listen captures until the test ends.
func listen(ctx context.Context, t *testing.T, c *cluster.Cluster, node string) wire {
	t.Helper()
	filter := fmt.Sprintf("net %s or net %s or udp portrange 51820-51821", c.Topology.Pool, c.Topology.Pool6)
	seen, err := c.Capture(ctx, node, filter)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(seen.Stop)
	return wire{seen}
}

// packets returns those that were seen until now, encrypted and in clear.
func (w wire) packets() (encrypted, inClear []string) {
	for line := range strings.Lines(w.Seen()) {
		if strings.Contains(line, ".51820: UDP") || strings.Contains(line, ".51821: UDP") {
			encrypted = append(encrypted, line)
		} else {
			inClear = append(inClear, line)
		}
	}
	return encrypted, inClear
}

// wait waits until what was seen is as wanted. Until then the complaint holds.
func (w wire) wait(ctx context.Context, t *testing.T, complaint string, wanted func(encrypted, inClear []string) bool) {
	t.Helper()
	err := lab.Eventually(ctx, func(context.Context) error {
		if !wanted(w.packets()) {
			return fmt.Errorf("%s:\n%s", complaint, w.Seen())
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
