//go:build encryption

package suite

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/e2e/lab"
	"github.com/koratnet/korat/e2e/lab/machine"
	"github.com/koratnet/korat/e2e/lab/whoami"
)

// capture looks at the uplink of a node for packets that the filter matches, until the
// test ends.
func capture(t *testing.T, node, filter string) *lab.Capture {
	t.Helper()
	c, err := cluster.Capture(t.Context(), node, filter)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Stop)
	return c
}

// encrypt asks for a mode on all nodes, and waits until each says that it reaches all
// others encrypted.
func encrypt(t *testing.T, mode koratv1.EncryptionMode) {
	t.Helper()
	c := &koratv1.NodeConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "encryption"}}
	err := cluster.Client.Get(t.Context(), client.ObjectKeyFromObject(c), c)
	if c.Spec.Encryption.Mode = mode; err != nil {
		create(t, cluster, c)
	} else {
		change(t, c, func() { c.Spec.Encryption.Mode = mode })
	}
	allEncrypted(t)
}

func allEncrypted(t *testing.T) {
	t.Helper()
	eventually(t, "every node reaches all others encrypted", func(ctx context.Context) error {
		var nodes koratv1.NodeNetworkList
		if err := cluster.List(ctx, &nodes); err != nil {
			return err
		}
		var err error
		for _, n := range nodes.Items {
			if c := meta.FindStatusCondition(n.Status.Conditions, koratv1.ConditionEncrypted); c == nil || c.Status != metav1.ConditionTrue {
				err = errors.Join(err, fmt.Errorf("%s: %v", n.Name, c))
			}
		}
		return err
	})
}

// nodePort is where programs of nodes listen, and nothing else does.
const nodePort = 7777

// addressOf returns the first IPv4 address of a node.
func addressOf(t *testing.T, node string) netip.Addr {
	t.Helper()
	var n corev1.Node
	if err := cluster.Client.Get(t.Context(), client.ObjectKey{Name: node}, &n); err != nil {
		t.Fatal(err)
	}
	for _, a := range n.Status.Addresses {
		if addr, err := netip.ParseAddr(a.Address); err == nil && addr.Is4() {
			return addr
		}
	}
	t.Fatalf("%s has no IPv4 address: %v", node, n.Status.Addresses)
	return netip.Addr{}
}

// serveAt has a node answer at nodePort of its own address, which it returns.
func serveAt(t *testing.T, node string) netip.Addr {
	t.Helper()
	addr := addressOf(t, node)
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- machine.InNetns(machine.NetnsPath(cluster.Machine(node).Netns), func() error {
			return whoami.Serve(ctx, node, []string{fmt.Sprint("tcp/", nodePort)}, func() { close(ready) })
		})
	}()
	t.Cleanup(func() { cancel(); <-done })
	select {
	case <-ready:
	case err := <-done:
		t.Fatalf("serve on %s: %v", node, err)
	}
	return addr
}

// podsReachNodes: every pod reaches every other node and is seen there as itself, and
// every node reaches every pod.
func podsReachNodes(t *testing.T, pods, nodes map[string]netip.Addr) {
	t.Helper()
	eventually(t, "pods reach nodes, and nodes pods", func(context.Context) error {
		var errs []error
		for from, pod := range pods {
			for to, node := range nodes {
				r, err := cluster.Ask("encrypted/"+from, "tcp", netip.AddrPortFrom(node, nodePort), 500*time.Millisecond)
				if err == nil && r.Client.Addr() != pod {
					err = fmt.Errorf("it sees %s", r.Client)
				}
				if err != nil {
					errs = append(errs, fmt.Errorf("pod of %s to node %s: %w", from, to, err))
				}
				if err := reach(cluster, to, pod); err != nil {
					errs = append(errs, fmt.Errorf("node %s to pod of %s: %w", to, from, err))
				}
			}
		}
		return errors.Join(errs...)
	})
}

