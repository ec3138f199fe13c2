package suite

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/e2e/lab"
)

var (
	walks     = flag.Int("walks", 1, "how many random walks from mode to mode")
	walkModes = flag.String("walk-modes", "None,VXLAN,VXLANCrossSubnet", "what a walk goes through")
	walkSeed  = flag.Uint64("walk-seed", 1, "seed of the walks")
)

// stepsOfAWalk is how often each walk changes the mode.
const stepsOfAWalk = 4

// fitting is the size of the packets of flows that no mode's MTU forbids, with the
// headers of IP and ICMP.
const fitting = 1400

// TestWalksFromModeToModeUnderTraffic changes what packets between nodes travel in,
// again and again, now and then before the change before is over: no packet is lost
// that the MTU of every mode allows, and no connection.
func TestWalksFromModeToModeUnderTraffic(t *testing.T) {
	t.Logf("-walk-seed %d", *walkSeed)
	r := rand.New(rand.NewPCG(*walkSeed, 0))
	namespace(t, cluster, "walks")
	for pod, node := range map[string]string{"a1": "a1", "a2": "a2", "b1": "b1"} {
		start(t, cluster, podOn(node, "walks", pod, nil))
	}
	t.Cleanup(func() {
		travel(t, koratv1.EncapsulationNone)
		arrived(t, koratv1.EncapsulationNone)
	})
	modes := strings.Split(*walkModes, ",")
	for n := range *walks {
		walk(t, r, n+1, modes)
	}
}

// walk is one walk, with flows that begin and end with it.
func walk(t *testing.T, r *rand.Rand, number int, modes []string) {
	t.Helper()
	var flows []*flow
	var talks []*talk
	for _, pair := range [][2]string{{"a1", "a2"}, {"a1", "b1"}, {"b1", "a2"}} {
		for _, to := range addressesOf(t, "walks/"+pair[1]) {
			header := 28
			if to.Is6() {
				header = 48
			}
			flows = append(flows, pingFlow(t, cluster, "walks/"+pair[0], to, "-M", "do", "-s", fmt.Sprint(fitting-header)))
			talks = append(talks, talking(t, "walks/"+pair[0], to))
		}
	}
	heardSince(t, flows, time.Now())
	way := []string{}
	for range stepsOfAWalk {
		mode := koratv1.Encapsulation(modes[r.IntN(len(modes))])
		for len(way) > 0 && way[len(way)-1] == string(mode) {
			mode = koratv1.Encapsulation(modes[r.IntN(len(modes))])
		}
		travel(t, mode)
		way = append(way, string(mode))
		if r.IntN(4) > 0 { // else the next change comes while this one is on its way
			arrived(t, mode)
		}
		heardSince(t, flows, time.Now())
		for _, c := range talks {
			if err := c.asks(patient(30 * time.Second)); err != nil {
				t.Errorf("walk %d, on the way to %s: a connection: %v", number, mode, err)
			}
		}
	}
	sent := 0
	for _, f := range flows {
		f.end()
		of, lost := f.count()
		if sent += of; len(lost) > 0 {
			t.Errorf("walk %d by %v: %s lost %d of %d packets: %v", number, way, f.name, len(lost), of, lost)
		}
	}
	t.Logf("walk %d by %v: %d packets", number, way, sent)
}

// travel sets the mode of all pools.
func travel(t *testing.T, mode koratv1.Encapsulation) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patient(time.Minute))
	defer cancel()
	var pools koratv1.IPPoolList
	if err := cluster.List(ctx, &pools); err != nil {
		t.Fatal(err)
	}
	for i := range pools.Items {
		p := &pools.Items[i]
		m := mode
		if strings.Contains(string(p.Spec.CIDR), ":") && strings.HasPrefix(string(mode), "IPIP") {
			m = koratv1.EncapsulationNone // there is no IPIP of IPv6
		}
		patch := fmt.Appendf(nil, `{"spec":{"encapsulation":%q}}`, m)
		if err := cluster.Client.Patch(ctx, p, client.RawPatch("application/merge-patch+json", patch)); err != nil {
			t.Fatal(err)
		}
	}
}

// arrived waits until all pools say that the change to the mode of their spec is over.
func arrived(t *testing.T, mode koratv1.Encapsulation) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patient(2*time.Minute))
	defer cancel()
	err := lab.Eventually(ctx, func(ctx context.Context) error {
		var pools koratv1.IPPoolList
		if err := cluster.List(ctx, &pools); err != nil {
			return err
		}
		for _, p := range pools.Items {
			c := meta.FindStatusCondition(p.Status.Conditions, koratv1.ConditionEncapsulated)
			if c == nil || c.Status != metav1.ConditionTrue || c.ObservedGeneration != p.Generation || p.Status.Encapsulation != p.Spec.Encapsulation {
				return fmt.Errorf("pool %s on its way to %s: %+v", p.Name, p.Spec.Encapsulation, c)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatalf("the change to %s: %v", mode, err)
	}
}

// addressesOf returns the addresses of a pod that runs.
func addressesOf(t *testing.T, pod string) []netip.Addr {
	t.Helper()
	p, err := cluster.Pod(pod)
	if err != nil || len(p.Addresses) == 0 {
		t.Fatalf("addresses of %s: %v, %v", pod, p.Addresses, err)
	}
	return p.Addresses
}
