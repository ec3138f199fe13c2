package calc

import (
	"net/netip"
	"slices"

	"github.com/koratnet/korat/felix/desired"
)

// route returns the route to p, of which neighbours taught hops, if it is this
// stage that decides; the route may be nil.
func (t *tunnels) route(p netip.Prefix, hops []netip.Addr, in *inputs, blocks *blocks) (r *desired.Route, decided bool) {
	pool := t.poolOf(p)
	if pool == nil {
		return nil, false
	}
	if r, decided := t.encryptedRoute(pool, p, in, blocks); decided {
		return r, true
	}
	mode := pool.modes.Sends
	owner, owned := blocks.owner[p]
	switch {
	case mode.Encapsulation == desired.IPIP && t.nodes(hops):
		return t.through(mode, p, hops, in), true
	case mode.Encapsulation != desired.Plain && !owned:
		return nil, blocks.others.contains(p) // no router speaks for a part of a node's block
	case mode.Encapsulation == desired.Plain && (!t.silent || len(hops) > 0):
		return nil, false
	case mode.Encapsulation == desired.Plain && owned:
		return t.toNode(besideBGP, p, owner, in), true
	case owned:
		return t.toNode(mode, p, owner, in), true
	}
	return nil, false
}

// nodes reports whether all hops are addresses of nodes: a router takes nothing
// out of a tunnel.
func (t *tunnels) nodes(hops []netip.Addr) bool {
	return len(hops) > 0 && !slices.ContainsFunc(hops, func(h netip.Addr) bool {
		_, held := t.holder(h)
		return !held
	})
}

// toNode returns the route through the node that owns p, nil while its address is
// not known.
func (t *tunnels) toNode(mode desired.Mode, p netip.Prefix, owner string, in *inputs) *desired.Route {
	n := in.nodes.now[owner]
	if n == nil {
		return nil
	}
	a := addrOf(n, p.Addr().Is4())
	if !a.IsValid() || slices.Contains(t.self[:], a) {
		return nil
	}
	return t.through(mode, p, []netip.Addr{a}, in)
}

// through returns the route to p over nodes that have the addresses hops. If one
// of them needs a tunnel all get it: every node takes what comes through one.
func (t *tunnels) through(mode desired.Mode, p netip.Prefix, hops []netip.Addr, in *inputs) *desired.Route {
	plain := true
	for _, h := range hops {
		way := wayTo(mode, in.reach.now[h.String()])
		plain = plain && way.Encapsulation == desired.Plain
		if mode == besideBGP && way.Reason != desired.SameSubnet {
			return nil
		}
	}
	if plain {
		return &desired.Route{Prefix: p, Kind: desired.Via, NextHops: hops}
	}
	kind, can := t.kindOf(mode.Encapsulation, p.Addr().Is6())
	if !can {
		return nil
	}
	r := &desired.Route{Prefix: p, Kind: desired.Tunneled, Interface: kind.Device()}
	for _, h := range hops {
		name, _ := t.holder(h)
		r.NextHops = append(r.NextHops, kind.Gateway(h, name))
	}
	slices.SortFunc(r.NextHops, netip.Addr.Compare)
	return r
}

// sayPeers tells of the ends of nodes with these addresses. What goes is settled
// before what comes: two nodes may have changed places.
func (t *tunnels) sayPeers(addrs map[netip.Addr]struct{}) {
	news := map[desired.TunnelEnd]*desired.TunnelPeer{}
	for a := range addrs {
		if end, told := t.told[a]; told {
			news[end] = nil
			delete(t.told, a)
		}
	}
	for a := range addrs {
		name, held := t.holder(a)
		kind, can := t.kindOf(desired.VXLAN, a.Is6())
		if held && can && t.uses(kind) {
			end := desired.TunnelEnd{Kind: kind, Gateway: kind.Gateway(a, name)}
			news[end] = &desired.TunnelPeer{Underlay: a, MAC: kind.MACOf(name)}
			t.told[a] = end
		}
	}
	for end, p := range news {
		t.ends.say(end, p)
	}
}

// uses reports whether packets of a pool may come or go through kind.
func (t *tunnels) uses(kind desired.TunnelKind) bool {
	if _, can := t.kindOf(kind.Encapsulation(), kind.Is6()); !can || kind.Odd() && !t.encryption.ways.rotates {
		return false
	}
	if kind.Encapsulation() == desired.WireGuard {
		pooled := func(p poolMode) bool { return p.cidr.Addr().Is6() == kind.Is6() }
		return t.keyed && t.own[kind] != (desired.Key{}) && slices.ContainsFunc(t.pools, pooled)
	}
	for _, pool := range t.pools {
		for _, m := range pool.taken() {
			if m.Encapsulation == kind.Encapsulation() && pool.cidr.Addr().Is6() == kind.Is6() {
				return true
			}
		}
	}
	return false
}

// sayDevices tells of this node's own ends, and what MTU they leave to pods. It
// walks all nodes that are reached, whose links are not many.
func (t *tunnels) sayDevices(in *inputs) {
	mtu := desired.MTU{}
	var uplink [2]int
	for _, r := range in.reach.now {
		f := 0
		if r.Addr.Is6() {
			f = 1
		}
		if r.MTU > 0 && len(t.claims[r.Addr]) > 0 {
			uplink[f], mtu.Uplink = least(uplink[f], r.MTU), least(mtu.Uplink, r.MTU)
		}
	}
	for _, kind := range desired.TunnelKinds {
		if !t.uses(kind) {
			t.devices.say(kind, nil)
			continue
		}
		d := desired.TunnelDevice{Kind: kind, Underlay: t.self[0]}
		around := uplink[0]
		if kind.Is6() {
			d.Underlay, around = t.self[1], uplink[1]
		}
		switch kind.Encapsulation() {
		case desired.VXLAN:
			d.MAC = kind.MACOf(t.node)
		case desired.WireGuard:
			d.Key, d.Port = t.own[kind], t.encryption.ways.port[kind]
		}
		if around > 0 {
			d.MTU = around - kind.Overhead()
		}
		first, _ := desired.TunnelOf(kind.Encapsulation(), kind.Is6())
		if a := in.tunnelAddrs.now[first.Device()]; a != nil {
			d.Addr = a.Addr // the same in both ends of WireGuard: what is under way does not see which
		}
		t.devices.say(kind, &d)
		mtu.Overhead = max(mtu.Overhead, kind.Overhead())
	}
	t.mtu.say(mtu)
}

func least(a, b int) int {
	if a == 0 {
		return b
	}
	return min(a, b)
}
