package nftables

import (
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// outermost returns the members that lie in no other.
func outermost(members map[netip.Prefix]bool) []netip.Prefix {
	var all []netip.Prefix
	for p := range members {
		inside := false
		for q := range members {
			inside = inside || q.Bits() < p.Bits() && q.Contains(p.Addr())
		}
		if !inside {
			all = append(all, p)
		}
	}
	return all
}

func TestACoverShowsTheOutermostPrefixesAfterAnyHistory(t *testing.T) {
	for family, bits := range map[string]int{"10.0.0.0": 32, "fd00::": 128} {
		t.Run(family, func(t *testing.T) {
			base := netip.MustParseAddr(family)
			rapid.Check(t, func(rt *rapid.T) {
				c := &cover{}
				members, shown := map[netip.Prefix]bool{}, map[Key]bool{}
				tell := func(k Key, visible bool) {
					if shown[k] == visible {
						rt.Fatalf("told twice: %v %v", k, visible)
					}
					if delete(shown, k); visible {
						shown[k] = true
					}
				}
				prefix := rapid.Custom(func(rt *rapid.T) netip.Prefix {
					b := base.AsSlice()
					b[1] = rapid.SampledFrom([]byte{0, 1, 0x80, 0xff}).Draw(rt, "second")
					b[len(b)-1] = rapid.Byte().Draw(rt, "last")
					a, _ := netip.AddrFromSlice(b)
					p, err := a.Prefix(rapid.SampledFrom([]int{0, 1, 7, 8, 9, 15, 16, bits - 8, bits - 7, bits - 1, bits}).Draw(rt, "bits"))
					if err != nil {
						rt.Fatal(err)
					}
					return p
				})
				rt.Repeat(map[string]func(*rapid.T){
					"add": func(rt *rapid.T) {
						p := prefix.Draw(rt, "p")
						c.add(Net(p), tell)
						members[p] = true
					},
					"remove": func(rt *rapid.T) {
						p := prefix.Draw(rt, "p")
						if len(members) > 0 && rapid.Bool().Draw(rt, "known") {
							all := slices.SortedFunc(maps.Keys(members), netip.Prefix.Compare)
							p = rapid.SampledFrom(all).Draw(rt, "member")
						}
						c.remove(Net(p), tell)
						delete(members, p)
					},
					"": func(rt *rapid.T) {
						want := map[Key]bool{}
						for _, p := range outermost(members) {
							want[Net(p)] = true
						}
						if diff := cmp.Diff(want, shown); diff != "" {
							rt.Fatalf("shown (-want +got):\n%s", diff)
						}
						if len(members) == 0 && c.root != nil {
							rt.Fatal("an empty cover keeps branches")
						}
					},
				})
			})
		})
	}
}

// TestACoverCostsWhatChanges: a prefix that holds nothing visible touches nothing
// else, however many members there are.
func TestACoverCostsWhatChanges(t *testing.T) {
	c := &cover{}
	told := 0
	count := func(Key, bool) { told++ }
	c.add(Net(netip.MustParsePrefix("10.0.0.0/8")), count)
	for i := range 10_000 {
		c.add(Net(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 32)), count)
	}
	if told != 1 {
		t.Errorf("told %d times of members that are covered", told)
	}
	c.add(Net(netip.MustParsePrefix("11.0.0.0/8")), count)
	c.remove(Net(netip.MustParsePrefix("11.0.0.0/8")), count)
	c.remove(Net(netip.MustParsePrefix("10.0.0.7/32")), count)
	if told != 3 {
		t.Errorf("told %d times", told)
	}
	c.remove(Net(netip.MustParsePrefix("10.0.0.0/8")), count)
	if told != 3+1+9_999 {
		t.Errorf("told %d times when the cover goes", told)
	}
}
