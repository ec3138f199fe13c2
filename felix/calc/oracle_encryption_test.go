package calc_test

import (
	"net/netip"
	"slices"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/desired/desiredtest"
	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/ipam"
)

// encryption is what is asked for on this node.
type encryption struct {
	mode event.Encryption
	port map[bool]uint16 // by whether it is that of IPv6
}

// closed are the pools that never travel in clear.
func (o oracle) closed() (out []netip.Prefix) {
	for _, p := range all[*event.Pool](o.state) {
		if o.closes(p) {
			out = append(out, p.CIDR)
		}
	}
	return out
}

func (o oracle) closes(p *event.Pool) bool {
	onlyServices := p.Uses == ipam.LoadBalancer
	return p.Encrypted || !onlyServices && o.asked().mode == event.Required
}

func wireGuard(v6 bool) desired.TunnelKind {
	if v6 {
		return desired.WireGuard6
	}
	return desired.WireGuard4
}

// device is this node's own end, if it can have one and needs one.
func (o oracle) device(v6 bool) (d desired.TunnelDevice, ok bool) {
	self, key := all[*event.Node](o.state)[o.node], all[*event.TunnelKey](o.state)[wireGuard(v6).Device()]
	pooled := false
	for _, p := range all[*event.Pool](o.state) {
		pooled = pooled || p.CIDR.Addr().Is6() == v6
	}
	if self == nil || key == nil || !pooled || !first(self, !v6).IsValid() || o.asked().mode == event.Disabled && len(o.closed()) == 0 {
		return d, false
	}
	return desired.TunnelDevice{Kind: wireGuard(v6), Underlay: first(self, !v6), Key: key.Key, Port: o.asked().port[v6]}, true
}

// listener is the end of another node, as far as it is of use.
func (o oracle) listener(name string, v6 bool) (end event.WireGuardEnd, ok bool) {
	own, can := o.device(v6)
	n, network := all[*event.Node](o.state)[name], all[*event.NodeNetwork](o.state)[name]
	if !can || n == nil || network == nil || name == o.node || o.nodeAt(first(n, !v6)) != name {
		return end, false
	}
	for _, e := range network.WireGuard {
		if e.Kind == wireGuard(v6) && e.Key != own.Key && o.speaksFor(e.EncryptedEnd, name) {
			return e, true
		}
	}
	return end, false
}

// speaksFor: of several nodes with one key the first, and nobody with ours.
func (o oracle) speaksFor(end desired.EncryptedEnd, name string) bool {
	for other, network := range all[*event.NodeNetwork](o.state) {
		same := slices.ContainsFunc(network.WireGuard, func(e event.WireGuardEnd) bool { return e.EncryptedEnd == end })
		if same && (other == o.node || other < name && all[*event.Node](o.state)[other] != nil) {
			return false
		}
	}
	return true
}

// encrypts reports whether packets of pool p to node name are encrypted.
func (o oracle) encrypts(p *event.Pool, name string) bool {
	v6 := p.CIDR.Addr().Is6()
	if _, listens := o.listener(name, v6); !listens {
		return false
	}
	return o.keyAnnounced(v6) || o.closes(p)
}

func (o oracle) keyAnnounced(v6 bool) bool {
	self := all[*event.NodeNetwork](o.state)[o.node]
	return self != nil && slices.ContainsFunc(self.WireGuard, func(e event.WireGuardEnd) bool { return e.Kind == wireGuard(v6) })
}

// rules are those for packets of pools to nodes.
func (o oracle) rules() map[desired.Rule]struct{} {
	rules := map[desired.Rule]struct{}{}
	for _, p := range all[*event.Pool](o.state) {
		v6 := p.CIDR.Addr().Is6()
		if _, can := o.device(v6); can && (o.closes(p) || o.asked().mode != event.Disabled && o.keyAnnounced(v6)) {
			rules[desired.Rule{Priority: 11210, From: p.CIDR, Table: 11210}] = struct{}{}
		}
	}
	return rules
}

// encrypted writes this node's ends, and those of others.
func (o oracle) encrypted(w *desiredtest.World) {
	w.Encrypted, w.Rules = map[desired.EncryptedEnd]desired.EncryptedPeer{}, o.rules()
	for _, v6 := range []bool{false, true} {
		if d, ok := o.device(v6); ok {
			if a := all[*event.TunnelAddress](o.state)[d.Kind.Device()]; a != nil {
				d.Addr = a.Addr
			}
			d.MTU = max(0, o.uplink(v6)-d.Kind.Overhead())
			w.Tunnels[d.Kind] = d
			w.MTU.Overhead = max(w.MTU.Overhead, d.Kind.Overhead())
		}
		for name, n := range all[*event.Node](o.state) {
			e, ok := o.listener(name, v6)
			if !ok {
				continue
			}
			at := first(n, !v6)
			peer := desired.EncryptedPeer{Endpoint: netip.AddrPortFrom(at, e.Port), Prefixes: []netip.Prefix{netip.PrefixFrom(at, at.BitLen())}}
			for _, b := range o.blocks() {
				if b.Owner.Node == name && b.CIDR.Addr().Is6() == v6 {
					peer.Prefixes = append(peer.Prefixes, b.CIDR)
				}
			}
			slices.SortFunc(peer.Prefixes, netip.Prefix.Compare)
			peer.Prefixes = slices.Compact(peer.Prefixes)
			w.Encrypted[e.EncryptedEnd] = peer
		}
	}
}

// encryptedRoute is the route to p as encryption has it.
func (o oracle) encryptedRoute(p netip.Prefix) (r *desired.Route, decided bool) {
	pool, pooled := o.poolAround(p)
	if !pooled {
		return nil, false
	}
	owner, block := "", netip.Prefix{}
	for _, b := range o.blocks() {
		if b.Owner.Node != o.node && b.CIDR.Bits() <= p.Bits() && b.CIDR.Contains(p.Addr()) && (owner == "" || b.CIDR.Bits() > block.Bits()) {
			owner, block = b.Owner.Node, b.CIDR
		}
	}
	encrypted := owner != "" && o.encrypts(pool, owner)
	switch {
	case encrypted && p == block:
		return &desired.Route{Prefix: p, Kind: desired.Tunneled, Interface: wireGuard(p.Addr().Is6()).Device()}, true
	case encrypted:
		return nil, true
	case o.closes(pool) && (p == block || p == pool.CIDR):
		return &desired.Route{Prefix: p, Kind: desired.Unreachable}, true
	}
	return nil, o.closes(pool)
}
