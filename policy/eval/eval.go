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
	Src, Dst         netip.Addr
	Protocol         policy.Protocol
	SrcPort, DstPort uint16 // only where the Protocol HasPorts
	Type, Code       uint8  // only where the Protocol HasMessages
	State            State
}

// Evaluator evaluates chains. Its functions answer for the node, or the
// cluster, whose policy is asked about.
type Evaluator struct {
	// Program returns a program, or nil if it is unknown: it then denies.
	Program func(ir.ProgramID) *ir.Program
	// InSet reports whether a set of kind Addrs or Nets has the address; an
	// unknown set has none.
	InSet func(ir.SetID, netip.Addr) bool
	// InPortSet reports whether a set of kind AddrPorts has the address with that
	// protocol and port. A nil function has no such sets.
	InPortSet func(ir.SetID, netip.Addr, policy.Protocol, uint16) bool
	// SetText describes a set in reasons; nil: by its name.
	SetText func(ir.SetID) string
	// Explain asks for traces that tell of every rule why it did not match.
	Explain bool
}

// Cause is what kind of thing decided.
type Cause uint8

// The causes. ByRule: a rule of a program. ByMissing: a program that is
// unknown. ByTierEnd: no rule of the tier matched, and the tier is final.
// ByDefault: no tier decided. ByState: the connection's state. The others are
// rules that hold for a whole node, see Host.
const (
	ByDefault Cause = iota
	ByRule
	ByMissing
	ByTierEnd
	ByState
	ByUnknown   // an interface of a pod that is not known
	ByForgery   // a source that is not the pod's
	ByRouter    // a pod that speaks as a router
	ByTunnel    // an encapsulated packet that a pod built
	ByPodToHost // HostRules.PodToHost
	ByLoop      // HostRules.Loops
	ByFailsafe  // a port that keeps the node alive
	ByNeighbour // how a node, its pods and its neighbours find each other
	ByItself    // from a pod to itself
)

// Decision is what a chain says about a packet, and why.
type Decision struct {
	Action  policy.Action `json:"action"` // Allow or Deny
	Cause   Cause         `json:"cause"`
	State   State         `json:"state"`            // of the packet
	Tier    string        `json:"tier,omitempty"`   // that decided: ByRule, ByMissing, ByTierEnd
	Program ir.ProgramID  `json:"program,omitzero"` // that decided: ByRule, ByMissing
	Rule    int           `json:"rule"`             // index in the program: ByRule
	Origin  int           `json:"origin"`           // index of the policy's rule: ByRule
	Trace   []TierTrace   `json:"trace,omitempty"`  // the tiers that were asked, in order
}

// TierTrace is the way through one tier.
type TierTrace struct {
	Name     string         `json:"name"`
	Programs []ProgramTrace `json:"programs"` // that were asked, in order
	Action   policy.Action  `json:"action"`   // of the tier: Pass goes on with the next
}

// ProgramTrace is the way through one program.
type ProgramTrace struct {
	ID      ir.ProgramID  `json:"id"`
	Missing bool          `json:"missing,omitempty"`
	Rule    int           `json:"rule"`   // index of the first rule that matches and is no Log, -1 for none
	Origin  int           `json:"origin"` // of that rule
	Action  policy.Action `json:"action"`
	Logged  []int         `json:"logged,omitempty"` // origins of the Log rules that matched before it
	Rules   []RuleTrace   `json:"rules,omitempty"`  // all that were asked; only if the Evaluator explains
}

// RuleTrace tells of one rule that was asked.
type RuleTrace struct {
	Rule     int           `json:"rule"`
	Origin   int           `json:"origin"`
	Action   policy.Action `json:"action"`
	Text     string        `json:"text"`
	Mismatch *Mismatch     `json:"mismatch,omitempty"` // the first criterion that is not satisfied; nil: it matched
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

// Pending evaluates a chain as it would be if staged policies were enforced.
func (e *Evaluator) Pending(c ir.Chain, p Packet) Decision {
	if c.Pending != nil {
		c.Tiers = c.Pending
	}
	return e.Chain(c, p)
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

// program finds the first rule that matches and decides.
func (e *Evaluator) program(id ir.ProgramID, p Packet) ProgramTrace {
	prog := e.Program(id)
	if prog == nil {
		return ProgramTrace{ID: id, Missing: true, Rule: -1, Action: policy.Deny}
	}
	t := ProgramTrace{ID: id, Rule: -1}
	for i := range prog.Rules {
		r := &prog.Rules[i]
		why := e.mismatch(r, p)
		if e.Explain {
			t.Rules = append(t.Rules, RuleTrace{Rule: i, Origin: r.Origin, Action: r.Action, Text: r.String(), Mismatch: why})
		}
		switch {
		case why != nil:
		case r.Action.Ends():
			t.Rule, t.Origin, t.Action = i, r.Origin, r.Action
			return t
		case !slices.Contains(t.Logged, r.Origin):
			t.Logged = append(t.Logged, r.Origin)
		}
	}
	return t
}
