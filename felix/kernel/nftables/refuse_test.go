package nftables_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/felix/kernel/nftables"
)

func masquerade() nftables.Rule { return nftables.Rule{Exprs: []expr.Any{&expr.Masq{}}} }

func chain(name string, rules ...nftables.Rule) nftables.Chain {
	return nftables.Chain{Name: name, Rules: rules}
}

// refusedNames are the refused objects, in words.
func refusedNames(table *nftables.Table) string {
	var all []string
	for o, err := range table.Refused() {
		all = append(all, o.String())
		if err == nil {
			all = append(all, "without a reason")
		}
	}
	return strings.Join(all, ", ")
}

func TestARefusedChainIsClosedAndHoldsNobodyBack(t *testing.T) {
	for what, bad := range map[string][]nftables.Rule{
		"a set that is not there":          {from("missing", expr.VerdictAccept, "")},
		"a chain that is not there":        {always(expr.VerdictJump, "missing")},
		"an expression that is not sound":  {{Exprs: []expr.Any{&expr.Cmp{Register: 99, Data: []byte{1}}}}},
		"an expression that is too large":  {{Exprs: []expr.Any{&expr.Cmp{Register: 1, Data: make([]byte, 500)}}}},
		"two of two rules are bad":         {from("missing", expr.VerdictAccept, ""), from("gone", expr.VerdictAccept, "")},
		"the second of three rules is bad": {always(expr.VerdictAccept, ""), from("missing", expr.VerdictAccept, ""), always(expr.VerdictAccept, "")},
	} {
		t.Run(what, func(t *testing.T) {
			n := kerneltest.New(t)
			want := func(table *nftables.Table, bad ...nftables.Rule) {
				wantSmall(table)
				table.WantChain(chain("bad", bad...))
				table.WantVerdict("to", nftables.Interface("kor3"), nftables.Goto("bad"))
				for i := range 20 {
					c := chain(fmt.Sprint("good", i), from("nets", expr.VerdictAccept, ""), always(expr.VerdictJump, "pod"))
					table.WantChain(c)
					table.WantVerdict("to", nftables.Interface(fmt.Sprint("korg", i)), nftables.Goto(c.Name))
				}
			}
			table := open(t, n)
			want(table, bad...)
			err := table.Apply(t.Context())
			if err == nil || !strings.Contains(err.Error(), "chain bad") {
				t.Errorf("Apply: %v", err)
			}
			if got := refusedNames(table); got != "chain bad" {
				t.Errorf("refused: %s", got)
			}
			sameAsNew(t, n, kerneltest.New(t), func(table *nftables.Table) {
				want(table, nftables.Rule{Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}})
			})
			writesNothing(t, table, func() {
				if err := table.Apply(t.Context()); err == nil {
					t.Error("Apply forgets what is refused")
				}
			})
			table.WantChain(chain("bad", always(expr.VerdictAccept, "")))
			mustApply(t, table)
			if got := refusedNames(table); got != "" {
				t.Errorf("refused, after it was mended: %s", got)
			}
		})
	}
}

// TestAChainThatDoesNotFitWhereItIsUsedIsNotUsed: the kernel finds out only when
// packets are sent there, by the element of a map. It is that element that is
// left out, and the chain is closed if packets come there already.
func TestAChainThatDoesNotFitWhereItIsUsedIsNotUsed(t *testing.T) {
	for what, bad := range map[string]nftables.Rule{
		"an expression for other chains": masquerade(), "a loop": always(expr.VerdictJump, "bad"),
	} {
		t.Run(what, func(t *testing.T) {
			n := kerneltest.New(t)
			table := open(t, n)
			wantSmall(table)
			table.WantChain(chain("bad", bad))
			table.WantVerdict("to", nftables.Interface("kor3"), nftables.Goto("bad"))
			for i := range 100 {
				c := chain(fmt.Sprint("good", i), always(expr.VerdictJump, "pod"))
				table.WantChain(c)
				table.WantVerdict("to", nftables.Interface(fmt.Sprint("korg", i)), nftables.Goto(c.Name))
			}
			if err := table.Apply(t.Context()); err == nil {
				t.Error("Apply succeeds")
			}
			key := nftables.Object{Kind: nftables.AMap, Name: "to", Key: nftables.Interface("kor3")}
			if len(table.Refused()) != 1 || table.Refused()[key] == nil {
				t.Errorf("refused: %s", refusedNames(table))
			}
			table.WantChain(chain("good7", masquerade(), always(expr.VerdictAccept, "")))
			if err := table.Apply(t.Context()); err == nil {
				t.Error("Apply succeeds")
			}
			list := n.Run("nft", "list", "chain", "inet", "korat", "good7")
			if !strings.Contains(list, "drop") {
				t.Errorf("not closed: %s", list)
			}
		})
	}
}

