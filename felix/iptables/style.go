package iptables

import (
	"net/netip"
	"strings"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// style is what all rules of one family depend on. A change of it writes every
// chain anew that then differs.
type style struct {
	family   ir.Family
	marks    marks
	formerly uint32 // accept of the marks before, while the tables change over one by one; else 0
	settings desired.Settings
	hosts    hosts
	// services: there are addresses to which Settings.Loops applies. masquerade: the
	// sets that it needs are there.
	services, masquerade bool
	inside               bool    // desired.InsideSet is there
	floats               []float // floating addresses of the family, ascending
	// sources are, by interface, those that a pod may send from beside its addresses.
	sources map[string][]netip.Prefix
	// closed: there are pools that never travel in clear.
	closed bool
	// tunnelEnds are this node's ends of tunnels of the family.
	tunnelEnds []desired.TunnelDevice
}

// accepted matches packets that an earlier table has let through, with target.
func (s style) accepted(target string) []rule {
	rules := specs(mark(s.marks.accept) + " " + target)
	if s.formerly != 0 && s.formerly != s.marks.accept {
		rules = append(rules, specs(mark(s.formerly)+" "+target)...)
	}
	return rules
}

// markChains are where rules go to that let a packet through or leave the tier.
func (s style) markChains() []chain {
	return []chain{
		newChain(allowChain, specs(s.marks.only(s.marks.accept))),
		newChain(passChain, []rule{{spec: s.marks.only(s.marks.pass), note: marksNote(s.marks)}}), // fewer go there
	}
}

// way says how a packet goes on in a chain of an endpoint.
type way struct {
	direction policy.Direction
	done      string // target of what a policy has allowed
	open      string // target of what the end of the last tier leaves open; "": none
}

// walk writes the meaning of an ir.Chain.
func (s style) walk(c ir.Chain, w way) []rule {
	var rules []rule
	for i, t := range c.Tiers {
		if i > 0 {
			rules = append(rules, rule{spec: clearMark(s.marks.pass)})
		}
		for j, p := range t.Programs {
			jump := "-j " + programChain(p)
			if j > 0 {
				jump = noMark(s.marks.pass) + " " + jump
			}
			rules = append(rules, specs(jump, mark(s.marks.accept)+" "+w.done)...)
		}
		if t.End != policy.Pass {
			end := s.deny(desired.Reason{Cause: desired.EndOfTier, Direction: w.direction, Tier: t.Name})
			rules = append(rules, end.when(noMark(s.marks.pass)))
		}
	}
	switch {
	case c.Default == policy.Deny && w.open != "":
		rules = append(rules, s.deny(desired.Reason{Cause: desired.NoMatch, Direction: w.direction}).when(""))
	case w.open != "":
		rules = append(rules, rule{spec: w.open})
	}
	return rules
}

// established matches what belongs to a connection that was let through.
const established = "-m conntrack --ctstate RELATED,ESTABLISHED"

// unplaced denies what conntrack cannot place.
func (s style) unplaced(d policy.Direction) []rule {
	if s.settings.Invalid == policy.Allow {
		return nil
	}
	return []rule{s.deny(desired.Reason{Cause: desired.Invalid, Direction: d}).when("-m conntrack --ctstate INVALID")}
}

// stateRules let established flows continue and clear the marks for the rest.
func (s style) stateRules(d policy.Direction) []rule {
	rules := specs(established + " -g " + allowChain)
	return append(append(rules, s.unplaced(d)...), rule{spec: clearMark(s.marks.all())})
}

// programOf returns the chain of a policy. A program that the engine has not
// told is closed.
func (s style) programOf(id ir.ProgramID, p *ir.Program) chain {
	name := programChain(id)
	if p == nil {
		return closedChain(name, id.Policy.String()+" is not known")
	}
	rules := s.programRules(p)
	if len(rules) > 0 {
		rules[0].note = id.Policy.String()
		last := &rules[len(rules)-1]
		last.spec = s.atEnd(last.spec)
	}
	return newChain(name, rules)
}

// atEnd says what the last rule of a chain says in one step less: behind it the
// chain returns by itself.
func (s style) atEnd(spec string) string {
	for chain, bit := range map[string]uint32{allowChain: s.marks.accept, passChain: s.marks.pass} {
		if matches, ok := strings.CutSuffix(spec, "-g "+chain); ok {
			return matches + s.marks.only(bit)
		}
	}
	return spec
}
