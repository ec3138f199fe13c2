package desired_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/desired/desiredtest"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

var compare = cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}), cmpopts.EquateEmpty()}

func members(last ...byte) map[ir.Member]struct{} {
	m := map[ir.Member]struct{}{}
	for _, b := range last {
		m[ir.Member{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, b}), 32)}] = struct{}{}
	}
	return m
}

func TestMergedSetChangesHaveTheEffectOfBoth(t *testing.T) {
	for name, c := range map[string]struct{ first, next, want *desired.SetChange }{
		"what was added and then removed is only removed": {
			&desired.SetChange{Add: members(3)}, &desired.SetChange{Del: members(3)},
			&desired.SetChange{Del: members(3)},
		},
		"what was removed and then added is only added": {
			&desired.SetChange{Del: members(1)}, &desired.SetChange{Add: members(1)},
			&desired.SetChange{Add: members(1)},
		},
		"a whole set stays whole and names no removals": {
			&desired.SetChange{Whole: true, Add: members(1, 2)}, &desired.SetChange{Add: members(3), Del: members(1)},
			&desired.SetChange{Whole: true, Add: members(2, 3)},
		},
		"a set that ends is gone whatever came before": {
			&desired.SetChange{Add: members(3)}, &desired.SetChange{Gone: true},
			&desired.SetChange{Gone: true},
		},
		"a set that begins again is whole": {
			&desired.SetChange{Gone: true}, &desired.SetChange{Whole: true, Add: members(9)},
			&desired.SetChange{Whole: true, Add: members(9)},
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := delta("s", c.first)
			d.Merge(delta("s", c.next))
			if diff := cmp.Diff(c.want, d.Sets["s"], compare); diff != "" {
				t.Error("merged change (-want +got):\n" + diff)
			}
		})
	}
}

func delta(id ir.SetID, c *desired.SetChange) desired.Delta {
	return desired.Delta{Sets: map[ir.SetID]*desired.SetChange{id: c}}
}

func TestMergeIntoAnEmptyDeltaTakesTheOther(t *testing.T) {
	var d desired.Delta
	if !d.Empty() {
		t.Fatal("the zero Delta is not Empty")
	}
	d.Merge(desired.Delta{Complete: true, Pools: &[]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
	d.Merge(desired.Delta{Learned: true})
	if d.Empty() || !d.Complete || !d.Learned || len(*d.Pools) != 1 {
		t.Errorf("merged delta is %+v", d)
	}
}

func TestHostInterfaceFitsTheKernelAndDependsOnBothNames(t *testing.T) {
	a, b := desired.HostInterface("ns", "pod"), desired.HostInterface("ns.pod", "")
	if len(a) > 15 || a[:len(desired.InterfacePrefix)] != desired.InterfacePrefix {
		t.Errorf("interface name %q", a)
	}
	if a == b || a != desired.HostInterface("ns", "pod") {
		t.Errorf("names %q and %q", a, b)
	}
}

// TestFoldingAMergeIsFoldingBoth applies random deltas one by one to one world
// and merged in random groups to another: they are the same world.
func TestFoldingAMergeIsFoldingBoth(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 0))
		var singly, grouped desiredtest.World
		var waiting desired.Delta
		for range 40 {
			d, twin := randomDelta(r, singly)
			singly.Apply(d)
			waiting.Merge(twin)
			if r.IntN(3) == 0 {
				grouped.Apply(waiting)
				grouped.Apply(waiting) // twice is the same as once
				waiting = desired.Delta{}
			}
		}
		grouped.Apply(waiting)
		if diff := cmp.Diff(singly, grouped, compare); diff != "" {
			t.Fatalf("seed %d: applied singly (-) and merged (+):\n%s", seed, diff)
		}
	}
}

// randomDelta returns a delta such as the engine could make of world w, twice,
// because Merge uses up its argument.
func randomDelta(r *rand.Rand, w desiredtest.World) (desired.Delta, desired.Delta) {
	seed := r.Uint64()
	return deltaFrom(rand.New(rand.NewPCG(seed, 1)), w), deltaFrom(rand.New(rand.NewPCG(seed, 1)), w)
}

func deltaFrom(r *rand.Rand, w desiredtest.World) desired.Delta {
	d := desired.Delta{
		Endpoints: map[string]*desired.Endpoint{}, HostEndpoints: map[string]*desired.HostEndpoint{}, Programs: map[ir.ProgramID]*ir.Program{},
		Sets: map[ir.SetID]*desired.SetChange{}, Routes: map[netip.Prefix]*desired.Route{},
		Paths: map[desired.PathKey]*bgp.Path{},
	}
	iface := fmt.Sprint("kor", r.IntN(3))
	prefix := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(3))}), 32)
	program := ir.ProgramID{Policy: policy.Key{Name: iface}, Direction: policy.Ingress}
	key := desired.PathKey{Prefix: prefix, Kind: bgp.Hosts}
	d.HostEndpoints[iface], d.Endpoints[iface], d.Programs[program], d.Routes[prefix], d.Paths[key] = nil, nil, nil, nil, nil
	if r.IntN(2) == 0 {
		d.Endpoints[iface] = &desired.Endpoint{Interface: iface, Generation: r.Uint64N(5)}
		d.HostEndpoints[iface] = &desired.HostEndpoint{Interface: fmt.Sprint("eth", r.IntN(2))}
		d.Programs[program] = &ir.Program{ID: program}
		d.Routes[prefix] = &desired.Route{Prefix: prefix, Interface: iface}
		d.Paths[key] = &bgp.Path{Prefix: prefix, Kind: bgp.Hosts}
	}
	for i := range 3 {
		id := ir.SetID(fmt.Sprint("set", i))
		_, exists := w.Sets[id]
		switch k := r.IntN(4); {
		case !exists && k > 1:
			d.Sets[id] = &desired.SetChange{Whole: true, Add: members(byte(r.IntN(6)), byte(r.IntN(6)))}
		case exists && k == 0:
			d.Sets[id] = &desired.SetChange{Gone: true}
		case exists && k > 1:
			d.Sets[id] = &desired.SetChange{Add: members(byte(r.IntN(3))), Del: members(3 + byte(r.IntN(3)))}
		}
	}
	if r.IntN(4) == 0 {
		d.Speaker = &bgp.Config{ASN: r.Uint32N(4)}
		d.Pools = &[]netip.Prefix{prefix}
		d.Complete, d.Learned = r.IntN(2) == 0, r.IntN(4) == 0
	}
	return d
}
