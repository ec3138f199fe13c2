package nftables_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/nftables/expr"
	"pgregory.net/rapid"

	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/felix/kernel/nftables"
)

// world is what is wanted in a history.
type world struct {
	sets     map[string]map[nftables.Key]bool
	verdicts map[nftables.Key]nftables.Verdict
	chains   map[string]nftables.Chain
}

// universe is what sets are made as, and what histories draw their members from.
var universe = map[string]struct {
	nftables.Set
	members []nftables.Key
}{
	"hosts":    {nftables.Set{Name: "hosts", Key: v6}, addrs("fd00::1", "fd00::2", "fd00::3")},
	"nets":     {nftables.Set{Name: "nets", Key: v4, Interval: true}, nets("0.0.0.0/0", "0.0.0.0/1", "10.0.0.0/8", "10.1.0.0/16", "10.1.0.1/32", "11.0.0.0/8", "255.255.255.255/32")},
	"six":      {nftables.Set{Name: "six", Key: v6, Interval: true}, nets("::/0", "8000::/1", "fd00::/8", "fd00::1/128", "fe00::/8")},
	"services": {nftables.Set{Name: "services", Key: port}, []nftables.Key{service("10.1.2.3", 80), service("10.1.2.3", 81), service("10.1.2.4", 80)}},
	"ports":    {nftables.Set{Name: "ports", Key: []nftables.Field{nftables.L4Port}, Interval: true}, slices.Concat(nftables.Ports(80, 90), nftables.Ports(0, 65535))},
}

// want tells the world to a Table that has been told nothing.
func (w *world) want(table *nftables.Table) {
	for name, members := range w.sets {
		table.WantSet(universe[name].Set)
		table.SetMembers(name, slices.Collect(maps.Keys(members))...)
	}
	table.WantMap(nftables.Map{Name: "to", Key: name})
	for k, v := range w.verdicts {
		table.WantVerdict("to", k, v)
	}
	for _, c := range w.chains {
		table.WantChain(c)
	}
}

// leaves are the chains that elements and other chains may refer to; they stay.
var leaves = []string{"leaf0", "leaf1", "leaf2"}

func newWorld() *world {
	w := &world{sets: map[string]map[nftables.Key]bool{}, verdicts: map[nftables.Key]nftables.Verdict{}, chains: map[string]nftables.Chain{}}
	for _, name := range leaves {
		w.chains[name] = chain(name, always(expr.VerdictAccept, ""))
	}
	w.chains["forward"] = nftables.Chain{Name: "forward", Base: &forward, Rules: []nftables.Rule{dispatch("to")}}
	return w
}

// rules draws the rules of a chain: those that are wanted may be referred to.
func (w *world) rules(rt *rapid.T) (all []nftables.Rule) {
	for range rapid.IntRange(0, 4).Draw(rt, "rules") {
		switch {
		case w.sets["nets"] != nil && rapid.Bool().Draw(rt, "nets"):
			all = append(all, from("nets", expr.VerdictAccept, ""))
		case rapid.Bool().Draw(rt, "jump"):
			all = append(all, always(expr.VerdictJump, "leaf1"))
		default:
			all = append(all, always(expr.VerdictDrop, ""))
		}
	}
	return all
}

