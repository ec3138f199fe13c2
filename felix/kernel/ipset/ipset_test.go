package ipset_test

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
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

// TestMain makes histories fewer than rapid's default, because each is a hundred
// system calls; -rapid.checks overrides it.
func TestMain(m *testing.M) {
	flag.Set("rapid.checks", "25")
	flag.Parse()
	m.Run()
}

func open(t testing.TB, n *kerneltest.Namespace) (s *ipset.Sets) {
	t.Helper()
	n.Do(func() {
		var err error
		if s, err = ipset.New(); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { s.Close() })
	if err := (ipset.Adder{Sets: s}).Resync(t.Context()); err != nil {
		t.Fatalf("Resync: %v", err)
	}
	return s
}

// apply does what a loop does with a Delta.
func apply(ctx context.Context, s *ipset.Sets, d desired.Delta) error {
	adder, remover := ipset.Adder{Sets: s}, ipset.Remover{Sets: s}
	adder.Want(d)
	remover.Want(d)
	if err := adder.Apply(ctx); err != nil {
		return err
	}
	return remover.Apply(ctx)
}

func mustApply(t testing.TB, s *ipset.Sets, d desired.Delta) {
	t.Helper()
	if err := apply(t.Context(), s, d); err != nil {
		t.Fatalf("Apply: %v", err)
	}
}

func members(addrs string) map[ir.Member]struct{} {
	all := map[ir.Member]struct{}{}
	for a := range strings.FieldsSeq(addrs) {
		addr := netip.MustParseAddr(a)
		all[ir.Member{Prefix: netip.PrefixFrom(addr, addr.BitLen())}] = struct{}{}
	}
	return all
}

func whole(id ir.SetID, addrs string) desired.Delta {
	return change(id, &desired.SetChange{Whole: true, Add: members(addrs)})
}

func change(id ir.SetID, c *desired.SetChange) desired.Delta {
	return desired.Delta{Sets: map[ir.SetID]*desired.SetChange{id: c}}
}

func compare(t testing.TB, n *kerneltest.Namespace, want ...string) {
	t.Helper()
	slices.Sort(want)
	if diff := cmp.Diff(append([]string{}, want...), n.Sets("kor")); diff != "" {
		t.Errorf("sets in the kernel (-want +got):\n%s", diff)
	}
}

func TestSetsFollowTheirChanges(t *testing.T) {
	n := kerneltest.New(t)
	s := open(t, n)
	mustApply(t, s, whole("a", "10.0.0.1 10.0.0.2 fd00::1"))
	compare(t, n, "kor4-a hash:ip inet 10.0.0.1 10.0.0.2", "kor6-a hash:ip inet6 fd00::1")
	mustApply(t, s, change("a", &desired.SetChange{Add: members("10.0.0.3 fd00::2"), Del: members("10.0.0.1")}))
	compare(t, n, "kor4-a hash:ip inet 10.0.0.2 10.0.0.3", "kor6-a hash:ip inet6 fd00::1 fd00::2")
	mustApply(t, s, whole("a", "10.0.0.9"))
	compare(t, n, "kor4-a hash:ip inet 10.0.0.9", "kor6-a hash:ip inet6")

	mustApply(t, s, change("a", &desired.SetChange{Gone: true}))
	compare(t, n, "kor4-a hash:ip inet 10.0.0.9", "kor6-a hash:ip inet6") // not allowed yet
	mustApply(t, s, desired.Delta{Complete: true})
	compare(t, n)
}

func TestARestartWritesOnlyDifferences(t *testing.T) {
	n := kerneltest.New(t)
	mustApply(t, open(t, n), whole("a", "10.0.0.1 fd00::1"))
	n.Run("ipset", "create", "foreign", "hash:net")
	n.Run("ipset", "create", "kor4-old~", "hash:ip")

	s := open(t, n)
	mustApply(t, s, desired.Delta{})
	mustApply(t, s, whole("a", "10.0.0.1 fd00::1"))
	if s.Writes() != 0 {
		t.Errorf("%d writes to adopt", s.Writes())
	}
	mustApply(t, s, whole("a", "10.0.0.2 fd00::1"))
	compare(t, n, "kor4-a hash:ip inet 10.0.0.2", "kor6-a hash:ip inet6 fd00::1", "kor4-old~ hash:ip inet")
	mustApply(t, s, desired.Delta{Complete: true})
	compare(t, n, "kor4-a hash:ip inet 10.0.0.2", "kor6-a hash:ip inet6 fd00::1")
	if got := n.Sets("foreign"); len(got) != 1 {
		t.Error("a foreign set was destroyed")
	}
}

func TestAReadBackUndoesForeignEdits(t *testing.T) {
	n := kerneltest.New(t)
	s := open(t, n)
	mustApply(t, s, whole("a", "10.0.0.1 10.0.0.2"))
	mustApply(t, s, whole("b", "10.0.0.1"))
	mustApply(t, s, desired.Delta{Complete: true})
	n.Run("ipset", "del", "kor4-a", "10.0.0.1")
	n.Run("ipset", "add", "kor4-a", "10.6.6.6")
	n.Run("ipset", "destroy", "kor4-b")
	n.Run("ipset", "create", "kor4-c", "hash:ip")
	if err := (ipset.Adder{Sets: s}).Resync(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustApply(t, s, desired.Delta{})
	compare(t, n, "kor4-a hash:ip inet 10.0.0.1 10.0.0.2", "kor6-a hash:ip inet6", "kor4-b hash:ip inet 10.0.0.1", "kor6-b hash:ip inet6")
}

// TestASetThatWasMadeOtherwise: also while a rule refers to it, where the kernel
// finds both alike.
func TestASetThatWasMadeOtherwise(t *testing.T) {
	for made, inUse := range map[string]bool{
		"hash:ip maxelem 10": true, "hash:ip maxelem 20": false, "hash:net": false, "hash:ip,port": false,
		"hash:ip family inet6": false,
	} {
		t.Run(made, func(t *testing.T) {
			n := kerneltest.New(t)
			n.Run("ipset", append([]string{"create", "kor4-a"}, strings.Fields(made)...)...)
			if inUse {
				n.Run("iptables", "-A", "INPUT", "-m", "set", "--match-set", "kor4-a", "src", "-j", "DROP")
			}
			s := open(t, n)
			mustApply(t, s, whole("a", "10.0.0.1 10.0.0.2"))
			want := []string{"kor4-a hash:ip inet 10.0.0.1 10.0.0.2", "kor6-a hash:ip inet6"}
			compare(t, n, want...)
			if header := n.Run("ipset", "list", "kor4-a"); !strings.Contains(header, "maxelem 1048576") {
				t.Errorf("header: %s", header)
			}
			mustApply(t, s, change("a", &desired.SetChange{Del: members("10.0.0.1")}))
			mustApply(t, s, change("a", &desired.SetChange{Add: members("10.0.0.1")}))
			compare(t, n, want...)
		})
	}
}

func TestASetInUseIsKeptUntilItIsNot(t *testing.T) {
	n := kerneltest.New(t)
	s := open(t, n)
	mustApply(t, s, whole("a", "10.0.0.1"))
	rule := []string{"INPUT", "-m", "set", "--match-set", "kor4-a", "src", "-j", "DROP"}
	n.Run("iptables", append([]string{"-A"}, rule...)...)
	gone := change("a", &desired.SetChange{Gone: true})
	gone.Complete = true
	err := apply(t.Context(), s, gone)
	if err == nil || !strings.Contains(err.Error(), "kor4-a: the set is in use") {
		t.Errorf("Apply: %v", err)
	}
	compare(t, n, "kor4-a hash:ip inet 10.0.0.1")
	mustApply(t, s, whole("a", "10.0.0.2")) // wanted again
	compare(t, n, "kor4-a hash:ip inet 10.0.0.2", "kor6-a hash:ip inet6")
	n.Run("iptables", append([]string{"-D"}, rule...)...)
	mustApply(t, s, gone)
	compare(t, n)
}

func TestALargeSet(t *testing.T) {
	n := kerneltest.New(t)
	s := open(t, n)
	var addrs strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&addrs, "10.%d.%d.%d ", i>>16, i>>8&255, i&255)
	}
	mustApply(t, s, whole("a", addrs.String()))
	if out := n.Run("ipset", "list", "-t", "kor4-a"); !strings.Contains(out, "Number of entries: 100000") {
		t.Error(out)
	}
	again := open(t, n)
	mustApply(t, again, whole("a", addrs.String()))
	if again.Writes() != 0 {
		t.Errorf("%d writes to adopt", again.Writes())
	}
}

