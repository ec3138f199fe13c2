package compile

import (
	"cmp"
	"slices"

	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// l4 is what a rule says about protocol, ports and messages. The zero l4 is all
// traffic.
type l4 struct {
	protocol     policy.Protocol
	notProtocols []policy.Protocol // only with AnyProtocol
	src, dst     ports
	message      policy.Message
	notMessages  []policy.Message
}

// ports is what a rule says about the port of one end.
type ports struct {
	ranges   []ir.PortRange // in order, with gaps between them; nil: all
	named    bool           // it is a port called name
	name     policy.PortName
	notNames []policy.PortName
}

// traffic returns the alternatives that list and not leave, with the ports as
// destination ports. A port that cannot match is left out, so the result may be
// empty and match nothing.
func traffic(list, not []policy.Port) []l4 {
	alternatives := services(list)
	for _, n := range not {
		var left []l4
		for _, a := range alternatives {
			left = append(left, a.without(n)...)
		}
		alternatives = left
	}
	return alternatives
}

// services groups ports by protocol, and puts names and messages after them.
func services(list []policy.Port) []l4 {
	if list == nil {
		return []l4{{}}
	}
	ranges := map[policy.Protocol][]ir.PortRange{}
	whole := map[policy.Protocol]bool{}
	var others []l4
	for _, p := range list {
		switch {
		case p.Message.Compare != policy.AnyMessage:
			if p.Protocol.HasMessages() {
				others = append(others, l4{protocol: p.Protocol, message: p.Message})
			}
		case p.Name != "":
			if p.Protocol == policy.AnyProtocol || p.Protocol.HasPorts() {
				name := policy.PortName{Protocol: p.Protocol, Name: p.Name}
				others = append(others, l4{protocol: p.Protocol, dst: ports{named: true, name: name}})
			}
		case p.First == 0 && p.Last == 0:
			whole[p.Protocol] = true
			ranges[p.Protocol] = nil
		case p.Protocol.HasPorts() && p.First <= p.Last && !whole[p.Protocol]:
			ranges[p.Protocol] = append(ranges[p.Protocol], ir.PortRange{First: p.First, Last: p.Last})
		}
	}
	if whole[policy.AnyProtocol] {
		return []l4{{}}
	}
	var out []l4
	for protocol, r := range ranges {
		out = append(out, l4{protocol: protocol, dst: ports{ranges: ir.Merged(r)}})
	}
	slices.SortFunc(out, func(a, b l4) int { return cmp.Compare(a.protocol, b.protocol) })
	for _, o := range others {
		if !whole[o.protocol] {
			out = append(out, o)
		}
	}
	return out
}

// without returns what is left of t when traffic to n is excluded.
func (t l4) without(n policy.Port) []l4 {
	whole := n.First == 0 && n.Last == 0 && n.Name == "" && n.Message.Compare == policy.AnyMessage
	switch {
	case n.Protocol == policy.AnyProtocol && whole:
		return nil
	case n.Protocol == policy.AnyProtocol:
		return []l4{t.minus(n)}
	case t.protocol == n.Protocol && whole:
		return nil
	case t.protocol == n.Protocol:
		if t = t.minus(n); t.dst.ranges != nil && len(t.dst.ranges) == 0 {
			return nil
		}
		return []l4{t}
	case t.protocol != policy.AnyProtocol || slices.Contains(t.notProtocols, n.Protocol):
		return []l4{t}
	}
	rest := t
	rest.notProtocols = append(slices.Clip(t.notProtocols), n.Protocol)
	slices.Sort(rest.notProtocols)
	if whole {
		return []l4{rest}
	}
	t.protocol, t.notProtocols = n.Protocol, nil
	return append(t.without(n), rest)
}

// minus excludes the ports or messages of n from t, whose protocol they fit.
func (t l4) minus(n policy.Port) l4 {
	switch {
	case n.Message.Compare != policy.AnyMessage:
		if n.Protocol.HasMessages() {
			t.notMessages = append(slices.Clip(t.notMessages), n.Message)
		}
	case n.Name != "":
		t.dst.notNames = append(slices.Clip(t.dst.notNames), policy.PortName{Protocol: n.Protocol, Name: n.Name})
	case n.Protocol.HasPorts() && n.First <= n.Last:
		t.dst.ranges = subtract(t.dst.ranges, ir.PortRange{First: n.First, Last: n.Last})
	}
	return t
}

// combined returns the traffic that is in one of to, by its destination ports,
// and in one of from, of which the ports are meant as source ports.
func combined(to, from []l4) []l4 {
	var out []l4
	for _, t := range to {
		for _, f := range from {
			if c, ok := t.and(f); ok {
				out = append(out, c)
			}
		}
	}
	return out
}

// and returns the traffic of t that comes from the ports of f.
func (t l4) and(f l4) (l4, bool) {
	if t.protocol == policy.AnyProtocol {
		if slices.Contains(t.notProtocols, f.protocol) {
			return l4{}, false
		}
		t.protocol = f.protocol
	}
	if f.protocol != policy.AnyProtocol && f.protocol != t.protocol || slices.Contains(f.notProtocols, t.protocol) {
		return l4{}, false
	}
	if t.protocol == policy.AnyProtocol {
		t.notProtocols = slices.Concat(t.notProtocols, f.notProtocols)
		slices.Sort(t.notProtocols)
		t.notProtocols = slices.Compact(t.notProtocols)
	} else {
		t.notProtocols = nil
	}
	t.src = f.dst
	t.notMessages = slices.Concat(t.notMessages, f.notMessages)
	if t.message.Compare == policy.AnyMessage {
		t.message = f.message
	}
	return t, f.message.Compare == policy.AnyMessage || f.message == t.message
}

// subtract returns the ranges, all ports if nil, without x. It never returns
// nil: no ports at all are an empty list.
func subtract(ranges []ir.PortRange, x ir.PortRange) []ir.PortRange {
	if ranges == nil {
		ranges = []ir.PortRange{{First: 0, Last: 65535}}
	}
	out := []ir.PortRange{}
	for _, r := range ranges {
		if x.Last < r.First || x.First > r.Last {
			out = append(out, r)
			continue
		}
		if r.First < x.First {
			out = append(out, ir.PortRange{First: r.First, Last: x.First - 1})
		}
		if r.Last > x.Last {
			out = append(out, ir.PortRange{First: x.Last + 1, Last: r.Last})
		}
	}
	return out
}
