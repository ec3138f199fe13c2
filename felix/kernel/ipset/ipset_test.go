package ipset_test

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/ipset"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/policy"
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

// kinds are the sets of the tests, by the first letter of their names.
var kinds = map[byte]ir.SetKind{'a': ir.Addrs, 'b': ir.Addrs, 'n': ir.Nets, 'p': ir.AddrPorts}

var protocols = map[string]policy.Protocol{"tcp": policy.TCP, "udp": policy.UDP, "sctp": policy.SCTP}

// members reads members as ipset prints them.
func members(t testing.TB, text string) map[ir.Member]struct{} {
	t.Helper()
	all := map[ir.Member]struct{}{}
	for word := range strings.FieldsSeq(text) {
		var m ir.Member
		addr, port, _ := strings.Cut(word, ",")
		if !strings.Contains(addr, "/") {
			addr += fmt.Sprint("/", netip.MustParseAddr(addr).BitLen())
		}
		m.Prefix = netip.MustParsePrefix(addr)
		if name, number, ok := strings.Cut(port, ":"); ok {
			n, err := strconv.ParseUint(number, 10, 16)
			if err != nil {
				t.Fatal(err)
			}
			m.Protocol, m.Port = protocols[name], uint16(n)
		}
		all[m] = struct{}{}
	}
	return all
}

func whole(t testing.TB, id ir.SetID, text string) desired.Delta {
	t.Helper()
	return change(id, &desired.SetChange{Whole: true, Add: members(t, text)})
}

func change(id ir.SetID, c *desired.SetChange) desired.Delta {
	c.Kind = kinds[id[0]]
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
	mustApply(t, s, whole(t, "a", "10.0.0.1 10.0.0.2 fd00::1"))
	compare(t, n, "kor4-a hash:ip inet 10.0.0.1 10.0.0.2", "kor6-a hash:ip inet6 fd00::1")
	mustApply(t, s, change("a", &desired.SetChange{Add: members(t, "10.0.0.3 fd00::2"), Del: members(t, "10.0.0.1")}))
	compare(t, n, "kor4-a hash:ip inet 10.0.0.2 10.0.0.3", "kor6-a hash:ip inet6 fd00::1 fd00::2")
	mustApply(t, s, whole(t, "a", "10.0.0.9"))
	compare(t, n, "kor4-a hash:ip inet 10.0.0.9", "kor6-a hash:ip inet6")

	mustApply(t, s, change("a", &desired.SetChange{Gone: true}))
	compare(t, n, "kor4-a hash:ip inet 10.0.0.9", "kor6-a hash:ip inet6") // not allowed yet
	mustApply(t, s, desired.Delta{Complete: true})
	compare(t, n)
}

