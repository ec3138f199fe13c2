package iptables

import (
	"net/netip"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/ipset"
	"github.com/koratnet/korat/policy/ir"
)

// sets are the sets that rules refer to.
type sets map[ir.SetID]*desired.SetChange

// setOf returns a set of some members.
func setOf(kind ir.SetKind, members ...ir.Member) *desired.SetChange {
	c := &desired.SetChange{Kind: kind, Whole: true, Add: map[ir.Member]struct{}{}}
	for _, m := range members {
		c.Add[m] = struct{}{}
	}
	return c
}

// one is the member that is a single address.
func one(a netip.Addr) ir.Member { return ir.Member{Prefix: netip.PrefixFrom(a, a.BitLen())} }

func (w *world) openSets() {
	w.t.Helper()
	w.host.Do(func() {
		var err error
		if w.sets, err = ipset.New(); err != nil {
			w.t.Fatal(err)
		}
	})
	w.t.Cleanup(func() { w.sets.Close() })
	if err := (ipset.Adder{Sets: w.sets}).Resync(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

// loadSets makes sets in the kernel, as the agent does.
func (w *world) loadSets(s sets) {
	w.t.Helper()
	adder := ipset.Adder{Sets: w.sets}
	adder.Want(desired.Delta{Sets: s})
	if err := adder.Apply(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}
