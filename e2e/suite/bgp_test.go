package suite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/e2e/lab"
)

func sortedCopy(l []string) []string {
	l = slices.Clone(l)
	slices.Sort(l)
	return l
}

// established returns since when the node's session with an address is up.
func established(ctx context.Context, node, address string) (*metav1.Time, error) {
	var nn koratv1.NodeNetwork
	if err := cluster.Client.Get(ctx, client.ObjectKey{Name: node}, &nn); err != nil {
		return nil, err
	}
	for _, s := range nn.Status.Sessions {
		if s.Address == address && s.State == koratv1.SessionEstablished {
			return s.Since, nil
		}
	}
	return nil, fmt.Errorf("%s has no session with %s", node, address)
}

// A BGPPeer that goes takes its session along, and no other session notices.
func TestRemovingAPeerLeavesOtherSessionsAlone(t *testing.T) {
	var peer koratv1.BGPPeer
	if err := cluster.Client.Get(t.Context(), client.ObjectKey{Name: "tor-a"}, &peer); err != nil {
		t.Fatal(err)
	}
	var before *metav1.Time
	eventually(t, "the session with the other node", func(ctx context.Context) (err error) {
		before, err = established(ctx, "a1", "10.101.0.12")
		return err
	})
	if err := cluster.Client.Delete(t.Context(), &peer); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the session with the router ends", func(ctx context.Context) error {
		if _, err := established(ctx, "a1", "10.101.0.1"); err != nil {
			return nil
		}
		return errors.New("still established")
	})
	again := &koratv1.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: "tor-a"}, Spec: peer.Spec}
	if err := cluster.Client.Create(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the session with the router is back", func(ctx context.Context) error {
		_, err := established(ctx, "a1", "10.101.0.1")
		return err
	})
	after, err := established(t.Context(), "a1", "10.101.0.12")
	if err != nil || !after.Equal(before) {
		t.Errorf("the session with the other node was up since %v and is up since %v (%v)", before, after, err)
	}
}

// Routers learn a block for each node of rack a, and each pod of rack b.
func TestRoutersLearnWhatTheirRackAdvertises(t *testing.T) {
	namespace(t, cluster, "tors")
	a, b := start(t, cluster, podOn("a1", "tors", "p", nil)), start(t, cluster, podOn("b1", "tors", "q", nil))
	has := func(router, route string) func(context.Context) error {
		return func(ctx context.Context) error {
			out, err := try(ctx, cluster, router, "ip", "route", "show", route)
			if err != nil || !strings.HasPrefix(out, strings.TrimSuffix(route, "/32")) {
				return fmt.Errorf("%s has no route %s: %w", router, route, err)
			}
			return nil
		}
	}
	block := ""
	var blocks koratv1.BlockList
	if err := cluster.Client.List(t.Context(), &blocks); err != nil {
		t.Fatal(err)
	}
	for _, x := range blocks.Items {
		if x.Spec.Node == "a1" {
			block = string(x.Spec.CIDR)
		}
	}
	eventually(t, "block in rack a", has("tor-a", block))
	eventually(t, "host in rack b", has("tor-b", b.String()+"/32"))
	if has("tor-a", a.String()+"/32")(t.Context()) == nil {
		t.Errorf("tor-a was told of the single pod %s", a)
	}
}

// Two routers in a rack are two equal paths, and one of them may die.
func TestTwoRoutersAreTwoEqualPaths(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	o := lab.Options{Name: "dual", Bin: bin, Progress: os.Stderr, Topology: dualToR(t)}
	t.Cleanup(func() {
		if err := lab.Down(context.Background(), o); err != nil {
			t.Error(err)
		}
	})
	l, err := up(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	namespace(t, l, "ecmp")
	to := start(t, l, podOn("b1", "ecmp", "q", nil))
	start(t, l, podOn("a1", "ecmp", "p", nil))
	eventually(t, "two next hops", func(ctx context.Context) error {
		out, err := try(ctx, l, "a1", "ip", "route", "show", to.String())
		if err != nil || strings.Count(out, "nexthop via") != 2 || !strings.Contains(out, "proto 112") {
			return fmt.Errorf("route is %q: %w", out, err)
		}
		return nil
	})
	eventually(t, "path between the racks", func(context.Context) error { return reach(l, "ecmp/p", to) })
	routerDiesSilently(t, l)
}
