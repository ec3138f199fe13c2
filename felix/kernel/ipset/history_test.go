package ipset_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/ipset"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/policy/ir"
)

// universe is what the histories draw members from.
var universe = map[ir.SetID][]string{
	"a": {"10.0.0.1", "10.0.0.2", "fd00::1", "fd00::2"},
	"b": {"10.0.0.1", "10.0.0.2", "fd00::1", "fd00::2"},
	"n": {"0.0.0.0/0", "0.0.0.0/1", "10.0.0.0/8", "10.1.0.0/16", "::/0", "8000::/1", "fd00::/8", "fd00::1"},
	"p": {"10.0.0.1,tcp:80", "10.0.0.1,udp:80", "10.0.0.1,sctp:81", "fd00::1,tcp:80"},
}

// edits are what others do to our sets.
var edits = []string{
	"add kor4-a 10.0.0.1", "del kor4-a 10.0.0.1", "destroy kor6-b", "create kor4-b hash:net", "flush",
	"add kor4-n 10.9.0.0/16", "add kor4-p 10.0.0.1,icmp:8/0", "create kor4-p hash:ip", "create kor6-n hash:net maxelem 9",
}

// TestAnyHistoryEndsAsDesired mixes changes, foreign edits and restarts.
func TestAnyHistoryEndsAsDesired(t *testing.T) {
	n := kerneltest.New(t)
	rapid.Check(t, func(rt *rapid.T) {
		s := open(t, n)
		world := map[ir.SetID]map[string]bool{}
		mustApply(t, s, desired.Delta{Complete: true})
		set := rapid.SampledFrom(slices.Sorted(maps.Keys(universe)))
		reread := func() {
			if err := (ipset.Adder{Sets: s}).Resync(t.Context()); err != nil {
				rt.Fatal(err)
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"whole": func(rt *rapid.T) {
				id := set.Draw(rt, "set")
				addrs := rapid.SliceOfDistinct(rapid.SampledFrom(universe[id]), rapid.ID).Draw(rt, "members")
				world[id] = map[string]bool{}
				for _, a := range addrs {
					world[id][a] = true
				}
				mustApply(t, s, whole(t, id, strings.Join(addrs, " ")))
			},
			"change": func(rt *rapid.T) {
				id := set.Draw(rt, "set")
				member := rapid.SampledFrom(universe[id])
				add, del := member.Draw(rt, "add"), member.Draw(rt, "del")
				if world[id] == nil || add == del {
					rt.Skip()
				}
				world[id][add] = true
				delete(world[id], del)
				mustApply(t, s, change(id, &desired.SetChange{Add: members(t, add), Del: members(t, del)}))
			},
			"gone": func(rt *rapid.T) {
				id := set.Draw(rt, "set")
				if world[id] == nil {
					rt.Skip()
				}
				delete(world, id)
				mustApply(t, s, change(id, &desired.SetChange{Gone: true}))
			},
			"edit": func(rt *rapid.T) {
				cmd := rapid.SampledFrom(edits).Draw(rt, "cmd")
				n.Try("ipset", strings.Fields(cmd)...)
				reread()
				mustApply(t, s, desired.Delta{})
			},
			"restart": func(*rapid.T) {
				s.Close()
				s = open(t, n)
				for id, has := range world {
					var addrs []string
					for a := range has {
						addrs = append(addrs, a)
					}
					mustApply(t, s, whole(t, id, strings.Join(addrs, " ")))
				}
				mustApply(t, s, desired.Delta{Complete: true})
			},
			"": func(rt *rapid.T) {
				if diff := cmp.Diff(printed(world), n.Sets("kor")); diff != "" {
					rt.Fatalf("sets in the kernel (-want +got):\n%s", diff)
				}
			},
		})
	})
}

// printed returns what kerneltest prints of a world.
func printed(world map[ir.SetID]map[string]bool) []string {
	types := map[ir.SetKind]string{ir.Addrs: "hash:ip", ir.Nets: "hash:net", ir.AddrPorts: "hash:ip,port"}
	halves := map[string][]string{"0.0.0.0/0": {"0.0.0.0/1", "128.0.0.0/1"}, "::/0": {"::/1", "8000::/1"}}
	lines := []string{}
	for id, has := range world {
		var four, six []string
		for m := range has {
			for _, m := range append(halves[m], m) {
				switch {
				case halves[m] != nil:
				case strings.Count(m, ":") > 1:
					six = append(six, m)
				default:
					four = append(four, m)
				}
			}
		}
		kind := types[kinds[id[0]]]
		for head, members := range map[string][]string{
			fmt.Sprintf("kor4-%s %s inet", id, kind): four, fmt.Sprintf("kor6-%s %s inet6", id, kind): six,
		} {
			slices.Sort(members)
			lines = append(lines, strings.Join(append([]string{head}, slices.Compact(members)...), " "))
		}
	}
	slices.Sort(lines)
	return lines
}