func TestARefusedChainIsTriedAgainAfterReadingBack(t *testing.T) {
	n := kerneltest.New(t)
	table := open(t, n)
	wantSmall(table)
	c := chain("bad", from("later", expr.VerdictAccept, ""))
	c.Fallback = []nftables.Rule{always(expr.VerdictReturn, "")}
	table.WantChain(c)
	if err := table.Apply(t.Context()); !errors.Is(err, unix.ENOENT) {
		t.Errorf("Apply: %v", err)
	}
	if list := n.Run("nft", "list", "chain", "inet", "korat", "bad"); !strings.Contains(list, "return") {
		t.Errorf("no fallback in %s", list)
	}
	mustResync(t, table)
	if err := table.Apply(t.Context()); !errors.Is(err, unix.ENOENT) {
		t.Errorf("Apply again: %v", err)
	}
	later := func() {
		table.WantSet(nftables.Set{Name: "later", Key: v4})
		table.SetMembers("later", addrs("10.0.0.1")...)
	}
	later()
	if err := table.Apply(t.Context()); err == nil {
		t.Error("a refused chain is tried again without reading back")
	}
	mustResync(t, table)
	mustApply(t, table)
	if list := n.Run("nft", "list", "chain", "inet", "korat", "bad"); !strings.Contains(list, "@later accept") {
		t.Errorf("not tried again: %s", list)
	}
}

func TestARefusedElementIsLeftOutAlone(t *testing.T) {
	n := kerneltest.New(t)
	table := open(t, n)
	wantSmall(table)
	for i := range 50 {
		table.WantVerdict("to", nftables.Interface(fmt.Sprint("korg", i)), nftables.Goto("pod"))
	}
	bad := nftables.Interface("korbad")
	table.WantVerdict("to", bad, nftables.Goto("missing"))
	if err := table.Apply(t.Context()); err == nil || !strings.Contains(err.Error(), "map to element korbad: ") {
		t.Errorf("Apply: %v", err)
	}
	refused := table.Refused()
	if len(refused) != 1 || refused[nftables.Object{Kind: nftables.AMap, Name: "to", Key: bad}] == nil {
		t.Errorf("refused: %v", refused)
	}
	table.UnwantVerdict("to", bad)
	mustApply(t, table)
	sameAsNew(t, n, kerneltest.New(t), func(table *nftables.Table) {
		wantSmall(table)
		for i := range 50 {
			table.WantVerdict("to", nftables.Interface(fmt.Sprint("korg", i)), nftables.Goto("pod"))
		}
	})
}

// TestAChangeThatIsRefusedAsAWholeTakesEffectForTheOthers: a chain that was good
// and is refused now is closed, in the same transaction in which others change.
func TestAChainThatWasGoodIsClosedWhenItsChangeIsRefused(t *testing.T) {
	n := kerneltest.New(t)
	table := open(t, n)
	wantSmall(table)
	table.WantChain(chain("a", always(expr.VerdictAccept, "")))
	mustApply(t, table)
	table.WantChain(chain("a", from("missing", expr.VerdictAccept, "")))
	table.WantMembers("hosts", addrs("fd00::77")...)
	if err := table.Apply(t.Context()); err == nil {
		t.Error("Apply succeeds")
	}
	if list := n.Run("nft", "list", "chain", "inet", "korat", "a"); !strings.Contains(list, "drop") || strings.Contains(list, "accept") {
		t.Errorf("not closed: %s", list)
	}
	n.Run("nft", "get", "element", "inet", "korat", "hosts", "{ fd00::77 }")
}

