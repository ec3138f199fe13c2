package suite

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	koratv1 "github.com/koratnet/korat/api/v1"
)

// enforces waits until a node says that a backend, and no other, enforces policy.
func enforces(t *testing.T, node, backend string) {
	t.Helper()
	eventually(t, node+" enforces by "+backend, func(ctx context.Context) error {
		n := &koratv1.NodeNetwork{}
		if err := cluster.Client.Get(ctx, client.ObjectKey{Name: node}, n); err != nil {
			return err
		}
		c := meta.FindStatusCondition(n.Status.Conditions, koratv1.ConditionEnforced)
		if c == nil || c.Status != metav1.ConditionTrue || n.Status.Backend != backend {
			return fmt.Errorf("backend is %q, condition %+v", n.Status.Backend, c)
		}
		return nil
	})
}

// asking asks over and over from a pod, over TCP and UDP, until stop: every
// answer must come, or none. It returns how often it asked.
func asking(t *testing.T, from string, to netip.Addr, may bool) (asked *atomic.Int64, stop func()) {
	t.Helper()
	patience := 30 * time.Second // a lost packet is sent again after one, and machines are busy
	if !may {
		patience = 30 * time.Millisecond
	}
	asked, ended := &atomic.Int64{}, make(chan struct{})
	var done sync.WaitGroup
	for _, proto := range []string{"tcp", "udp"} {
		if may && proto == "udp" {
			continue // nobody sends it again
		}
		done.Go(func() {
			for {
				select {
				case <-ended:
					return
				default:
				}
				_, err := cluster.Ask(from, proto, netip.AddrPortFrom(to, 80), patience)
				if (err == nil) != may {
					t.Errorf("%s asked %s by %s: %v", from, to, proto, err)
				}
				asked.Add(1)
			}
		})
	}
	return asked, func() { close(ended); done.Wait() }
}

// While the backend of a running node is switched, and back, what is allowed
// flows and what is denied does not; nothing of the other backend is left.
func TestSwitchingTheBackendUnderTraffic(t *testing.T) {
	namespace(t, cluster, "switch")
	create(t, cluster, &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "switch", Name: "friends"},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "server"}},
			Ingress: []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{{
				PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "friend"}},
			}}}},
		},
	})
	server := start(t, cluster, podOn("a1", "switch", "server", map[string]string{"app": "server"}))
	for name, node := range map[string]string{"friend": "b1", "near-friend": "a1", "stranger": "b1", "near-stranger": "a1"} {
		app := name[strings.LastIndex(name, "-")+1:]
		start(t, cluster, podOn(node, "switch", name, map[string]string{"app": app}))
	}
	for _, friend := range []string{"friend", "near-friend"} {
		eventually(t, friend+" reaches the server", func(context.Context) error { return reach(cluster, "switch/"+friend, server) })
	}
	enforces(t, "a1", "IPTables")
	stopPings := pings(t, cluster, "switch/friend", server)
	var asked []*atomic.Int64
	for name, may := range map[string]bool{"friend": true, "near-friend": true, "stranger": false, "near-stranger": false} {
		n, stop := asking(t, "switch/"+name, server, may)
		t.Cleanup(stop)
		asked = append(asked, n)
	}
	for round := range 2 {
		c := &koratv1.NodeConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "switch"}, Spec: koratv1.NodeConfigurationSpec{Backend: koratv1.BackendNFTables}}
		if round == 1 { // one node alone
			c.Spec.NodeSelector = corev1.LabelHostname + " == 'a1'"
		}
		create(t, cluster, c)
		enforces(t, "a1", "NFTables")
		progress(t, asked)
		if left := sh(t, cluster, "a1", "sh", "-c", "{ iptables-nft-save; iptables-legacy-save; ipset list -n; } 2>/dev/null | grep -E 'KORAT-|kor[46]-' || true"); left != "" {
			t.Errorf("left of iptables on a1:\n%s", left)
		}
		remove(t, cluster, c)
		enforces(t, "a1", "IPTables")
		progress(t, asked)
		if left := sh(t, cluster, "a1", "nft", "list", "tables"); strings.Contains(left, "korat") {
			t.Errorf("left of nf_tables on a1:\n%s", left)
		}
	}
	if sent, lost := stopPings(); lost != 0 {
		t.Errorf("%d of %d pings of an allowed flow were lost", lost, sent)
	}
}

// progress waits until each of the counters has grown.
func progress(t *testing.T, counters []*atomic.Int64) {
	t.Helper()
	for _, n := range counters {
		before := n.Load()
		eventually(t, "traffic goes on", func(context.Context) error {
			if now := n.Load(); now < before+5 {
				return fmt.Errorf("%d times", now-before)
			}
			return nil
		})
	}
}
