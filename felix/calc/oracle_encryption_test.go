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
	port map[desired.TunnelKind]uint16
	two  bool // ends in each family
	// hosts: what nodes send each other is encrypted too.
	hosts bool
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

// wireGuard are the kinds of a family, of which the first has the address for all.
func wireGuard(v6 bool) []desired.TunnelKind {
	if v6 {
		return []desired.TunnelKind{desired.WireGuard6, desired.WireGuard6Odd}
	}
	return []desired.TunnelKind{desired.WireGuard4, desired.WireGuard4Odd}
}

// device is this node's own end, if it can have one and needs one.
func (o oracle) device(kind desired.TunnelKind) (d desired.TunnelDevice, ok bool) {
	v6 := kind.Is6()
	if kind == wireGuard(v6)[1] && !o.asked().two {
		return d, false
	}
	self, key := all[*event.Node](o.state)[o.node], all[*event.TunnelKey](o.state)[kind.Device()]
	pooled := false
	for _, p := range all[*event.Pool](o.state) {
		pooled = pooled || p.CIDR.Addr().Is6() == v6
	}
	if self == nil || key == nil || !pooled || !first(self, !v6).IsValid() || o.asked().mode == event.Disabled && len(o.closed()) == 0 {
		return d, false
	}
	return desired.TunnelDevice{Kind: kind, Underlay: first(self, !v6), Key: key.Key, Port: o.asked().port[kind]}, true
}

