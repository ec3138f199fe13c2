package calc

import (
	"math/bits"
	"net/netip"
	"slices"

	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
	"github.com/koratnet/korat/policy/match"
	"github.com/koratnet/korat/policy/selector"
)

// thing is what selectors and address sets see of a pod, a network set, a host
// endpoint or a node. When that changes, another thing takes its place.
type thing struct {
	name      string // of its event
	namespace string // empty: it lives in none
	labels    selector.Labels
	ends
	row match.Row // in the index of its kind
	new bool      // since the last flush
	// one is the address of those that have one, and then addrs is it: sets are
	// filled from memory that is read anyway.
	one [1]netip.Addr
}

// ends are the addresses of a thing, and the ports that it serves there.
type ends struct {
	addrs []netip.Addr
	nets  []netip.Prefix
	ports []policy.NamedPort
}

// members visits what e adds to a set, a member as often as it is there.
func (e ends) members(set *policy.Set, visit func(ir.Member)) {
	if !set.HasPorts() {
		e.eachNet(func(net netip.Prefix) { visit(ir.Member{Prefix: net}) })
		return
	}
	service := set.Port == policy.PortName{} // all its ports
	for _, p := range e.ports {
		if service || p.Is(set.Port) {
			e.eachNet(func(net netip.Prefix) { visit(ir.Member{Prefix: net, Protocol: p.Protocol, Port: p.Port}) })
		}
	}
}

func (e ends) eachNet(visit func(netip.Prefix)) {
	for _, a := range e.addrs {
		visit(single(a))
	}
	for _, n := range e.nets {
		visit(n)
	}
}

func (t *thing) equal(o *thing) bool {
	return t.namespace == o.namespace && t.labels.Equal(o.labels) && slices.Equal(t.addrs, o.addrs) &&
		slices.Equal(t.nets, o.nets) && slices.Equal(t.ports, o.ports)
}

func networkSetThing(s *event.NetworkSet) *thing {
	if s == nil {
		return nil
	}
	return &thing{namespace: s.Namespace, labels: s.Labels, ends: ends{nets: s.Nets}}
}

func hostThing(h *event.HostEndpoint) *thing {
	if h == nil {
		return nil
	}
	return &thing{labels: h.Labels, ends: ends{addrs: h.Addrs, ports: h.Ports}}
}

func nodeThing(n *event.Node) *thing {
	if n == nil {
		return nil
	}
	return &thing{labels: n.Labels, ends: ends{addrs: slices.Concat(n.Addrs, n.Others)}}
}

// kindOf returns the kind of a network set.
func kindOf(s *event.NetworkSet) policy.Things {
	if s.Namespace == "" {
		return policy.GlobalNetworkSets
	}
	return policy.NetworkSets
}

// byKind holds a V for each kind of thing.
type byKind[V any] [len(policy.AllThings)]V

func (b *byKind[V]) of(kind policy.Things) *V { return &b[bits.TrailingZeros8(uint8(kind))] }
