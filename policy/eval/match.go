package eval

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// Mismatch is a criterion of a rule that a packet does not satisfy.
type Mismatch struct {
	Criterion string `json:"criterion"` // such as "source address"
	Wanted    string `json:"wanted"`
	Found     string `json:"found"`
}

// String returns "destination port is 81, want 80".
func (m *Mismatch) String() string {
	return fmt.Sprintf("%s is %s, want %s", m.Criterion, m.Found, m.Wanted)
}

// Matches reports whether p satisfies every criterion of r.
func (e *Evaluator) Matches(r *ir.Rule, p Packet) bool { return e.mismatch(r, p) == nil }

// mismatch returns the first criterion of r that p does not satisfy.
func (e *Evaluator) mismatch(r *ir.Rule, p Packet) *Mismatch {
	switch {
	case !r.Family.Is(p.Src) || !r.Family.Is(p.Dst):
		return &Mismatch{"family", r.Family.String(), p.Src.String() + " and " + p.Dst.String()}
	case r.Protocol != policy.AnyProtocol && r.Protocol != p.Protocol:
		return &Mismatch{"protocol", r.Protocol.String(), p.Protocol.String()}
	case slices.Contains(r.NotProtocols, p.Protocol):
		return &Mismatch{"protocol", "not " + texts(r.NotProtocols), p.Protocol.String()}
	case r.Message.Compare != policy.AnyMessage && !isMessage(r.Message, p):
		return &Mismatch{"message", r.Message.String(), message(p)}
	case slices.ContainsFunc(r.NotMessages, func(m policy.Message) bool { return isMessage(m, p) }):
		return &Mismatch{"message", "not " + texts(r.NotMessages), message(p)}
	}
	src := side{"source", p.Src, p.SrcPort, r.SrcNets, r.NotSrcNets, r.SrcSets, r.NotSrcSets, r.SrcPortSets, r.NotSrcPortSets, r.SrcPorts}
	if m := e.end(src, p.Protocol); m != nil {
		return m
	}
	dst := side{"destination", p.Dst, p.DstPort, r.DstNets, r.NotDstNets, r.DstSets, r.NotDstSets, r.DstPortSets, r.NotDstPortSets, r.DstPorts}
	return e.end(dst, p.Protocol)
}

// side is one end of a packet and what a rule wants of it.
type side struct {
	name               string
	addr               netip.Addr
	port               uint16
	nets, notNets      []netip.Prefix
	sets, notSets      []ir.SetID
	portSets, notPorts []ir.SetID
	ranges             []ir.PortRange
}

// end returns the first criterion that an end does not satisfy.
func (e *Evaluator) end(s side, protocol policy.Protocol) *Mismatch {
	address, port := s.name+" address", s.name+" port"
	if len(s.nets) > 0 && !within(s.nets, s.addr) {
		return &Mismatch{address, "in " + texts(s.nets), s.addr.String()}
	}
	if within(s.notNets, s.addr) {
		return &Mismatch{address, "not in " + texts(s.notNets), s.addr.String()}
	}
	for _, id := range s.sets {
		if !e.InSet(id, s.addr) {
			return &Mismatch{address, "of " + e.set(id), s.addr.String()}
		}
	}
	for _, id := range s.notSets {
		if e.InSet(id, s.addr) {
			return &Mismatch{address, "not of " + e.set(id), s.addr.String()}
		}
	}
	if len(s.ranges) > 0 && !(protocol.HasPorts() && inRanges(s.ranges, s.port)) {
		return &Mismatch{port, texts(s.ranges), s.portText(protocol)}
	}
	for _, id := range s.portSets {
		if !e.inPortSet(id, s, protocol) {
			return &Mismatch{port, "of " + e.set(id), s.portText(protocol) + " at " + s.addr.String()}
		}
	}
	for _, id := range s.notPorts {
		if e.inPortSet(id, s, protocol) {
			return &Mismatch{port, "not of " + e.set(id), s.portText(protocol) + " at " + s.addr.String()}
		}
	}
	return nil
}

func (s side) portText(protocol policy.Protocol) string {
	if !protocol.HasPorts() {
		return "none, as the protocol is " + protocol.String()
	}
	return fmt.Sprint(s.port)
}

func (e *Evaluator) inPortSet(id ir.SetID, s side, protocol policy.Protocol) bool {
	return e.InPortSet != nil && protocol.HasPorts() && e.InPortSet(id, s.addr, protocol, s.port)
}

func (e *Evaluator) set(id ir.SetID) string {
	if e.SetText == nil {
		return "set " + string(id)
	}
	return e.SetText(id)
}

func isMessage(m policy.Message, p Packet) bool {
	return p.Protocol.HasMessages() && m.Matches(p.Type, p.Code)
}

func message(p Packet) string {
	if !p.Protocol.HasMessages() {
		return "none, as the protocol is " + p.Protocol.String()
	}
	return policy.Message{Compare: policy.MessageTypeAndCode, Type: p.Type, Code: p.Code}.String()
}

func within(nets []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(nets, func(n netip.Prefix) bool { return n.Contains(a) })
}

func inRanges(ranges []ir.PortRange, port uint16) bool {
	return slices.ContainsFunc(ranges, func(r ir.PortRange) bool { return r.First <= port && port <= r.Last })
}

func texts[T fmt.Stringer](list []T) string {
	words := make([]string, len(list))
	for i, item := range list {
		words[i] = item.String()
	}
	return strings.Join(words, ", ")
}