func TestARestartWritesOnlyDifferences(t *testing.T) {
	n := kerneltest.New(t)
	mustApply(t, open(t, n), whole(t, "a", "10.0.0.1 fd00::1"))
	n.Run("ipset", "create", "foreign", "hash:net")
	n.Run("ipset", "create", "kor4-old~", "hash:ip")

	s := open(t, n)
	mustApply(t, s, desired.Delta{})
	mustApply(t, s, whole(t, "a", "10.0.0.1 fd00::1"))
	if s.Writes() != 0 {
		t.Errorf("%d writes to adopt", s.Writes())
	}
	mustApply(t, s, whole(t, "a", "10.0.0.2 fd00::1"))
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
	mustApply(t, s, whole(t, "a", "10.0.0.1 10.0.0.2"))
	mustApply(t, s, whole(t, "b", "10.0.0.1"))
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

func TestASetOfNetsHoldsPrefixesThatOverlap(t *testing.T) {
	n := kerneltest.New(t)
	s := open(t, n)
	const four, six = "kor4-n hash:net inet", "kor6-n hash:net inet6"
	mustApply(t, s, whole(t, "n", "10.0.0.0/8 10.1.0.0/16 10.1.0.1 fd00::/8 fd00::/16 fd00::1"))
	compare(t, n, four+" 10.0.0.0/8 10.1.0.0/16 10.1.0.1", six+" fd00::/16 fd00::/8 fd00::1")
	mustApply(t, s, change("n", &desired.SetChange{Del: members(t, "10.0.0.0/8 10.1.0.1 fd00::/8 fd00::1")}))
	compare(t, n, four+" 10.1.0.0/16", six+" fd00::/16")
}

// TestASetOfNetsHoldsEverything: the kernel knows it in halves, which are also
// members of their own.
func TestASetOfNetsHoldsEverything(t *testing.T) {
	n := kerneltest.New(t)
	s := open(t, n)
	const four, six = "kor4-n hash:net inet", "kor6-n hash:net inet6"
	mustApply(t, s, whole(t, "n", "0.0.0.0/0 ::/0"))
	compare(t, n, four+" 0.0.0.0/1 128.0.0.0/1", six+" 8000::/1 ::/1")
	for _, addr := range []string{"0.0.0.0", "127.0.0.1", "255.255.255.255"} {
		n.Run("ipset", "test", "kor4-n", addr)
	}
	for _, addr := range []string{"::", "64:ff9b::1", "fe80::1", "ffff::"} {
		n.Run("ipset", "test", "kor6-n", addr)
	}
	again := open(t, n)
	mustApply(t, again, whole(t, "n", "0.0.0.0/0 ::/0"))
	if again.Writes() != 0 {
		t.Errorf("%d writes to adopt", again.Writes())
	}
	mustApply(t, s, change("n", &desired.SetChange{Add: members(t, "128.0.0.0/1 8000::/1"), Del: members(t, "0.0.0.0/0")}))
	compare(t, n, four+" 128.0.0.0/1", six+" 8000::/1 ::/1")
	mustApply(t, s, change("n", &desired.SetChange{Del: members(t, "::/0")}))
	compare(t, n, four+" 128.0.0.0/1", six+" 8000::/1")
	mustApply(t, s, whole(t, "n", ""))
	compare(t, n, four, six)
}

func TestASetOfAddressesAndPorts(t *testing.T) {
	n := kerneltest.New(t)
	s := open(t, n)
	const four, six = "kor4-p hash:ip,port inet", "kor6-p hash:ip,port inet6"
	mustApply(t, s, whole(t, "p", "10.0.0.1,tcp:80 10.0.0.1,udp:80 10.0.0.1,sctp:81 10.0.0.2,tcp:65535 fd00::1,sctp:80"))
	compare(t, n, four+" 10.0.0.1,sctp:81 10.0.0.1,tcp:80 10.0.0.1,udp:80 10.0.0.2,tcp:65535", six+" fd00::1,sctp:80")
	mustApply(t, s, change("p", &desired.SetChange{Add: members(t, "10.0.0.1,tcp:8080"), Del: members(t, "10.0.0.1,tcp:80")}))
	compare(t, n, four+" 10.0.0.1,sctp:81 10.0.0.1,tcp:8080 10.0.0.1,udp:80 10.0.0.2,tcp:65535", six+" fd00::1,sctp:80")
}

// TestAForeignExceptionInASetIsUndone: a set that others made of the right type
// and with members that are none.
func TestAForeignExceptionInASetIsUndone(t *testing.T) {
	n := kerneltest.New(t)
	n.Run("ipset", "create", "kor4-n", "hash:net", "maxelem", "1048576")
	n.Run("ipset", "add", "kor4-n", "10.1.0.0/16", "nomatch")
	n.Run("iptables", "-A", "INPUT", "-m", "set", "--match-set", "kor4-n", "src", "-j", "DROP")
	s := open(t, n)
	mustApply(t, s, whole(t, "n", "10.0.0.0/8 10.1.0.0/16"))
	compare(t, n, "kor4-n hash:net inet 10.0.0.0/8 10.1.0.0/16", "kor6-n hash:net inet6")
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
			mustApply(t, s, whole(t, "a", "10.0.0.1 10.0.0.2"))
			want := []string{"kor4-a hash:ip inet 10.0.0.1 10.0.0.2", "kor6-a hash:ip inet6"}
			compare(t, n, want...)
			if header := n.Run("ipset", "list", "kor4-a"); !strings.Contains(header, "maxelem 1048576") {
				t.Errorf("header: %s", header)
			}
			mustApply(t, s, change("a", &desired.SetChange{Del: members(t, "10.0.0.1")}))
			mustApply(t, s, change("a", &desired.SetChange{Add: members(t, "10.0.0.1")}))
			compare(t, n, want...)
		})
	}
}

