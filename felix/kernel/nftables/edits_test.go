package nftables_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/nftables/expr"

	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/felix/kernel/nftables"
)

// edits are what others may do to our table: scripts for nft.
var edits = []struct{ what, script string }{
	{"the table is deleted", "delete table inet korat"},
	{"everything is deleted", "flush ruleset"},
	{"the table is emptied", "flush table inet korat"},
	{"the table is switched off", "add table inet korat { flags dormant; }"},
	{"a rule is added", "add rule inet korat pod accept"},
	{"a rule is inserted", "insert rule inet korat forward accept"},
	{"a rule is added that looks like ours", `add rule inet korat pod ip saddr @nets accept comment "from nets"`},
	{"a rule is replaced", "flush chain inet korat pod; add rule inet korat pod ip saddr @nets accept; add rule inet korat pod accept"},
	{"a chain is emptied", "flush chain inet korat pod"},
	{"a chain is added", "add chain inet korat evil { type filter hook forward priority -5; }; add rule inet korat evil accept"},
	{"a chain is added to which ours jumps", "add chain inet korat more; add rule inet korat pod jump more"},
	{"a policy is changed", "add chain inet korat forward { type filter hook forward priority 0; policy drop; }"},
	{"a base chain is deleted", "flush chain inet korat forward; delete chain inet korat forward"},
	{
		"a base chain is hooked elsewhere",
		"flush chain inet korat forward; delete chain inet korat forward; add chain inet korat forward { type filter hook input priority 7; }",
	},
	{"a base chain is not hooked any more", "flush chain inet korat forward; delete chain inet korat forward; add chain inet korat forward"},
	{"a member is deleted", "delete element inet korat hosts { fd00::1 }"},
	{"a member is added", "add element inet korat hosts { fd00::bad }"},
	{"a set is emptied", "flush set inet korat services"},
	{"a prefix is deleted", "delete element inet korat nets { 10.0.0.0/8 }"},
	{"a prefix is added", "add element inet korat nets { 12.0.0.0/8 }"},
	{"an interval is added that is no prefix", "add element inet korat nets { 12.0.0.1-12.0.0.9 }"},
	{"a wider prefix takes the place of ours", "flush set inet korat nets; add element inet korat nets { 0.0.0.0/0 }"},
	{"a set is added", "add set inet korat evil { type ipv4_addr; }; add rule inet korat pod ip saddr @evil accept"},
	{"a verdict is deleted", `delete element inet korat to { "kor1" }`},
	{"a verdict is added", `add element inet korat to { "kor3" : accept }`},
	{"a verdict is changed", `delete element inet korat to { "kor1" }; add element inet korat to { "kor1" : accept }`},
	{
		"a set is made of another type",
		"flush chain inet korat pod; delete set inet korat nets; add set inet korat nets { type ipv4_addr; flags interval, timeout; }",
	},
	{
		"members are made to vanish",
		"flush chain inet korat pod; delete set inet korat hosts; add set inet korat hosts { type ipv6_addr; timeout 1h; }; add element inet korat hosts { fd00::1 }",
	},
	{"members do more than to be there", "delete element inet korat hosts { fd00::1 }; add element inet korat hosts { fd00::1 comment \"mine\" }"},
}

func edit(t testing.TB, n *kerneltest.Namespace, script string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(script, "; add", "\nadd")), 0o600); err != nil {
		t.Fatal(err)
	}
	n.Run("nft", "-f", file)
}

func TestEditsOfOthersAreFoundByReadingBack(t *testing.T) {
	n := kerneltest.New(t)
	other := kerneltest.New(t)
	for _, e := range edits {
		t.Run(e.what, func(t *testing.T) {
			n.Run("nft", "flush", "ruleset")
			table := open(t, n)
			wantSmall(table)
			mustApply(t, table)
			edit(t, n, e.script)
			table = open(t, n) // by a process that has heard nothing
			wantSmall(table)
			mustApply(t, table)
			sameAsNew(t, n, other, wantSmall)
			mustResync(t, table)
			writesNothing(t, table, func() { mustApply(t, table) })
		})
	}
}

