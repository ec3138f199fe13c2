package calc_test

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/desired/desiredtest"
	"github.com/koratnet/korat/felix/event"
)

// remotes are all prefixes that may lead to other nodes.
func (o oracle) remotes() (out []netip.Prefix) {
	for _, l := range all[*event.Learned](o.state) {
		out = append(out, l.Prefix)
	}
	for _, b := range o.blocks() {
		if b.Owner.Node != o.node {
			out = append(out, b.CIDR)
		}
	}
	return append(out, o.closed()...)
}

// remote is the route to p through other nodes or routers, nil if there is none.
func (o oracle) remote(p netip.Prefix) *desired.Route {
	if o.mine(p) {
		return nil
	}
	if r, decided := o.encryptedRoute(p); decided {
		return r
	}
	var hops []netip.Addr
	var weights []uint8
	if l := all[*event.Learned](o.state)[p.String()]; l != nil && o.importable(p) {
		hops, weights = o.hops(l)
	}
	mode, pooled := o.mode(p)
	owner, covered := "", false
	for _, b := range o.blocks() {
		if b.Owner.Node != o.node && b.CIDR == p {
			owner = b.Owner.Node
		}
		covered = covered || b.Owner.Node != o.node && b.CIDR.Bits() <= p.Bits() && b.CIDR.Contains(p.Addr())
	}
	direct := &desired.Route{Prefix: p, Kind: desired.Via, NextHops: hops, Weights: weights}
	if len(hops) == 0 {
		direct = nil
	}
	viaOwner := func(m desired.Mode) *desired.Route {
		n := all[*event.Node](o.state)[owner]
		if n == nil || !first(n, p.Addr().Is4()).IsValid() || o.isSelf(first(n, p.Addr().Is4())) {
			return nil
		}
		return o.over(m, p, []netip.Addr{first(n, p.Addr().Is4())})
	}
	switch {
	case !pooled:
		return direct
	case mode.Encapsulation == desired.IPIP && len(hops) > 0 && !slices.ContainsFunc(hops, func(h netip.Addr) bool { return o.nodeAt(h) == "" }):
		return o.over(mode, p, hops)
	case mode.Encapsulation != desired.Plain && owner != "":
		return viaOwner(mode)
	case mode.Encapsulation != desired.Plain && covered:
		return nil
	case mode.Encapsulation == desired.Plain && owner != "" && len(hops) == 0 && len(o.speaker().Peers) == 0:
		return viaOwner(desired.Mode{CrossSubnet: true})
	}
	return direct
}

// over is the route over nodes with addresses hops.
func (o oracle) over(m desired.Mode, p netip.Prefix, hops []netip.Addr) *desired.Route {
	wrapped := 0
	for _, h := range hops {
		way := o.way(m, h)
		if m.Encapsulation == desired.Plain && way.Reason != desired.SameSubnet {
			return nil
		}
		if way.Encapsulation != desired.Plain {
			wrapped++
		}
	}
	if wrapped == 0 {
		return &desired.Route{Prefix: p, Kind: desired.Via, NextHops: hops}
	}
	kind, ok := desired.TunnelOf(m.Encapsulation, p.Addr().Is6())
	self := all[*event.Node](o.state)[o.node]
	if !ok || self == nil || !first(self, p.Addr().Is4()).IsValid() {
		return nil
	}
	r := &desired.Route{Prefix: p, Kind: desired.Tunneled, Interface: kind.Device()}
	for _, h := range hops {
		r.NextHops = append(r.NextHops, kind.Gateway(h, o.nodeAt(h)))
	}
	slices.SortFunc(r.NextHops, netip.Addr.Compare)
	return r
}

func (o oracle) way(m desired.Mode, a netip.Addr) desired.Way {
	r := all[*event.Reach](o.state)[a.String()]
	switch {
	case !m.CrossSubnet:
		return desired.Way{Encapsulation: m.Encapsulation, Reason: desired.Always}
	case r == nil:
		return desired.Way{Encapsulation: m.Encapsulation, Reason: desired.NoRoute}
	case !r.Source.Masked().Contains(a):
		return desired.Way{Encapsulation: m.Encapsulation, Reason: desired.OtherSubnet}
	case r.Gateway != netip.Addr{}:
		return desired.Way{Encapsulation: m.Encapsulation, Reason: desired.BehindGateway}
	}
	return desired.Way{Encapsulation: desired.Plain, Reason: desired.SameSubnet}
}

