package nft

import (
	"maps"
	"strconv"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/nftables"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// walk writes the meaning of ir.Chains into the chains of one endpoint.
type walk struct {
	style
	name      string // of the chain in which it begins; those of tiers add to it
	direction policy.Direction
	outcome   outcome
	book      book
	itself    word // what matches, and accepts, before the end of a tier denies

	text
	tiers []nftables.Chain
	needs constants
}

// book knows the programs.
type book interface {
	// passes reports whether a program can leave its tier.
	passes(ir.ProgramID) bool
	// mild reports whether no rule of a program denies or passes.
	mild(ir.ProgramID) bool
	// own reports whether the rules of a program are to stand in the chain of the
	// endpoint that asks it, and not in one of its own.
	own(ir.ProgramID) bool
	// rules returns those of such a program, and what they need.
	rules(ir.ProgramID, outcome) ([]nftables.Rule, constants)
}

// chain writes c. What reaches the end of the rules is allowed.
//
// A tier that a packet may leave by Pass has a chain of its own, whose end is the
// end of the tier. The others stand one after the other: there is nothing to skip.
func (w *walk) chain(c ir.Chain) {
	w.needs = constants{}
	if w.outcome == returns && w.marks(c) {
		w.add(setMark(0, w.allowed))
	}
	for i, t := range c.Tiers {
		if !w.leaves(t) {
			o := w.outcome
			if o == returns {
				o = leaves
			}
			w.join(w.tier(t, o))
			continue
		}
		var own text
		own.add(setMark(0, w.passed))
		own.join(w.tier(t, w.outcome))
		name := w.name + "/" + strconv.Itoa(i)
		w.tiers = append(w.tiers, own.pages(name)...)
		w.add(jump(name))
		w.backIfAllowed(&w.text)
	}
	if c.Default == policy.Deny {
		w.spare(&w.text)
		w.add(w.deny(desired.Reason{Cause: desired.NoMatch, Direction: w.direction}))
	}
}

// marks reports whether some answer comes back as a mark.
func (w *walk) marks(c ir.Chain) bool {
	for _, t := range c.Tiers {
		for _, id := range t.Programs {
			if !w.book.own(id) || w.leaves(t) {
				return true
			}
		}
	}
	return false
}

func (w *walk) leaves(t ir.Tier) bool {
	for _, id := range t.Programs {
		if w.book.passes(id) {
			return true
		}
	}
	return false
}

// tier returns the rules of a tier. own is the outcome of policies whose rules
// stand among them.
func (w *walk) tier(t ir.Tier, own outcome) text {
	var all text
	for _, id := range t.Programs {
		if w.book.own(id) {
			rules, needs := w.book.rules(id, own)
			all.open(id, rules)
			maps.Copy(w.needs, needs)
			continue
		}
		all.add(jump(programChain(id, w.outcome)))
		w.backIfAllowed(&all)
		if w.book.passes(id) {
			all.add(marked(w.passed), back)
		}
	}
	if t.End != policy.Pass {
		w.spare(&all)
		all.add(w.deny(desired.Reason{Cause: desired.EndOfTier, Direction: w.direction, Tier: t.Name}))
	}
	return all
}

// spare adds what is not to be denied.
func (w *walk) spare(t *text) {
	if w.itself != nil {
		t.add(w.itself)
	}
}

// backIfAllowed follows a jump to a chain that may come back with an answer.
func (w *walk) backIfAllowed(t *text) {
	if w.outcome == returns {
		t.add(marked(w.allowed), back)
	}
}