func TestASetInUseIsKeptUntilItIsNot(t *testing.T) {
	n := kerneltest.New(t)
	s := open(t, n)
	mustApply(t, s, whole(t, "a", "10.0.0.1"))
	rule := []string{"INPUT", "-m", "set", "--match-set", "kor4-a", "src", "-j", "DROP"}
	n.Run("iptables", append([]string{"-A"}, rule...)...)
	gone := change("a", &desired.SetChange{Gone: true})
	gone.Complete = true
	err := apply(t.Context(), s, gone)
	if err == nil || !strings.Contains(err.Error(), "kor4-a: the set is in use") {
		t.Errorf("Apply: %v", err)
	}
	compare(t, n, "kor4-a hash:ip inet 10.0.0.1")
	mustApply(t, s, whole(t, "a", "10.0.0.2")) // wanted again
	compare(t, n, "kor4-a hash:ip inet 10.0.0.2", "kor6-a hash:ip inet6")
	n.Run("iptables", append([]string{"-D"}, rule...)...)
	// With nft a rule that is gone lets go of its set a little later.
	kerneltest.Eventually(t, "removal of the set", func() bool { return apply(t.Context(), s, gone) == nil })
	compare(t, n)
}

func TestALargeSet(t *testing.T) {
	for id, member := range map[ir.SetID]string{"a": "10.%d.%d.%d ", "n": "%d.%d.%d.0/24 ", "p": "10.%d.%d.%d,tcp:80 "} {
		t.Run(string(id), func(t *testing.T) {
			n := kerneltest.New(t)
			s := open(t, n)
			var text strings.Builder
			for i := range 100_000 {
				fmt.Fprintf(&text, member, i>>16, i>>8&255, i&255)
			}
			d := whole(t, id, text.String())
			mustApply(t, s, d)
			if out := n.Run("ipset", "list", "-t", "kor4-"+string(id)); !strings.Contains(out, "Number of entries: 100000") {
				t.Error(out)
			}
			again := open(t, n)
			mustApply(t, again, d)
			if again.Writes() != 0 {
				t.Errorf("%d writes to adopt", again.Writes())
			}
		})
	}
}

func TestUninstallLeavesTheSetsOfOthers(t *testing.T) {
	n := kerneltest.New(t)
	present := func(want bool) {
		t.Helper()
		n.Do(func() {
			if got, err := ipset.Present(); err != nil || got != want {
				t.Errorf("Present is %t, %v, want %t", got, err, want)
			}
		})
	}
	n.Run("ipset", "create", "theirs", "hash:ip")
	present(false)
	n.Run("ipset", "create", "kor4-old", "hash:ip")
	s := open(t, n)
	mustApply(t, s, whole(t, "a", "10.0.0.1"))
	present(true)
	for range 2 {
		if err := s.Uninstall(t.Context()); err != nil {
			t.Fatal(err)
		}
		present(false)
	}
	if got := n.Run("ipset", "list", "-n"); got != "theirs\n" && got != "theirs" {
		t.Errorf("left are %q", got)
	}
}