// TestAnyHistoryEndsAsDesired mixes changes, foreign edits and restarts.
func TestAnyHistoryEndsAsDesired(t *testing.T) {
	n := kerneltest.New(t)
	rapid.Check(t, func(rt *rapid.T) {
		s := open(t, n)
		world := map[ir.SetID]map[string]bool{}
		mustApply(t, s, desired.Delta{Complete: true})
		set := rapid.SampledFrom([]ir.SetID{"a", "b"})
		addr := rapid.SampledFrom([]string{"10.0.0.1", "10.0.0.2", "fd00::1", "fd00::2"})
		reread := func() {
			if err := (ipset.Adder{Sets: s}).Resync(t.Context()); err != nil {
				rt.Fatal(err)
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"whole": func(rt *rapid.T) {
				id, addrs := set.Draw(rt, "set"), rapid.SliceOfDistinct(addr, rapid.ID).Draw(rt, "addrs")
				world[id] = map[string]bool{}
				for _, a := range addrs {
					world[id][a] = true
				}
				mustApply(t, s, whole(id, strings.Join(addrs, " ")))
			},
			"change": func(rt *rapid.T) {
				id, add, del := set.Draw(rt, "set"), addr.Draw(rt, "add"), addr.Draw(rt, "del")
				if world[id] == nil || add == del {
					rt.Skip()
				}
				world[id][add] = true
				delete(world[id], del)
				mustApply(t, s, change(id, &desired.SetChange{Add: members(add), Del: members(del)}))
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
				cmd := rapid.SampledFrom([]string{"add kor4-a 10.0.0.1", "del kor4-a 10.0.0.1", "destroy kor6-b", "create kor4-b hash:net"}).Draw(rt, "cmd")
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
					mustApply(t, s, whole(id, strings.Join(addrs, " ")))
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
	lines := []string{}
	for id, has := range world {
		four, six := []string{fmt.Sprintf("kor4-%s hash:ip inet", id)}, []string{fmt.Sprintf("kor6-%s hash:ip inet6", id)}
		for a := range has {
			if strings.Contains(a, ":") {
				six = append(six, a)
			} else {
				four = append(four, a)
			}
		}
		slices.Sort(four[1:])
		slices.Sort(six[1:])
		lines = append(lines, strings.Join(four, " "), strings.Join(six, " "))
	}
	slices.Sort(lines)
	return lines
}
