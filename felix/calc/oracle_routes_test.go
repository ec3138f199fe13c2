package calc_test

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"github.com/koratnet/korat/bgp"
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
	for _, b := range all[*event.Block](o.state) {
		if b.Owner.Node != o.node {
			continue
		}
		w.Paths[desired.PathKey{Prefix: b.CIDR, Kind: bgp.Blocks}] = bgp.Path{Prefix: b.CIDR, Kind: bgp.Blocks}
		if !b.CIDR.IsSingleIP() {
			w.Routes[b.CIDR] = desired.Route{Prefix: b.CIDR, Kind: desired.Unreachable}
		}
	}
	for _, ep := range all[*event.Endpoint](o.state) {
		for _, a := range ep.Addrs {
			p := netip.PrefixFrom(a, a.BitLen())
			w.Routes[p] = desired.Route{Prefix: p, Kind: desired.Local, Interface: o.holder(a)}
			w.Paths[desired.PathKey{Prefix: p, Kind: bgp.Hosts}] = bgp.Path{Prefix: p, Kind: bgp.Hosts}
		}
	}
}

// mine reports whether this node speaks for p.
func (o oracle) mine(p netip.Prefix) bool {
	// The narrowest block around p says whose it is; of two, one that is ours.
	mine, narrowest := false, -1
	for _, b := range all[*event.Block](o.state) {
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

func (o oracle) speaker() bgp.Config {
	nodes := all[*event.Node](o.state)
	self, cluster := nodes[o.node], all[*event.BGP](o.state)["default"]
	if self == nil || cluster == nil {
		return bgp.Config{}
	}
	c := bgp.Config{
		ASN: o.asn(o.node, cluster), ListenPort: cluster.ListenPort, RestartTime: cluster.RestartTime,
		RouterID: netip.MustParseAddr("105.46.42.167"), // of a node "me" without IPv4
	}
	if a := first(self, true); a.IsValid() {
		c.RouterID = a
	}
	var candidates []bgp.Peer // the first of an address is the one
	for name, p := range all[*event.Peer](o.state) {
		if local := first(self, p.Addr.Is4()); p.Nodes.Matches(self.Labels) && local.IsValid() {
			candidates = append(candidates, bgp.Peer{
				Name: "bgppeer/" + name, Addr: p.Addr, Port: p.Port, ASN: p.ASN,
				LocalAddr: local, Hold: p.Hold, Keepalive: p.Keepalive, Advertise: p.Advertise,
			})
		}
	}
	for name, n := range nodes {
		for _, v4 := range []bool{true, false} {
			local, remote := first(self, v4), first(n, v4)
			if cluster.Mesh && o.asn(name, cluster) == c.ASN && local.IsValid() && remote.IsValid() {
				candidates = append(candidates, bgp.Peer{
					Name: "nodenetwork/" + name, Addr: remote, Port: c.ListenPort, ASN: c.ASN,
					LocalAddr: local, Hold: bgp.MeshHold, Keepalive: bgp.MeshKeepalive,
					Advertise: bgp.Blocks, Passive: local.Compare(remote) > 0,
				})
			}
		}
	}
	slices.SortFunc(candidates, func(a, b bgp.Peer) int { // "bgppeer" < "nodenetwork"
		return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Name, b.Name))
	})
	candidates = slices.CompactFunc(candidates, func(a, b bgp.Peer) bool { return a.Addr == b.Addr })
	for _, p := range candidates {
		if !slices.Contains(self.Addrs, p.Addr) {
			c.Peers = append(c.Peers, p)
		}
	}
	return c
}

func (o oracle) asn(node string, cluster *event.BGP) uint32 {
	if n := all[*event.NodeNetwork](o.state)[node]; n != nil && n.ASN != 0 {
		return n.ASN
	}
	return cluster.ASN
}

func first(n *event.Node, v4 bool) netip.Addr {
	for _, a := range n.Addrs {
		if a.Is4() == v4 {
			return a
		}
	}
	return netip.Addr{}
}
