package calc_test

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/desired/desiredtest"
	"github.com/koratnet/korat/felix/event"
)

// route writes routes in rising rank: a later one takes the place of an earlier.
func (o oracle) route(w *desiredtest.World) {
	for _, p := range o.remotes() {
		if r := o.remote(p); r != nil {
			w.Routes[p] = *r
		}
	}
	o.speak(w)
	o.paths(w)
	for _, b := range all[*event.Block](o.state) {
		if b.Owner.Node != o.node {
			continue
		}
		if !b.CIDR.IsSingleIP() {
			w.Routes[b.CIDR] = desired.Route{Prefix: b.CIDR, Kind: desired.Unreachable}
		}
	}
	for a, iface := range o.floating() {
		p := netip.PrefixFrom(a, a.BitLen())
		w.Routes[p] = desired.Route{Prefix: p, Kind: desired.Local, Interface: iface}
	}
	for _, ep := range all[*event.Endpoint](o.state) {
		for _, a := range ep.Addrs {
			p := netip.PrefixFrom(a, a.BitLen())
			w.Routes[p] = desired.Route{Prefix: p, Kind: desired.Local, Interface: o.holder(a)}
		}
	}
}

// mine reports whether this node speaks for p.
func (o oracle) mine(p netip.Prefix) bool {
	// The narrowest block around p says whose it is; of two, one that is ours.
	mine, narrowest := false, -1
	for _, b := range o.blocks() {
		ours := b.Owner.Node == o.node
		if bits := b.CIDR.Bits(); bits <= p.Bits() && b.CIDR.Contains(p.Addr()) && (bits > narrowest || bits == narrowest && ours) {
			mine, narrowest = ours, bits
		}
	}
	return mine
}

func (o oracle) importable(p netip.Prefix) bool {
	inside := func(outer netip.Prefix) bool { return outer.Bits() <= p.Bits() && outer.Contains(p.Addr()) }
	if o.mine(p) || o.announced(p) {
		return false
	}
	if cluster := all[*event.BGP](o.state)["default"]; cluster != nil {
		if slices.ContainsFunc(cluster.Learn, func(net netip.Prefix) bool { return net == p || net.Bits() > 0 && inside(net) }) {
			return true
		}
	}
	if slices.ContainsFunc(o.serviceNets(), inside) {
		return true
	}
	for _, pool := range all[*event.Pool](o.state) {
		if inside(pool.CIDR) {
			return true
		}
	}
	return false
}

// hops: of a next hop that is named twice the first weight counts.
func (o oracle) hops(l *event.Learned) (hops []netip.Addr, weights []uint8) {
	self := all[*event.Node](o.state)[o.node]
	by := map[netip.Addr]uint8{}
	for i, h := range l.NextHops {
		if _, twice := by[h]; !twice && (self == nil || !slices.Contains(self.Addrs, h)) {
			if by[h] = 0; l.Weights != nil {
				by[h] = l.Weights[i]
			}
		}
	}
	for _, h := range slices.SortedFunc(maps.Keys(by), netip.Addr.Compare) {
		if hops = append(hops, h); l.Weights != nil {
			weights = append(weights, by[h])
		}
	}
	return hops, weights
}
