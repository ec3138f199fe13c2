package suite

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/e2e/lab"
)

// The cluster of BenchmarkWrite: so many policies, each in use at one of so many
// pods of a node, with peers that are not there.
const (
	benchPolicies = 10_000
	benchPods     = 20
)

// BenchmarkWrite measures from the moment at which the API server has answered to a
// write of a policy until a packet meets it: a policy that lets a pod in comes and
// goes, while there are 10,000 others on the node.
func BenchmarkWrite(b *testing.B) {
	ctx := b.Context()
	must := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	c := cluster.Client
	space := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "write"}}
	must(c.Create(ctx, space))
	b.Cleanup(func() { _ = c.Delete(context.Background(), space) }) // the lab goes anyway
	must(c.Create(ctx, &koratv1.NodeConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "write"}, Spec: koratv1.NodeConfigurationSpec{Backend: koratv1.BackendNFTables},
	}))
	for i := range benchPods {
		must(lab.Eventually(ctx, func(ctx context.Context) error { // the account of a namespace comes after it
			return c.Create(ctx, podOn("a1", "write", fmt.Sprint("p", i), map[string]string{"pod": fmt.Sprint(i)}))
		}))
	}
	must(c.Create(ctx, podOn("b1", "write", "caller", map[string]string{"app": "caller"})))
	for i := range benchPolicies {
		must(c.Create(ctx, writePolicy(fmt.Sprint("other-", i), i%benchPods, fmt.Sprint("nobody-", i%100))))
	}
	var server netip.AddrPort
	must(lab.Eventually(ctx, func(context.Context) error {
		for _, name := range []string{"write/caller", "write/p0"} {
			p, err := cluster.Pod(name)
			if err != nil || len(p.Addresses) == 0 {
				return fmt.Errorf("pod %s has no address yet (%v)", name, err)
			}
			server = netip.AddrPortFrom(p.Addresses[0], 80)
		}
		return nil
	}))
	// A packet of a new connection every few milliseconds tells when the door opens;
	// that it is closed is no answer for longer.
	patience := map[bool]time.Duration{true: 3 * time.Millisecond, false: 100 * time.Millisecond}
	until := func(open bool) {
		for deadline := time.Now().Add(time.Minute); ; {
			if _, err := cluster.Ask("write/caller", "udp", server, patience[open]); (err == nil) == open {
				return
			}
			if time.Now().After(deadline) {
				b.Fatalf("open is not %v within a minute", open)
			}
		}
	}
	door := writePolicy("door", 0, "caller")
	must(c.Create(ctx, door.DeepCopy())) // and with it all others are there
	until(true)
	must(c.Delete(ctx, door.DeepCopy()))
	until(false)

	var took []time.Duration
	for b.Loop() {
		must(c.Create(ctx, door.DeepCopy()))
		written := time.Now()
		until(true)
		took = append(took, time.Since(written))
		must(c.Delete(ctx, door.DeepCopy()))
		until(false)
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms-p50")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "ms-p99")
}

// writePolicy lets pods with a label call a pod.
func writePolicy(name string, pod int, from string) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "write", Name: name},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"pod": fmt.Sprint(pod)}},
			Ingress: []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{{
				PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": from}},
			}}}},
		},
	}
}
