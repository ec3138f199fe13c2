package calc

import (
	"net/netip"
	"slices"

	"github.com/koratnet/korat/felix/desired"
)

// routes decides for every prefix which single route the kernel gets. Several
// may want the same one; the first of these wins:
//
//  1. the address of a local pod: out of its veth;
//  2. a block that this node owns: unreachable, so that packets to addresses
//     nobody holds end here instead of circling between us and the neighbour
//     that learned the block from us. A block of a single address has no such
//     route: it would stand in the pod's place;
//  3. what neighbours announce, as long as it lies in a pool and not in an own
//     block: nobody else speaks for our addresses, and no neighbour can take
//     the node's other routes, its default route above all. A part of an own
//     block that was given to another node is that node's to speak for.
type routes struct {
	self  []netip.Addr // addresses of this node
	dirty map[netip.Prefix]struct{}
	said  said[netip.Prefix, desired.Route]
}

func newRoutes() routes {
	return routes{dirty: map[netip.Prefix]struct{}{}, said: newSaid[netip.Prefix](sameRoute)}
}

func (r *routes) drain(in *inputs, pools *pools, blocks *blocks, holders *holders) {
	for a := range holders.changed {
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
	if r.moved(in, blocks.node) || pools.changed || len(blocks.changed) > 0 {
		// Whole, because what is acceptable changed: that is when an operator edits
		// a pool, the node claims a block (once in 64 pods) or changes its address.
		for _, l := range in.learned.now {
			r.mark(l.Prefix)
		}
	}
	for p := range r.dirty {
		r.said.say(p, r.want(p, in, pools, blocks, holders))
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
func (r *routes) want(p netip.Prefix, in *inputs, pools *pools, blocks *blocks, holders *holders) *desired.Route {
	if p.IsSingleIP() {
		if iface, held := holders.winner(p.Addr()); held {
			return &desired.Route{Prefix: p, Kind: desired.Local, Interface: iface}
		}
	}
	if blocks.mine(p) {
		if blocks.own.has(p) && !p.IsSingleIP() {
			return &desired.Route{Prefix: p, Kind: desired.Unreachable}
		}
		return nil
	}
	l := in.learned.now[p.String()]
	if l == nil || !pools.cover.contains(p) {
		return nil
	}
	if hops := r.hops(l.NextHops); len(hops) > 0 {
		return &desired.Route{Prefix: p, Kind: desired.Via, NextHops: hops}
	}
	return nil
}

// hops returns the next hops but this node itself: a neighbour may still say
// what it once heard from us, and the kernel refuses a gateway of its own.
func (r *routes) hops(all []netip.Addr) []netip.Addr {
	hops := make([]netip.Addr, 0, len(all))
	for _, h := range all {
		if !slices.Contains(r.self, h) {
			hops = append(hops, h)
		}
	}
	slices.SortFunc(hops, netip.Addr.Compare)
	return slices.Compact(hops)
}

func (r *routes) settle() { forget(&r.dirty) }

func sameRoute(a, b *desired.Route) bool {
	return a.Prefix == b.Prefix && a.Kind == b.Kind && a.Interface == b.Interface && slices.Equal(a.NextHops, b.NextHops)
}
