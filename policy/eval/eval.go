// Package eval is the meaning of compiled policy: what a chain of programs says
// about a packet, with the whole way to the decision. The data planes are judged
// by it, with random packets; what a demo or a tool predicts, it predicts by it.
// It is written to be read, not to be fast.
//
// The package is pure.
package eval

import (
	"net/netip"
	"slices"

	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// State is what connection tracking knows about a packet.
type State uint8

// New is the first packet of a connection. Established packets belong to one
// that was let through, Related ones (ICMP errors) report about one. Invalid
// packets belong to none and could not begin one.
const (
	New State = iota
	Established
	Related
	Invalid
)

// Packet is what a decision depends on.
type Packet struct {
	Src, Dst netip.Addr
	Protocol policy.Protocol
	DstPort  uint16 // only where the Protocol HasPorts
	State    State
}

// Evaluator evaluates chains. Both functions answer for the node, or the
// cluster, whose policy is asked about.
type Evaluator struct {
	// Program returns a program, or nil if it is unknown: it then denies.
	Program func(ir.ProgramID) *ir.Program
	// InSet reports whether a set has the address; an unknown set has none.
	InSet func(ir.SetID, netip.Addr) bool
}

// Cause is what kind of thing decided.
type Cause uint8

// The causes. ByRule: a rule of a program. ByMissing: a program that is
// unknown. ByTierEnd: no rule of the tier matched, and the tier is final.
// ByDefault: no tier decided. ByState: the connection's state.
const (
	ByDefault Cause = iota
	ByRule
	ByMissing
	ByTierEnd
	ByState
)

// Decision is what a chain says about a packet, and why.
type Decision struct {
	Action  policy.Action // Allow or Deny
	Cause   Cause
	State   State        // of the packet
	Tier    string       // that decided: ByRule, ByMissing, ByTierEnd
	Program ir.ProgramID // that decided: ByRule, ByMissing
	Rule    int          // index in the program: ByRule
	Origin  int          // index of the policy's rule: ByRule
	Trace   []TierTrace  // the tiers that were asked, in order
}

// TierTrace is the way through one tier.
type TierTrace struct {
	Name     string
	Programs []ProgramTrace // that were asked, in order
	Action   policy.Action  // of the tier: Pass goes on with the next
}

// ProgramTrace is the way through one program.
type ProgramTrace struct {
	ID      ir.ProgramID
	Missing bool
	Rule    int // index of the first rule that matches, -1 for none
	Origin  int // of that rule
	Action  policy.Action
}

// Chain evaluates one direction of an endpoint. Packets of connections that
// were let through are accepted before any tier, and invalid ones dropped.
func (e *Evaluator) Chain(c ir.Chain, p Packet) Decision {
	d := Decision{State: p.State, Cause: ByState}
	switch p.State {
	case Established, Related:
		d.Action = policy.Allow
		return d
	case Invalid:
		d.Action = policy.Deny
		return d
	}
	p.Src, p.Dst = p.Src.Unmap(), p.Dst.Unmap()
	for _, t := range c.Tiers {
		trace := e.tier(t, p)
		d.Trace = append(d.Trace, trace)
		if trace.Action != policy.Pass {
			d.decided(trace)
			return d
		}
	}
	d.Action, d.Cause = c.Default, ByDefault
	return d
}

// tier asks one tier.
func (e *Evaluator) tier(t ir.Tier, p Packet) TierTrace {
	trace := TierTrace{Name: t.Name, Action: t.End}
	for _, id := range t.Programs {
		step := e.program(id, p)
		trace.Programs = append(trace.Programs, step)
		if step.decided() {
			trace.Action = step.Action
			break
		}
	}
	return trace
}

// decided takes over the outcome of a tier that did not pass.
func (d *Decision) decided(t TierTrace) {
	d.Action, d.Cause, d.Tier = t.Action, ByTierEnd, t.Name
	if n := len(t.Programs); n > 0 && t.Programs[n-1].decided() {
		last := t.Programs[n-1]
		d.Cause, d.Program, d.Rule, d.Origin = ByRule, last.ID, last.Rule, last.Origin
		if last.Missing {
			d.Cause = ByMissing
		}
	}
}

// decided reports whether the tier's other programs were not asked any more.
func (t ProgramTrace) decided() bool { return t.Rule >= 0 || t.Missing }

// program finds the first rule that matches.
func (e *Evaluator) program(id ir.ProgramID, p Packet) ProgramTrace {
	prog := e.Program(id)
	if prog == nil {
		return ProgramTrace{ID: id, Missing: true, Rule: -1, Action: policy.Deny}
	}
	for i := range prog.Rules {
		if r := &prog.Rules[i]; e.Matches(r, p) {
			return ProgramTrace{ID: id, Rule: i, Origin: r.Origin, Action: r.Action}
		}
	}
	return ProgramTrace{ID: id, Rule: -1}
}

// Matches reports whether p satisfies every criterion of r.
func (e *Evaluator) Matches(r *ir.Rule, p Packet) bool {
	return r.Family.Is(p.Src) && r.Family.Is(p.Dst) &&
		(r.Protocol == policy.AnyProtocol || r.Protocol == p.Protocol) &&
		(len(r.SrcNets) == 0 || within(r.SrcNets, p.Src)) && !within(r.NotSrcNets, p.Src) &&
		(len(r.DstNets) == 0 || within(r.DstNets, p.Dst)) && !within(r.NotDstNets, p.Dst) &&
		e.inAll(r.SrcSets, p.Src) && e.inAll(r.DstSets, p.Dst) &&
		(len(r.DstPorts) == 0 || p.Protocol.HasPorts() && inRanges(r.DstPorts, p.DstPort))
}

func within(nets []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(nets, func(n netip.Prefix) bool { return n.Contains(a) })
}

func (e *Evaluator) inAll(sets []ir.SetID, a netip.Addr) bool {
	return !slices.ContainsFunc(sets, func(s ir.SetID) bool { return !e.InSet(s, a) })
}

func inRanges(ranges []ir.PortRange, port uint16) bool {
	return slices.ContainsFunc(ranges, func(r ir.PortRange) bool { return r.First <= port && port <= r.Last })
}
