package nft

import (
	"net/netip"
	"strconv"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/nftables"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// outcome is how a chain of policy tells that a packet is allowed. Denying is
// always the end of it.
type outcome uint8

const (
	// accepts ends the base chain: there is nothing behind it to ask.
	accepts outcome = iota
	// returns goes back with the allowed mark: there is. The mark tells this from a
	// chain in which nothing matched.
	returns
	// waves accepts with the waved mark, for the points behind this hook.
	waves
	// untracks does that and takes the packet out of connection tracking.
	untracks
	// leaves goes back and leaves no mark: rules of a policy that stand in the chain
	// of an endpoint itself.
	leaves
)

// ownChains are the outcomes of policies that have chains of their own.
const ownChains = leaves

// outcomeWords end the names of chains.
var outcomeWords = [...]string{"", "/returns", "/waves", "/untracks"}

// style is what the Settings say about how rules are written.
type style struct {
	// allowed: an outcome of returns. passed: a rule said Pass, the tier is left.
	// waved: a host endpoint does not ask again.
	allowed, passed, waved uint32
	records                bool
	// families are those that packets of policies can be of. Where there is but one
	// no rule has to ask.
	families []ir.Family
	ends     tunnels // of this node
	// podTunnels and sources are of the Settings: PodTunnels and TunnelSources.
	podTunnels bool
	sources    []netip.Prefix
}

func styleOf(s desired.Settings) style {
	var bits []uint32
	for rest := s.Marks; rest != 0; rest &= rest - 1 {
		bits = append(bits, rest&-rest)
	}
	if len(bits) < 3 {
		panic("bug: Settings with less than 4 bits of the mark")
	}
	return style{allowed: bits[0], passed: bits[1], waved: bits[2], records: s.DropRecords, families: bothFamilies, podTunnels: s.PodTunnels, sources: s.TunnelSources}
}

// snapLength is how much of a denied packet is told: the headers.
const snapLength = 128

// deny drops, and tells why to those who listen. That costs nothing until a
// packet comes here.
func (s style) deny(r desired.Reason) word {
	if !s.records {
		return drop
	}
	return word{
		&expr.Log{
			Key:     1<<unix.NFTA_LOG_GROUP | 1<<unix.NFTA_LOG_PREFIX | 1<<unix.NFTA_LOG_SNAPLEN,
			Group:   desired.DropGroup,
			Snaplen: snapLength,
			Data:    []byte(r.Tag()),
		},
		drop[0],
	}
}

// allow is what a rule does that allows.
func (s style) allow(o outcome) word {
	switch o {
	case returns:
		return append(setMark(s.allowed, 0), back...)
	case waves:
		return append(setMark(s.waved, 0), accept...)
	case untracks:
		return append(append(word{&expr.Notrack{}}, setMark(s.waved, 0)...), accept...)
	case leaves:
		return back
	}
	return accept
}

// program returns the chain of a policy.
func (s style) program(id ir.ProgramID, p *ir.Program, o outcome) (nftables.Chain, constants) {
	needs := constants{}
	return nftables.Chain{Name: programChain(id, o), Rules: s.programRules(id, p, o, needs)}, needs
}

// programRules returns the rules of a policy. A program that the engine has not
// told is closed.
func (s style) programRules(id ir.ProgramID, p *ir.Program, o outcome, needs constants) []nftables.Rule {
	if p == nil {
		unknown := desired.Reason{Cause: desired.NoMatch, Direction: id.Direction}
		return []nftables.Rule{commented(rule(s.deny(unknown)), id.Policy.String()+" is not known")}
	}
	var rules []nftables.Rule
	for i := range p.Rules {
		r := &p.Rules[i]
		act := s.action(id, r, o)
		for _, v := range variants(*r) {
			for _, f := range s.familiesOf(&v) {
				match, ok := s.matches(&v, f, needs)
				if !ok {
					continue
				}
				rules = append(rules, rule(match, act))
				if len(match) == 0 && r.Action.Ends() {
					return rules // what follows cannot be reached
				}
			}
		}
	}
	return rules
}

func (s style) action(id ir.ProgramID, r *ir.Rule, o outcome) word {
	switch r.Action {
	case policy.Allow:
		return s.allow(o)
	case policy.Pass:
		return append(setMark(s.passed, 0), back...)
	case policy.Log:
		return note(id, r.Origin)
	}
	return s.deny(desired.Reason{Cause: desired.ByRule, Direction: id.Direction, Policy: id.Policy, Rule: r.Origin})
}

// How much one rule may write to the kernel's log: a flood of packets must not
// become a flood of lines.
const (
	logRate  = 10 // a second
	logBurst = 50
)

// maxLogPrefix is what the kernel has place for, the end of the text included.
const maxLogPrefix = 127

// note writes a packet to the kernel's log, with the rule of the policy that it
// matched, such as "knp/shop/web:in0 ".
func note(id ir.ProgramID, origin int) word {
	which := ":in" + strconv.Itoa(origin) + " "
	if id.Direction == policy.Egress {
		which = ":out" + strconv.Itoa(origin) + " "
	}
	name := id.Policy.String()
	if room := maxLogPrefix - len(which); len(name) > room {
		mark := "~" + short(name, 2)
		name = name[:room-len(mark)] + mark
	}
	return word{
		&expr.Limit{Type: expr.LimitTypePkts, Rate: logRate, Unit: expr.LimitTimeSecond, Burst: logBurst},
		&expr.Log{Key: 1 << unix.NFTA_LOG_PREFIX, Data: []byte(name + which)},
	}
}

// passes reports whether a rule of p leaves the tier.
func passes(p *ir.Program) bool { return has(p, policy.Pass) }

// harmless reports whether no rule of p denies or passes.
func harmless(p *ir.Program) bool { return p != nil && !has(p, policy.Deny) && !has(p, policy.Pass) }

func has(p *ir.Program, a policy.Action) bool {
	if p == nil {
		return false
	}
	for i := range p.Rules {
		if p.Rules[i].Action == a {
			return true
		}
	}
	return false
}