// step is a history's way to change the world and a Table alike.
func (w *world) steps(table func() *nftables.Table) map[string]func(*rapid.T) {
	set := rapid.SampledFrom(slices.Sorted(maps.Keys(universe)))
	draw := func(rt *rapid.T, needed bool) (string, []nftables.Key) {
		name := set.Draw(rt, "set")
		if needed && w.sets[name] == nil {
			rt.Skip()
		}
		return name, rapid.SliceOfDistinct(rapid.SampledFrom(universe[name].members), rapid.ID).Draw(rt, "members")
	}
	return map[string]func(*rapid.T){
		"whole set": func(rt *rapid.T) {
			name, members := draw(rt, false)
			w.sets[name] = map[nftables.Key]bool{}
			for _, k := range members {
				w.sets[name][k] = true
			}
			table().WantSet(universe[name].Set)
			table().SetMembers(name, members...)
		},
		"members more": func(rt *rapid.T) {
			name, members := draw(rt, true)
			for _, k := range members {
				w.sets[name][k] = true
			}
			table().WantMembers(name, members...)
		},
		"members less": func(rt *rapid.T) {
			name, members := draw(rt, true)
			for _, k := range members {
				delete(w.sets[name], k)
			}
			table().UnwantMembers(name, members...)
		},
		"set gone": func(rt *rapid.T) {
			name, _ := draw(rt, true)
			if name == "nets" { // chains refer to it
				rt.Skip()
			}
			delete(w.sets, name)
			table().UnwantSet(name)
		},
		"chain": func(rt *rapid.T) {
			name := fmt.Sprint("chain", rapid.IntRange(0, 3).Draw(rt, "chain"))
			if _, there := w.chains[name]; there && rapid.Bool().Draw(rt, "gone") {
				delete(w.chains, name)
				table().UnwantChain(name)
				return
			}
			w.chains[name] = chain(name, w.rules(rt)...)
			table().WantChain(w.chains[name])
		},
		"base chain": func(rt *rapid.T) {
			hook := nftables.Hook{
				Type: nftables.Filter, Number: rapid.SampledFrom([]nftables.HookNumber{nftables.Forward, nftables.Input}).Draw(rt, "hook"),
				Priority: int32(rapid.IntRange(-3, 3).Draw(rt, "priority")), Drop: rapid.Bool().Draw(rt, "drop"),
			}
			w.chains["forward"] = nftables.Chain{Name: "forward", Base: &hook, Rules: append(w.rules(rt), dispatch("to"))}
			table().WantChain(w.chains["forward"])
		},
		"verdict": func(rt *rapid.T) {
			k := nftables.Interface(fmt.Sprint("kor", rapid.IntRange(0, 3).Draw(rt, "interface")))
			if rapid.Bool().Draw(rt, "gone") {
				delete(w.verdicts, k)
				table().UnwantVerdict("to", k)
				return
			}
			w.verdicts[k] = rapid.SampledFrom([]nftables.Verdict{nftables.Drop, nftables.Jump("leaf0"), nftables.Goto("leaf2")}).Draw(rt, "verdict")
			table().WantVerdict("to", k, w.verdicts[k])
		},
	}
}

// historyEdits are what others do in histories; what does not fit fails.
var historyEdits = []string{
	"delete table inet korat", "flush table inet korat", "add chain inet korat evil { type filter hook forward priority 9; }",
	"flush chain inet korat leaf0", "add rule inet korat leaf1 drop", "add rule inet korat chain1 accept", "delete chain inet korat chain2",
	"add element inet korat nets { 10.0.0.0/8 }", "add element inet korat nets { 1.1.1.1-1.1.1.7 }", "delete element inet korat nets { 11.0.0.0/8 }", "flush set inet korat six",
	"add element inet korat hosts { fd00::2 }", "delete element inet korat hosts { fd00::2 }", `add element inet korat to { "kor1" : accept }`, "flush map inet korat to",
	"delete set inet korat services", "add set inet korat services { type ipv4_addr; }", "add set inet korat evil { type ipv4_addr; }",
	"add table inet korat { flags dormant; }", "flush ruleset",
}

// TestAnyHistoryEndsAsDesired mixes changes, foreign edits and restarts. The
// kernel must list what it lists when the same is wanted from nothing.
func TestAnyHistoryEndsAsDesired(t *testing.T) {
	n, other := kerneltest.New(t), kerneltest.New(t)
	rapid.Check(t, func(rt *rapid.T) {
		n.Run("nft", "flush", "ruleset")
		w := newWorld()
		table := open(rt, n)
		w.want(table)
		steps := w.steps(func() *nftables.Table { return table })
		steps["apply"] = func(rt *rapid.T) { mustApply(rt, table) }
		steps["edit"] = func(rt *rapid.T) {
			n.Try("nft", rapid.SampledFrom(historyEdits).Draw(rt, "script")) // heard, at the next Apply
		}
		steps["resync"] = func(rt *rapid.T) { mustResync(rt, table) }
		steps["restart"] = func(rt *rapid.T) {
			table = start(rt, n)
			if rapid.Bool().Draw(rt, "read first") {
				mustResync(rt, table)
			}
			w.want(table)
			table.AllowRemoval()
		}
		rt.Repeat(steps)
		mustApply(rt, table)
		sameAsNew(rt, n, other, w.want)
		mustResync(rt, table)
		writesNothing(rt, table, func() { mustApply(rt, table) })
	})
}