func TestEditsOfOthersAreHeard(t *testing.T) {
	n := kerneltest.New(t)
	other := kerneltest.New(t)
	for _, e := range edits {
		t.Run(e.what, func(t *testing.T) {
			n.Run("nft", "flush", "ruleset")
			table := open(t, n)
			wantSmall(table)
			mustApply(t, table)
			told := watch(t, table)
			edit(t, n, e.script)
			<-told
			mustApply(t, table)
			sameAsNew(t, n, other, wantSmall)
		})
	}
}

// watch returns where a word comes whenever others have changed the table.
func watch(t testing.TB, table *nftables.Table) <-chan struct{} {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	told, done := make(chan struct{}, 1), make(chan error, 1)
	go func() {
		done <- table.Watch(ctx, func() {
			select {
			case told <- struct{}{}:
			default:
			}
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Watch: %v", err)
		}
	})
	return told
}

func TestNeitherOwnChangesNorThoseOfOtherTablesAreTold(t *testing.T) {
	n := kerneltest.New(t)
	table := open(t, n)
	told := watch(t, table)
	wantSmall(table)
	mustApply(t, table)
	edit(t, n, "add table inet other; add chain inet other c; add rule inet other c drop; add table ip korat; add chain ip korat pod")
	table.WantMembers("hosts", addrs("fd00::3")...)
	before := table.Stats()
	mustApply(t, table)
	if got := table.Stats().Messages - before.Messages; got != 1 {
		t.Errorf("%d messages for a member, after others wrote", got)
	}
	edit(t, n, "add element inet korat hosts { fd00::4 }")
	<-told
	mustApply(t, table)
	select {
	case <-told:
		t.Error("told of more than one edit")
	default:
	}
}

// TestAWriteIsBasedOnWhatIsThere: what others did an instant before is seen, also
// when nobody watches.
func TestAWriteIsBasedOnWhatIsThere(t *testing.T) {
	n := kerneltest.New(t)
	table := open(t, n)
	wantSmall(table)
	mustApply(t, table)
	edit(t, n, "delete element inet korat hosts { fd00::1 }; add element inet korat nets { 13.0.0.0/8 }")
	table.UnwantMembers("hosts", addrs("fd00::1")...)
	table.WantMembers("nets", nets("13.1.0.0/16")...)
	mustApply(t, table)
	sameAsNew(t, n, kerneltest.New(t), func(table *nftables.Table) {
		wantSmall(table)
		table.UnwantMembers("hosts", addrs("fd00::1")...)
		table.WantMembers("nets", nets("13.1.0.0/16")...)
	})
}

func TestMoreEditsThanCanBeHeardAreUndone(t *testing.T) {
	n := kerneltest.New(t)
	table := open(t, n)
	wantSmall(table)
	mustApply(t, table)
	var script strings.Builder
	for range 30_000 { // more than the socket holds
		script.WriteString("add rule inet korat pod accept\n")
	}
	script.WriteString("delete element inet korat hosts { fd00::1 }\n")
	edit(t, n, script.String())
	mustApply(t, table)
	sameAsNew(t, n, kerneltest.New(t), wantSmall)
}

// TestATypeThatChangesWaitsUntilAllIsTold: the table is made anew for it, with
// what is wanted then.
func TestATypeThatChangesWaitsUntilAllIsTold(t *testing.T) {
	n := kerneltest.New(t)
	table := open(t, n)
	wantSmall(table)
	mustApply(t, table)
	table = start(t, n)
	mustResync(t, table)
	want := func(table *nftables.Table) {
		wantSmall(table)
		table.WantSet(nftables.Set{Name: "services", Key: v4, Interval: true})
		table.SetMembers("services", nets("10.1.0.0/16")...)
		table.WantChain(nftables.Chain{Name: "pod", Rules: []nftables.Rule{from("services", expr.VerdictAccept, "")}})
	}
	want(table)
	writesNothing(t, table, func() {
		if err := table.Apply(t.Context()); err == nil || !strings.Contains(err.Error(), "set services") {
			t.Errorf("Apply: %v", err)
		}
	})
	table.AllowRemoval()
	mustApply(t, table)
	sameAsNew(t, n, kerneltest.New(t), want)
}