// nodeAt is the other node whose first address of its family is a.
func (o oracle) nodeAt(a netip.Addr) string {
	var names []string
	for name, n := range all[*event.Node](o.state) {
		if name != o.node && first(n, a.Is4()) == a && !o.isSelf(a) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return append(names, "")[0]
}

func (o oracle) isSelf(a netip.Addr) bool {
	self := all[*event.Node](o.state)[o.node]
	return self != nil && first(self, a.Is4()) == a
}

// poolAround is the narrowest pool around p.
func (o oracle) poolAround(p netip.Prefix) (around *event.Pool, pooled bool) {
	best, name := -1, ""
	for n, pool := range all[*event.Pool](o.state) {
		if bits := pool.CIDR.Bits(); bits <= p.Bits() && pool.CIDR.Contains(p.Addr()) && (bits > best || bits == best && n < name) {
			around, pooled, best, name = pool, true, bits, n
		}
	}
	return around, pooled
}

// mode is that of the pool of p.
func (o oracle) mode(p netip.Prefix) (m desired.Mode, pooled bool) {
	pool, pooled := o.poolAround(p)
	if pooled {
		m = pool.Modes.Sends
	}
	return m, pooled
}

// uplink is the narrowest way to another node in a family.
func (o oracle) uplink(v6 bool) int {
	var mtus []int
	for _, r := range all[*event.Reach](o.state) {
		for name, n := range all[*event.Node](o.state) {
			if name != o.node && first(n, r.Addr.Is4()) == r.Addr && r.Addr.Is6() == v6 {
				mtus = append(mtus, r.MTU)
			}
		}
	}
	return smallest(mtus)
}

func (o oracle) tunnels(w *desiredtest.World) {
	w.Tunnels, w.Peers, w.Ways = map[desired.TunnelKind]desired.TunnelDevice{}, map[desired.TunnelEnd]desired.TunnelPeer{}, map[string]desired.PoolWays{}
	w.MTU = desired.MTU{Uplink: smallest([]int{o.uplink(false), o.uplink(true)})}
	self := all[*event.Node](o.state)[o.node]
	for name, pool := range all[*event.Pool](o.state) {
		modes := []desired.Mode{pool.Modes.Sends, pool.Modes.Wanted, pool.Modes.Before}
		for _, m := range modes {
			kind, ok := desired.TunnelOf(m.Encapsulation, pool.CIDR.Addr().Is6())
			if !ok || self == nil || !first(self, !kind.Is6()).IsValid() {
				continue
			}
			d := desired.TunnelDevice{Kind: kind, Underlay: first(self, !kind.Is6()), MTU: max(0, o.uplink(kind.Is6())-kind.Overhead())}
			if kind.Encapsulation() == desired.VXLAN {
				d.MAC = kind.MACOf(o.node)
				o.ends(w, kind)
			}
			if a := all[*event.TunnelAddress](o.state)[kind.Device()]; a != nil {
				d.Addr = a.Addr
			}
			w.Tunnels[kind] = d
			w.MTU.Overhead = max(w.MTU.Overhead, kind.Overhead())
		}
		ways := desired.PoolWays{Sends: pool.Modes.Sends, Generation: pool.Modes.Generation}
		for _, m := range modes {
			if !slices.Contains(ways.Receives, m) {
				ways.Receives = append(ways.Receives, m)
			}
		}
		ways.Nodes = o.nodesByWay(pool)
		w.Ways[name] = ways
	}
	o.encrypted(w)
}

func (o oracle) nodesByWay(pool *event.Pool) map[desired.Way][]string {
	m := pool.Modes.Sends
	byBGP, encryption := m.Encapsulation == desired.Plain && len(o.speaker().Peers) > 0, o.asked().mode != event.Disabled || len(o.closed()) > 0
	if m.Encapsulation == desired.Plain {
		m = desired.Mode{CrossSubnet: true}
	}
	if byBGP && !encryption {
		return nil
	}
	out := map[desired.Way][]string{}
	for name, n := range all[*event.Node](o.state) {
		a := first(n, pool.CIDR.Addr().Is4())
		if name == o.node || !a.IsValid() {
			continue
		}
		way := o.way(m, a)
		switch {
		case o.encrypts(pool, name):
			way = desired.Way{Encapsulation: desired.WireGuard, Reason: desired.HasKey}
		case o.closes(pool):
			way = desired.Way{Encapsulation: desired.WireGuard, Reason: desired.NoKey}
		case byBGP:
			way = desired.Way{Reason: desired.NoKey}
		}
		out[way] = append(out[way], name)
	}
	for _, names := range out {
		slices.SortFunc(names, cmp.Compare[string])
	}
	return out
}

func (o oracle) ends(w *desiredtest.World, kind desired.TunnelKind) {
	for _, n := range all[*event.Node](o.state) {
		a := first(n, !kind.Is6())
		if name := o.nodeAt(a); a.IsValid() && name != "" {
			w.Peers[desired.TunnelEnd{Kind: kind, Gateway: kind.Gateway(a, name)}] = desired.TunnelPeer{Underlay: a, MAC: kind.MACOf(name)}
		}
	}
}

func smallest(of []int) int {
	least := 0
	for _, n := range of {
		if n > 0 && (least == 0 || n < least) {
			least = n
		}
	}
	return least
}