func TestARefusedSetClosesTheChainsThatReferToIt(t *testing.T) {
	n := kerneltest.New(t)
	table := open(t, n)
	wantSmall(table)
	long := slices.Repeat(v6, 5) // more than a key may have
	table.WantSet(nftables.Set{Name: "long", Key: long})
	table.WantMembers("long", nftables.Join(slices.Repeat(addrs("fd00::1"), 5)...))
	table.WantMap(nftables.Map{Name: "longer", Key: long})
	table.WantChain(chain("user", from("long", expr.VerdictAccept, "")))
	if err := table.Apply(t.Context()); err == nil {
		t.Error("Apply succeeds")
	}
	refused := table.Refused()
	for _, o := range []nftables.Object{{Kind: nftables.ASet, Name: "long"}, {Kind: nftables.AMap, Name: "longer"}, {Kind: nftables.AChain, Name: "user"}} {
		if refused[o] == nil {
			t.Errorf("%s is not refused", o)
		}
	}
	if len(refused) != 3 {
		t.Errorf("refused: %s", refusedNames(table))
	}
	if list := n.Run("nft", "list", "chain", "inet", "korat", "user"); !strings.Contains(list, "drop") {
		t.Errorf("not closed: %s", list)
	}
	table.UnwantChain("user")
	table.UnwantSet("long")
	table.UnwantMap("longer")
	mustApply(t, table)
	sameAsNew(t, n, kerneltest.New(t), wantSmall)
}

func TestManyRefusedChainsAreAllFound(t *testing.T) {
	n := kerneltest.New(t)
	table := open(t, n)
	wantSmall(table)
	for i := range 300 {
		c := chain(fmt.Sprint("chain", i), from("nets", expr.VerdictAccept, ""))
		switch i % 10 {
		case 3:
			c.Rules = append(c.Rules, from("missing", expr.VerdictAccept, ""))
		case 7:
			c.Rules = append(c.Rules, nftables.Rule{Exprs: []expr.Any{&expr.Cmp{Register: 99, Data: []byte{1}}}})
		}
		table.WantChain(c)
	}
	if err := table.Apply(t.Context()); err == nil || !strings.Contains(err.Error(), "and 29 more") {
		t.Errorf("Apply: %v", err)
	}
	if got := len(table.Refused()); got != 60 {
		t.Errorf("%d refused", got)
	}
	if got := table.Stats().Transactions; got > 3 {
		t.Errorf("%d transactions", got)
	}
}

func TestAnObjectThatOthersReferToStaysUntilTheyDoNot(t *testing.T) {
	n := kerneltest.New(t)
	table := open(t, n)
	wantSmall(table)
	table.WantChain(chain("user", always(expr.VerdictJump, "pod2")))
	table.WantChain(chain("pod2", always(expr.VerdictAccept, "")))
	mustApply(t, table)
	table.UnwantChain("pod2") // a mistake: user still jumps to it
	table.WantMembers("hosts", addrs("fd00::77")...)
	if err := table.Apply(t.Context()); err == nil || refusedNames(table) != "chain pod2" {
		t.Errorf("Apply: %v, refused: %s", err, refusedNames(table))
	}
	n.Run("nft", "get", "element", "inet", "korat", "hosts", "{ fd00::77 }")
	table.UnwantChain("user")
	mustResync(t, table)
	mustApply(t, table)
	if list := n.Run("nft", "list", "ruleset"); strings.Contains(list, "pod2") {
		t.Errorf("still there:\n%s", list)
	}
}