// listener is the end of another node, as far as it is of use.
func (o oracle) listener(name string, kind desired.TunnelKind) (end event.WireGuardEnd, ok bool) {
	v6 := kind.Is6()
	own, can := o.device(kind)
	n, network := all[*event.Node](o.state)[name], all[*event.NodeNetwork](o.state)[name]
	if !can || n == nil || network == nil || name == o.node || o.nodeAt(first(n, !v6)) != name {
		return end, false
	}
	for _, e := range network.WireGuard {
		if e.Kind == kind && e.Key != own.Key && o.speaksFor(e.EncryptedEnd, name) {
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
	if _, listens := o.through(name, v6); !listens {
		return false
	}
	return o.keyAnnounced(v6) || o.closes(p)
}

func (o oracle) keyAnnounced(v6 bool) bool {
	self := all[*event.NodeNetwork](o.state)[o.node]
	return self != nil && slices.ContainsFunc(self.WireGuard, func(e event.WireGuardEnd) bool { return e.Kind.Is6() == v6 })
}

// through is the end of another node that packets take: of two that whose turn it is,
// but where only the other is known to work.
func (o oracle) through(name string, v6 bool) (kind desired.TunnelKind, listens bool) {
	turn := &event.Turn{}
	for _, t := range all[*event.Turn](o.state) {
		turn = t
	}
	kinds := slices.Clone(wireGuard(v6))
	if turn.Odd {
		slices.Reverse(kinds)
	}
	for _, works := range []bool{true, false} {
		for _, kind := range kinds {
			e, ok := o.listener(name, kind)
			if _, lives := turn.Live[e.EncryptedEnd]; ok && (lives || !works) {
				return kind, true
			}
		}
	}
	return 0, false
}

// rules are those for packets of pools to nodes.
func (o oracle) rules() map[desired.Rule]struct{} {
	rules := map[desired.Rule]struct{}{}
	for _, p := range all[*event.Pool](o.state) {
		v6 := p.CIDR.Addr().Is6()
		if _, can := o.device(wireGuard(v6)[0]); can && (o.closes(p) || o.asked().mode != event.Disabled && o.keyAnnounced(v6)) {
			rules[desired.Rule{Priority: 11210, From: p.CIDR, Table: 11210}] = struct{}{}
		}
	}
	for _, v6 := range []bool{false, true} {
		if d, can := o.device(wireGuard(v6)[0]); can && o.asked().hosts {
			for _, r := range o.hostRules(d.Underlay) {
				rules[r] = struct{}{}
			}
		}
	}
	return rules
}

// hostRules are those for what the node itself sends, as `ip rule` would be told.
func (o oracle) hostRules(self netip.Addr) (rules []desired.Rule) {
	v6, zero := self.Is6(), netip.MustParsePrefix("0.0.0.0/0")
	if v6 {
		zero = netip.MustParsePrefix("::/0")
	}
	tell := func(r desired.Rule) {
		if !r.From.IsValid() {
			r.From = zero
		}
		r.Local = true
		rules = append(rules, r)
	}
	speaker := uint16(179)
	if c := all[*event.BGP](o.state)["default"]; c != nil && c.ListenPort != 0 {
		speaker = c.ListenPort
	}
	for _, kind := range wireGuard(v6) {
		tell(desired.Rule{Priority: 11211, Protocol: 17, SourcePort: o.asked().port[kind], Goto: 11215})
	}
	for _, port := range []uint16{4789, 3784, 3785, 4784} {
		tell(desired.Rule{Priority: 11211, Protocol: 17, DestinationPort: port, Goto: 11215})
	}
	tell(desired.Rule{Priority: 11211, Protocol: 6, SourcePort: speaker, Goto: 11215})
	tell(desired.Rule{Priority: 11211, Protocol: 6, DestinationPort: speaker, Goto: 11215})
	tell(desired.Rule{Priority: 11211, Mark: 0x6b000000, Goto: 11215})
	tell(desired.Rule{Priority: 11212, From: netip.PrefixFrom(self, self.BitLen()), Table: 11211})
	if v6 {
		tell(desired.Rule{Priority: 11213, From: netip.MustParsePrefix("::/1"), Goto: 11215})
		tell(desired.Rule{Priority: 11213, From: netip.MustParsePrefix("8000::/1"), Goto: 11215})
		tell(desired.Rule{Priority: 11214, Table: 11211})
	} else {
		tell(desired.Rule{Priority: 11211, Protocol: 4, Goto: 11215})
		tell(desired.Rule{Priority: 11214, From: netip.MustParsePrefix("0.0.0.0/32"), Table: 11211})
	}
	tell(desired.Rule{Priority: 11215})
	return rules
}

// encrypted writes this node's ends, and those of others.
func (o oracle) encrypted(w *desiredtest.World) {
	w.Encrypted, w.Rules = map[desired.EncryptedEnd]desired.EncryptedPeer{}, o.rules()
	for _, kind := range slices.Concat(wireGuard(false), wireGuard(true)) {
		v6 := kind.Is6()
		if d, ok := o.device(kind); ok {
			if a := all[*event.TunnelAddress](o.state)[wireGuard(v6)[0].Device()]; a != nil {
				d.Addr = a.Addr
			}
			d.MTU = max(0, o.uplink(v6)-d.Kind.Overhead())
			w.Tunnels[d.Kind] = d
			w.MTU.Overhead = max(w.MTU.Overhead, d.Kind.Overhead())
		}
		for name, n := range all[*event.Node](o.state) {
			e, ok := o.listener(name, kind)
			if !ok {
				continue
			}
			at := first(n, !v6)
			used, _ := o.through(name, v6)
			peer := desired.EncryptedPeer{Idle: used != kind, Endpoint: netip.AddrPortFrom(at, e.Port), Prefixes: []netip.Prefix{netip.PrefixFrom(at, at.BitLen())}}
			for _, b := range o.blocks() {
				if b.Owner.Node == name && b.CIDR.Addr().Is6() == v6 {
					peer.Prefixes = append(peer.Prefixes, b.CIDR)
				}
			}
			for _, turn := range all[*event.Turn](o.state) {
				_, lives := turn.Live[e.EncryptedEnd]
				peer.Host = lives && used == kind && turn.Hosts && o.asked().hosts
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
		kind, _ := o.through(owner, p.Addr().Is6())
		return &desired.Route{Prefix: p, Kind: desired.Tunneled, Interface: kind.Device()}, true
	case encrypted:
		return nil, true
	case o.closes(pool) && (p == block || p == pool.CIDR):
		return &desired.Route{Prefix: p, Kind: desired.Closed}, true
	}
	return nil, o.closes(pool)
}