// TestNothingTravelsInClearWhereEncryptionIsRequired: from when every node requires
// it, no wire sees a packet with the address of a pod, or of what pods and nodes send
// each other: while pods start, while agents are killed and come back, while the process
// that encrypts is killed, and while a node that lost its key joins with another one.
// Policy sees the packets inside.
func TestNothingTravelsInClearWhereEncryptionIsRequired(t *testing.T) {
	namespace(t, cluster, "encrypted")
	addrs := map[string]netip.Addr{}
	for _, node := range []string{"a1", "a2", "b1"} {
		addrs[node] = start(t, cluster, podOn(node, "encrypted", node, map[string]string{"app": node}))
	}
	flows := []*flow{
		pingFlow(t, cluster, "encrypted/a1", addrs["b1"]), pingFlow(t, cluster, "encrypted/a2", addrs["a1"]),
	}
	heardSince(t, flows, time.Now())
	encrypt(t, koratv1.EncryptionPreferred)
	heardSince(t, flows, time.Now())
	encrypt(t, koratv1.EncryptionRequired)
	eventually(t, "the pools lead nowhere but through tunnels", closed)
	heardSince(t, flows, time.Now())
	for _, f := range flows {
		f.end()
		sent, lost := f.count()
		t.Logf("%s lost %d of %d packets on the way to encryption", f.name, len(lost), sent)
	}

	var wires []*lab.Capture
	nodes := map[string]netip.Addr{}
	for _, node := range []string{"a1", "a2", "b1", "b2"} {
		nodes[node] = serveAt(t, node)
		wires = append(wires, capture(t, node, fmt.Sprint("net 10.244.0.0/16 or tcp port ", nodePort)))
	}
	podsReachNodes(t, addrs, nodes)
	addrs["b2"] = start(t, cluster, podOn("b2", "encrypted", "b2", nil))
	everybodyReaches(t, "encrypted", addrs)
	for _, node := range []string{"a1", "b1"} {
		if err := errors.Join(cluster.KillAgent(t.Context(), node), cluster.StartAgent(t.Context(), node)); err != nil {
			t.Fatal(err)
		}
	}
	everybodyReaches(t, "encrypted", addrs)
	sh(t, cluster, "b1", "pkill", "-KILL", "-f", "korat wireguard .*--device wg4-korat")
	everybodyReaches(t, "encrypted", addrs)
	joinsWithAnotherKey(t, "b2")
	everybodyReaches(t, "encrypted", addrs)
	podsReachNodes(t, addrs, nodes)
	stranger := talking(t, "encrypted/a2", addrs["b1"])
	insideIsJudged(t, addrs["b1"])
	for _, node := range []string{"a2", "b1"} {
		if err := errors.Join(cluster.KillAgent(t.Context(), node), cluster.StartAgent(t.Context(), node)); err != nil {
			t.Fatal(err)
		}
	}
	if err := stranger.asks(patient(5 * time.Second)); err != nil {
		t.Errorf("agents that started anew forgot a connection from before the policy: %v", err)
	}
	for _, w := range wires {
		if text := w.Seen(); text != "" {
			t.Errorf("the wire of %s saw packets of pods in clear:\n%s", w.Machine, text[:min(len(text), 2000)])
		}
	}
}

// closed: on every node the pool as a whole is unreachable.
func closed(ctx context.Context) error {
	var errs []error
	for _, node := range []string{"a1", "a2", "b1", "b2"} {
		text, err := try(ctx, cluster, node, "ip", "route", "show", "type", "unreachable")
		if err == nil && !strings.Contains(text, "10.244.0.0/16") {
			err = fmt.Errorf("%s: %s", node, text)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func everybodyReaches(t *testing.T, namespace string, addrs map[string]netip.Addr) {
	t.Helper()
	eventually(t, "every pod reaches every other", func(context.Context) error {
		var errs []error
		for from := range addrs {
			for to, addr := range addrs {
				if err := reach(cluster, namespace+"/"+from, addr); err != nil {
					errs = append(errs, fmt.Errorf("%s to %s: %w", from, to, err))
				}
			}
		}
		return errors.Join(errs...)
	})
}

// joinsWithAnotherKey takes a node its key and its tunnel, and lets it come back.
func joinsWithAnotherKey(t *testing.T, node string) {
	t.Helper()
	key := func(ctx context.Context) string {
		var n koratv1.NodeNetwork
		if err := cluster.Client.Get(ctx, client.ObjectKey{Name: node}, &n); err != nil || len(n.Status.WireGuard) == 0 {
			return ""
		}
		return n.Status.WireGuard[0].PublicKey
	}
	before := key(t.Context())
	if err := cluster.KillAgent(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	sh(t, cluster, node, "ip", "link", "del", "wg4-korat")
	if err := os.Remove(cluster.Machine(node).Path("/var/lib/korat/wireguard.key")); err != nil {
		t.Fatal(err)
	}
	if err := cluster.StartAgent(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	eventually(t, node+" announces another key", func(ctx context.Context) error {
		if now := key(ctx); now == before || now == "" {
			return fmt.Errorf("it is %q, and was %q", now, before)
		}
		return nil
	})
	allEncrypted(t)
}

// insideIsJudged closes the pod at to for all but that of a1.
func insideIsJudged(t *testing.T, to netip.Addr) {
	t.Helper()
	friends := []networkingv1.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "a1"}}}}
	create(t, cluster, &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "encrypted", Name: "friends"},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "b1"}},
			Ingress:     []networkingv1.NetworkPolicyIngressRule{{From: friends}},
		},
	})
	eventually(t, "policy decides about packets inside", func(context.Context) error {
		if reach(cluster, "encrypted/a2", to) == nil {
			return errors.New("a2 comes through")
		}
		return reach(cluster, "encrypted/a1", to)
	})
}
