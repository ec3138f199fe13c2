package nft

import (
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

	rules []nftables.Rule
	tiers []nftables.Chain
	needs constants
}

// book knows the programs.
type book interface {
	// passes reports whether a program can leave its tier.
	passes(ir.ProgramID) bool
	// mild reports whether no rule of a program denies or passes.
	mild(ir.ProgramID) bool
	// own returns the program if its rules are to stand in the chain of the endpoint
	// that asks it, and not in one of its own.
	own(ir.ProgramID) (*ir.Program, bool)
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
			w.rules = append(w.rules, w.tier(t, o)...)
			continue
		}
		rules := append([]nftables.Rule{rule(setMark(0, w.passed))}, w.tier(t, w.outcome)...)
		name := w.name + "/" + strconv.Itoa(i)
		w.tiers = append(w.tiers, nftables.Chain{Name: name, Rules: rules})
		w.add(jump(name))
		w.backIfAllowed(&w.rules)
	}
	if c.Default == policy.Deny {
		w.rules = w.sparing(w.rules)
		w.add(w.deny(desired.Reason{Cause: desired.NoMatch, Direction: w.direction}))
	}
}

func (w *walk) add(words ...word) { w.rules = append(w.rules, rule(words...)) }

// marks reports whether some answer comes back as a mark.
func (w *walk) marks(c ir.Chain) bool {
	for _, t := range c.Tiers {
		for _, id := range t.Programs {
			if _, own := w.book.own(id); !own || w.leaves(t) {
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
func (w *walk) tier(t ir.Tier, own outcome) []nftables.Rule {
	var rules []nftables.Rule
	for _, id := range t.Programs {
		if p, ok := w.book.own(id); ok {
			rules = append(rules, w.programRules(id, p, own, w.needs)...)
			continue
		}
		rules = append(rules, rule(jump(programChain(id, w.outcome))))
		w.backIfAllowed(&rules)
		if w.book.passes(id) {
			rules = append(rules, rule(marked(w.passed), back))
		}
	}
	if t.End != policy.Pass {
		rules = append(w.sparing(rules), rule(w.deny(desired.Reason{Cause: desired.EndOfTier, Direction: w.direction, Tier: t.Name})))
	}
	return rules
}

// sparing adds what is not to be denied.
func (w *walk) sparing(rules []nftables.Rule) []nftables.Rule {
	if w.itself == nil {
		return rules
	}
	return append(rules, rule(w.itself))
}

// backIfAllowed follows a jump to a chain that may come back with an answer.
func (w *walk) backIfAllowed(rules *[]nftables.Rule) {
	if w.outcome == returns {
		*rules = append(*rules, rule(marked(w.allowed), back))
	}
}
