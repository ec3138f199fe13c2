package nftables_test

import (
	"strings"
	"testing"

	"github.com/google/nftables/expr"

	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/felix/kernel/nftables"
)

func TestEveryKindOfObjectIsWrittenInOneTransaction(t *testing.T) {
	n := kerneltest.New(t)
	table := open(t, n)
	wantSmall(table)
	mustApply(t, table)
	if got := table.Stats().Transactions; got != 1 {
		t.Errorf("%d transactions", got)
	}
	list := n.Run("nft", "list", "ruleset")
	for _, line := range []string{
		"elements = { 0.0.0.0, 10.0.0.0/8,", "10.1.2.3 . tcp . 80", `"kor1" : goto pod`, "fd00::1",
		`ip saddr @nets accept comment "from nets"`, "type filter hook forward priority filter; policy accept;", "oifname vmap @to",
	} {
		if !strings.Contains(list, line) {
			t.Errorf("no %q in\n%s", line, list)
		}
	}
	writesNothing(t, table, func() {
		wantSmall(table)
		mustApply(t, table)
		mustResync(t, table)
		mustApply(t, table)
	})
}

func TestARestartWritesOnlyDifferences(t *testing.T) {
	n := kerneltest.New(t)
	n.Run("nft", "add", "table", "inet", "other")
	table := open(t, n)
	wantSmall(table)
	table.WantChain(nftables.Chain{Name: "old", Rules: []nftables.Rule{always(expr.VerdictDrop, "")}})
	table.WantVerdict("to", nftables.Interface("kor3"), nftables.Goto("old"))
	mustApply(t, table)

	table = start(t, n)
	mustResync(t, table)
	writesNothing(t, table, func() {
		wantSmall(table)
		mustApply(t, table) // what is not wanted stays until all has been told
	})
	if list := n.Run("nft", "list", "ruleset"); !strings.Contains(list, `"kor3" : goto old`) {
		t.Errorf("an element that may still be wanted is gone:\n%s", list)
	}
	table.AllowRemoval()
	mustApply(t, table)
	if got := table.Stats(); got.Transactions != 1 || got.Messages != 3 {
		t.Errorf("to remove an element and a chain: %+v", got)
	}
	sameAsNew(t, n, kerneltest.New(t), wantSmall)
	n.Run("nft", "list", "table", "inet", "other")
}

func TestAChangeCostsAsManyMessagesAsItHas(t *testing.T) {
	n := kerneltest.New(t)
	table := open(t, n)
	wantSmall(table)
	mustApply(t, table)
	pod := nftables.Chain{Name: "pod", Rules: []nftables.Rule{from("nets", expr.VerdictDrop, "")}}
	hook := forward
	hook.Drop = true
	entry := nftables.Chain{Name: "forward", Base: &hook, Rules: []nftables.Rule{dispatch("to"), always(expr.VerdictJump, "pod")}}
	for _, c := range []struct {
		what     string
		change   func()
		messages int
	}{
		{"a member more", func() { table.WantMembers("hosts", addrs("fd00::9")...) }, 1},
		{"a member less", func() { table.UnwantMembers("hosts", addrs("fd00::1")...) }, 1},
		{"a member that comes and goes", func() {
			table.WantMembers("hosts", addrs("fd00::5")...)
			table.UnwantMembers("hosts", addrs("fd00::5")...)
		}, 0},
		{"a prefix inside another", func() { table.WantMembers("nets", nets("10.7.0.0/16")...) }, 0},
		{"a prefix", func() { table.WantMembers("nets", nets("12.0.0.0/8")...) }, 1},
		{"a verdict", func() { table.WantVerdict("to", nftables.Interface("kor9"), nftables.Goto("pod")) }, 1},
		{"another verdict", func() { table.WantVerdict("to", nftables.Interface("kor2"), nftables.Accept) }, 2},
		{"other rules of a chain", func() { table.WantChain(pod) }, 2},
		{"the same chain", func() { table.WantChain(pod) }, 0},
		{"the policy of a base chain", func() { table.WantChain(entry) }, 1},
	} {
		before := table.Stats()
		c.change()
		mustApply(t, table)
		if got := table.Stats().Messages - before.Messages; got != c.messages {
			t.Errorf("%s: %d messages, not %d", c.what, got, c.messages)
		}
		mustResync(t, table)
		writesNothing(t, table, func() { mustApply(t, table) })
	}
}

func TestPrefixesMayOverlapAndHoldEverything(t *testing.T) {
	n := kerneltest.New(t)
	table := open(t, n)
	table.WantSet(nftables.Set{Name: "four", Key: v4, Interval: true})
	table.WantSet(nftables.Set{Name: "six", Key: v6, Interval: true})
	has := func(set, addr string) bool {
		_, err := n.Try("nft", "get", "element", "inet", "korat", set, "{", addr, "}")
		return err == nil
	}
	check := func(set string, in, out string) {
		t.Helper()
		mustApply(t, table)
		for a := range strings.FieldsSeq(in) {
			if !has(set, a) {
				t.Errorf("%s is not in %s", a, set)
			}
		}
		for a := range strings.FieldsSeq(out) {
			if has(set, a) {
				t.Errorf("%s is in %s", a, set)
			}
		}
		mustResync(t, table)
		writesNothing(t, table, func() { mustApply(t, table) })
	}
	table.WantMembers("four", nets("10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "10.255.255.255/32", "11.0.0.0/32")...)
	check("four", "10.0.0.0 10.1.2.3 10.255.255.255 11.0.0.0", "9.255.255.255 11.0.0.1")
	table.UnwantMembers("four", nets("10.0.0.0/8")...)
	check("four", "10.1.0.0 10.1.2.3 10.1.255.255 10.255.255.255 11.0.0.0", "10.0.0.0 10.2.0.0 11.0.0.1")
	table.WantMembers("four", nets("0.0.0.0/0")...)
	check("four", "0.0.0.0 10.0.0.0 255.255.255.255", "")
	table.UnwantMembers("four", nets("10.1.0.0/16")...)
	check("four", "10.1.0.0 10.1.2.3", "")
	table.UnwantMembers("four", nets("0.0.0.0/0")...)
	check("four", "10.1.2.3 10.255.255.255 11.0.0.0", "0.0.0.0 10.1.0.0 255.255.255.255")
	table.SetMembers("four", nets("128.0.0.0/1", "0.0.0.0/1")...)
	check("four", "0.0.0.0 127.255.255.255 128.0.0.0 255.255.255.255", "")

	table.WantMembers("six", nets("::/0", "fd00::/8", "ffff::/16")...)
	check("six", ":: fd00::1 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "")
	table.UnwantMembers("six", nets("::/0")...)
	check("six", "fd00::1 fdff::1 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", ":: fe00:: fffe::")
}

func TestNoOtherTableIsTouched(t *testing.T) {
	n := kerneltest.New(t)
	n.Run("nft", "add table ip korat; add chain ip korat pod; add table inet other; add chain inet other pod; add rule inet other pod drop")
	others := func() string {
		return n.Run("nft", "list", "table", "ip", "korat") + n.Run("nft", "list", "table", "inet", "other")
	}
	before := others()
	table := open(t, n)
	wantSmall(table)
	mustApply(t, table)
	if err := table.Uninstall(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := table.Uninstall(t.Context()); err != nil {
		t.Errorf("once more: %v", err)
	}
	if len(listed(t, n)) != 0 || others() != before {
		t.Errorf("left:\n%s", n.Run("nft", "list", "ruleset"))
	}
	mustApply(t, table)
	sameAsNew(t, n, kerneltest.New(t), wantSmall)
}
