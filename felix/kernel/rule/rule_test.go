package rule_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/felix/kernel/rule"
	"github.com/koratnet/korat/policy"
)

func open(t *testing.T, n *kerneltest.Namespace) (r *rule.Reconciler) {
	t.Helper()
	n.Do(func() {
		var err error
		if r, err = rule.New(); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { r.Close() })
	if err := r.Resync(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r
}

func apply(t *testing.T, r *rule.Reconciler, d desired.Delta) {
	t.Helper()
	r.Want(d)
	if err := r.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// rules are all of the namespace but the kernel's own.
func rules(n *kerneltest.Namespace) (all []string) {
	for _, family := range []string{"-4", "-6"} {
		for line := range strings.Lines(n.Run("ip", family, "rule")) {
			if f := strings.Fields(line); !slices.Contains([]string{"0:", "32766:", "32767:"}, f[0]) {
				all = append(all, strings.Join(f, " "))
			}
		}
	}
	return all
}

func expect(t *testing.T, n *kerneltest.Namespace, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, rules(n)); diff != "" {
		t.Errorf("rules (-want +got):\n%s", diff)
	}
}

func TestRulesAreAsDesired(t *testing.T) {
	n := kerneltest.New(t)
	n.Run("ip", "rule", "add", "from", "192.0.2.0/24", "lookup", "77", "priority", "77")
	const foreign = "77: from 192.0.2.0/24 lookup 77"
	from := func(text string) desired.Rule {
		return desired.Rule{Priority: desired.ToNodesRule, From: netip.MustParsePrefix(text), Table: desired.ToNodesTable}
	}
	const wide, narrow, six = "11210: from 10.0.0.0/8 lookup 11210 proto 113", "11210: from 172.16.0.0/30 lookup 11210 proto 113", "11210: from fd00::/64 lookup 11210 proto 113"
	r := open(t, n)
	wanted := desired.Delta{Rules: map[desired.Rule]*struct{}{from("10.0.0.0/8"): {}, from("fd00::/64"): {}}}
	apply(t, r, wanted)
	expect(t, n, foreign, wide, six)

	r = open(t, n)
	apply(t, r, wanted)
	expect(t, n, foreign, wide, six)

	n.Run("ip", "rule", "del", "from", "10.0.0.0/8", "lookup", "11210")
	if err := r.Resync(t.Context()); err != nil {
		t.Fatal(err)
	}
	apply(t, r, desired.Delta{})
	expect(t, n, foreign, wide, six)

	apply(t, r, desired.Delta{Rules: map[desired.Rule]*struct{}{from("172.16.0.0/30"): {}, from("10.0.0.0/8"): nil}})
	expect(t, n, foreign, wide, narrow, six) // nothing goes before all is known
	apply(t, r, desired.Delta{Complete: true})
	expect(t, n, foreign, narrow, six)
	var left []string
	n.Do(func() {
		var err error
		if left, err = rule.Present(); err != nil {
			t.Error(err)
		}
	})
	if diff := cmp.Diff([]string{"from 172.16.0.0/30 lookup 11210", "from fd00::/64 lookup 11210"}, left); diff != "" {
		t.Errorf("Present (-want +got):\n%s", diff)
	}
	apply(t, r, desired.Delta{Rules: map[desired.Rule]*struct{}{from("172.16.0.0/30"): nil, from("fd00::/64"): nil}})
	expect(t, n, foreign)
}

// TestWhatTheNodeItselfSendsIsLedByRulesOfItsOwn, which are as `ip rule` says them, are
// known again, and go.
func TestWhatTheNodeItselfSendsIsLedByRulesOfItsOwn(t *testing.T) {
	n := kerneltest.New(t)
	any4 := netip.MustParsePrefix("0.0.0.0/0")
	all := []desired.Rule{
		{Priority: 5, From: any4, Local: true, Mark: 0x6b000000, Goto: 9},
		{Priority: 5, From: any4, Local: true, Protocol: policy.TCP, DestinationPort: 179, Goto: 9},
		{Priority: 5, From: any4, Local: true, Protocol: policy.UDP, SourcePort: 51820, Goto: 9},
		{Priority: 6, From: netip.MustParsePrefix("192.0.2.1/32"), Local: true, Table: 11211},
		{Priority: 7, From: netip.MustParsePrefix("0.0.0.0/32"), Local: true, Table: 11211},
		{Priority: 9, From: any4, Local: true},
		{Priority: 7, From: netip.MustParsePrefix("::/0"), Local: true, Table: 11211},
	}
	want := []string{
		"5: from all fwmark 0x6b000000 iif lo goto 9 proto 113", "5: from all iif lo ipproto tcp dport 179 goto 9 proto 113",
		"5: from all iif lo ipproto udp sport 51820 goto 9 proto 113", "6: from 192.0.2.1 iif lo lookup 11211 proto 113",
		"7: from 0.0.0.0 iif lo lookup 11211 proto 113", "7: from all iif lo lookup 11211 proto 113", "9: from all iif lo nop proto 113",
	}
	wanted, gone := map[desired.Rule]*struct{}{}, map[desired.Rule]*struct{}{}
	for _, r := range all {
		wanted[r], gone[r] = &struct{}{}, nil
	}
	r := open(t, n)
	apply(t, r, desired.Delta{Rules: wanted, Complete: true})
	got := rules(n)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rules (-want +got):\n%s", diff)
	}
	m := n.Monitor()
	m.Drain()
	r = open(t, n)
	apply(t, r, desired.Delta{Rules: wanted, Complete: true})
	if changes := m.Changes(); len(changes) > 0 {
		t.Errorf("adopting changed the kernel: %v", changes)
	}
	apply(t, r, desired.Delta{Rules: gone})
	expect(t, n)
}
