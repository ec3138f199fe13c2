package calc

import (
	"net/netip"
	"slices"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/event"
)

// routes decides for every prefix which single route the kernel gets. Several
// may want the same one; the first of these wins:
//
//  1. the address of a local pod: out of its veth;
//  2. a floating address that leads to a local pod: out of its veth. What goes
//     there is translated before it is routed, but for what the node sends itself;
//  3. a block that this node owns: unreachable, so that packets to addresses
//     nobody holds end here instead of circling between us and the neighbour
//     that learned the block from us. A block of a single address has no such
//     route: it would stand in the pod's place;
//  4. a neighbour that a BGPPeer says to be behind a gateway: through that;
//  5. what neighbours announce, as long as it is learnable and not in an own
//     block: nobody else speaks for our addresses, and no neighbour can take
//     the node's other routes, its default route above all. A part of an own
//     block that was given to another node is that node's to speak for. Where
//     packets travel in tunnels, or the node speaks no BGP, the stage before
//     this one decides, also without that neighbours announce anything.
type routes struct {
	self  []netip.Addr // addresses of this node
	dirty map[netip.Prefix]struct{}
	said  said[netip.Prefix, desired.Route]
}

func newRoutes() routes {
	return routes{dirty: map[netip.Prefix]struct{}{}, said: newSaid[netip.Prefix](sameRoute)}
}

func (r *routes) drain(in *inputs, learnable *learnable, blocks *blocks, holders *holders, floats *floats, tunnels *tunnels, speaker *speaker) {
	for a := range holders.changed {
		r.mark(single(a))
	}
	for a := range floats.changed {
		r.mark(single(a))
	}
	for p := range blocks.changed {
		r.mark(p)
	}
	for _, was := range in.learned.was {
		if was != nil {
			r.mark(was.Prefix)
		}
	}
	for name := range in.learned.was {
		if is := in.learned.now[name]; is != nil {
			r.mark(is.Prefix)
		}
	}
	for p := range learnable.advertised.changed {
		r.mark(p)
	}
	if r.moved(in, blocks.node) || learnable.changed || len(blocks.changed) > 0 {
		// Whole, because what is acceptable changed: that is when an operator edits
		// a pool, the node claims a block (once in 64 pods) or changes its address.
		for _, l := range in.learned.now {
			r.mark(l.Prefix)
		}
	}
	for p := range tunnels.dirty {
		r.mark(p)
	}
	for p := range speaker.moved {
		r.mark(p)
	}
	for p := range r.dirty {
		r.said.say(p, r.want(p, in, learnable, blocks, holders, floats, tunnels, speaker))
	}
}

func (r *routes) mark(p netip.Prefix) { r.dirty[p] = struct{}{} }

// moved reports whether the node's own addresses changed, and remembers them.
func (r *routes) moved(in *inputs, node string) bool {
	var self []netip.Addr
	if n := in.nodes.now[node]; n != nil {
		self = n.Addrs
	}
	same := slices.Equal(self, r.self)
	r.self = self
	return !same
}

// want returns the route to p, or nil.
func (r *routes) want(p netip.Prefix, in *inputs, learnable *learnable, blocks *blocks, holders *holders, floats *floats, tunnels *tunnels, speaker *speaker) *desired.Route {
	if p.IsSingleIP() {
		if iface, held := holders.winner(p.Addr()); held {
			return &desired.Route{Prefix: p, Kind: desired.Local, Interface: iface}
		}
		if iface := floats.leads[p.Addr()]; iface != "" {
			return &desired.Route{Prefix: p, Kind: desired.Local, Interface: iface}
		}
	}
	if blocks.mine(p) {
		if blocks.own.has(p) && !p.IsSingleIP() {
			return &desired.Route{Prefix: p, Kind: desired.Unreachable}
		}
		return nil
	}
	if gateway := speaker.gateways[p]; gateway.IsValid() {
		return &desired.Route{Prefix: p, Kind: desired.Via, NextHops: []netip.Addr{gateway}}
	}
	var hops []netip.Addr
	var weights []uint8
	if l := in.learned.now[p.String()]; l != nil && learnable.has(p) {
		hops, weights = r.hops(l)
	}
	if route, decided := tunnels.route(p, hops, in, blocks); decided {
		return route
	}
	if len(hops) > 0 {
		return &desired.Route{Prefix: p, Kind: desired.Via, NextHops: hops, Weights: weights}
	}
	return nil
}

// hops returns the next hops but this node itself, and their weights: a neighbour
// may still say what it once heard from us, and the kernel refuses a gateway of
// its own.
func (r *routes) hops(l *event.Learned) (hops []netip.Addr, weights []uint8) {
	for i, h := range l.NextHops {
		if slices.Contains(r.self, h) {
			continue
		}
		at, twice := slices.BinarySearchFunc(hops, h, netip.Addr.Compare)
		if twice {
			continue
		}
		hops = slices.Insert(hops, at, h)
		if l.Weights != nil {
			weights = slices.Insert(weights, at, l.Weights[i])
		}
	}
	return hops, weights
}

func (r *routes) settle() { forget(&r.dirty) }

func sameRoute(a, b *desired.Route) bool {
	return a.Prefix == b.Prefix && a.Kind == b.Kind && a.Interface == b.Interface && slices.Equal(a.NextHops, b.NextHops) && slices.Equal(a.Weights, b.Weights)
}
