package calc_test

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/desired/desiredtest"
	"github.com/koratnet/korat/felix/event"
)

// wish is a session as somebody wants it, with what he does not have.
type wish struct {
	rank     int // of two with one end the lower one counts
	peer     bgp.Peer
	gateway  netip.Addr
	password *event.SecretKey
	missing  []string
}

func (o oracle) speaker() bgp.Config {
	w := desiredtest.World{Routes: map[netip.Prefix]desired.Route{}}
	o.speak(&w)
	return w.Speaker
}

// speak collects all wishes of all objects, and grants one for each end.
func (o oracle) speak(w *desiredtest.World) {
	nodes := all[*event.Node](o.state)
	self, cluster := nodes[o.node], all[*event.BGP](o.state)["default"]
	if self == nil || cluster == nil {
		return
	}
	c := bgp.Config{
		ASN: o.asn(o.node, cluster), ListenPort: cluster.ListenPort, RestartTime: cluster.RestartTime, LongLived: cluster.LongLived,
		RouterID: netip.MustParseAddr("105.46.42.167"), // of a node "me" without IPv4
		Draining: self.Draining || self.Cordoned && cluster.DrainCordoned,
	}
	if a := first(self, true); a.IsValid() {
		c.RouterID = a
	}
	if o.reflects(o.node, o.node) {
		c.ClusterID = o.group(o.node)
	}
	var wishes []wish
	for name, p := range all[*event.Peer](o.state) {
		wishes = append(wishes, o.wishesOf(name, p, self)...)
	}
	for name, n := range nodes {
		if o.twin(self, n) == nil && name != o.node && o.asn(name, cluster) == c.ASN && o.linked(o.node, name) {
			told := bgp.Blocks
			if o.reflector(name) || o.reflector(o.node) {
				told |= bgp.Services
			}
			wishes = append(wishes, o.toNode(wish{rank: 1, password: cluster.Password, peer: bgp.Peer{
				Name: "nodenetwork/" + name, Hold: bgp.MeshHold, Keepalive: bgp.MeshKeepalive, Advertise: told,
			}}, self, n)...)
		}
		for _, a := range o.twin(self, n) {
			w.Closed = append(w.Closed, bgp.Session{
				Peer: "nodenetwork/" + name, Addr: a, ASN: o.asn(name, cluster), State: "Idle",
				LastError: fmt.Sprintf("node %s has the address %s of this node, expected one of its own", name, a),
			})
		}
	}
	o.grant(&c, w, wishes)
	w.Speaker = c
}

// twin returns the addresses that n shares with self.
func (o oracle) twin(self, n *event.Node) (shared []netip.Addr) {
	for _, a := range n.Addrs {
		if n.Name != self.Name && slices.Contains(self.Addrs, a) {
			shared = append(shared, a)
		}
	}
	return shared
}

func (o oracle) wishesOf(name string, p *event.Peer, self *event.Node) (wishes []wish) {
	x := wish{peer: p.Session, password: p.Password}
	x.peer.Name = "bgppeer/" + name
	for i, f := range p.Filters {
		switch filter := all[*event.Filter](o.state)[f]; {
		case filter == nil:
			x.missing = append(x.missing, fmt.Sprintf("spec.filters[%d]: BGPFilter %q does not exist", i, f))
		case filter.Problem != "":
			x.missing = append(x.missing, fmt.Sprintf("spec.filters[%d]: BGPFilter %q is not accepted: %s", i, f, filter.Problem))
		default:
			if filter.Import != nil {
				x.peer.Import = append(x.peer.Import, f)
			}
			if filter.Export != nil {
				x.peer.Export = append(x.peer.Export, f)
			}
		}
	}
	for _, a := range o.myAdvertisements() {
		if a.Peers.Matches(p.Labels) {
			x.peer.Advertisements = append(x.peer.Advertisements, a.Name)
		}
	}
	addr := p.Session.Addr
	switch {
	case p.Session.Interface != "":
	case addr.IsValid() && slices.Contains(self.Addrs, addr):
		return nil
	case addr.IsValid() && p.FromNode:
		if x.peer.LocalAddr = first(self, addr.Is4()); !x.peer.LocalAddr.IsValid() {
			x.missing = append(x.missing, fmt.Sprintf("spec.address: node %s has no address of the family of %s", self.Name, addr))
		}
	case !addr.IsValid():
		for _, n := range all[*event.Node](o.state) {
			there := p.Nodes.Matches(self.Labels) && p.Others.Matches(n.Labels)
			back := p.Others.Matches(self.Labels) && p.Nodes.Matches(n.Labels)
			if n.Name != self.Name && o.twin(self, n) == nil && (there || back) {
				wishes = append(wishes, o.toNode(x, self, n)...)
			}
		}
		return wishes
	}
	if !p.Nodes.Matches(self.Labels) {
		return nil
	}
	x.gateway = p.Gateway
	return []wish{x}
}

// toNode makes of a wish one for each family, or one for all that it asks for.
func (o oracle) toNode(x wish, self, n *event.Node) (wishes []wish) {
	cluster := all[*event.BGP](o.state)["default"]
	if slices.ContainsFunc(slices.Collect(maps.Values(all[*event.Pool](o.state))), func(p *event.Pool) bool { return p.Silent }) {
		x.peer.Advertisements = append([]string{"(nodes)"}, x.peer.Advertisements...)
	}
	for _, v4 := range []bool{true, false} {
		local, remote := first(self, v4), first(n, v4)
		if !local.IsValid() || !remote.IsValid() || x.peer.Families != 0 && wishes != nil {
			continue
		}
		y := x
		y.peer.Addr, y.peer.LocalAddr, y.peer.Port = remote, local, cluster.ListenPort
		y.peer.ASN, y.peer.Passive = o.asn(n.Name, cluster), local.Compare(remote) > 0
		y.peer.ReflectorClient = o.asn(n.Name, cluster) == o.asn(o.node, cluster) && o.reflects(o.node, n.Name) && n.Name != o.node
		y.peer.AddPaths = y.peer.AddPaths || y.peer.ASN == o.asn(o.node, cluster) && o.reflects(o.node, o.node)
		wishes = append(wishes, y)
	}
	return wishes
}

// grant gives every end to the first wish, if nothing is missing.
func (o oracle) grant(c *bgp.Config, w *desiredtest.World, wishes []wish) {
	slices.SortFunc(wishes, func(a, b wish) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), strings.Compare(a.peer.Name, b.peer.Name))
	})
	type end struct {
		netip.Addr
		string
	}
	taken, filters, advertisements := map[end]bool{}, map[string]bgp.Filter{}, map[string]bgp.Advertisement{}
	for _, x := range wishes {
		if at := (end{x.peer.Addr, x.peer.Interface}); taken[at] {
			continue
		} else {
			taken[at] = true
		}
		if prefix := netip.PrefixFrom(x.peer.Addr, x.peer.Addr.BitLen()); x.gateway.IsValid() && !o.mine(prefix) {
			w.Routes[prefix] = desired.Route{Prefix: prefix, Kind: desired.Via, NextHops: []netip.Addr{x.gateway}}
		}
		o.unlock(&x)
		if x.missing != nil {
			w.Closed = append(w.Closed, bgp.Session{Peer: x.peer.Name, Addr: x.peer.Addr, ASN: x.peer.ASN, State: "Idle", LastError: x.missing[0]})
			continue
		}
		self := all[*event.Node](o.state)[o.node]
		if p := &x.peer; p.Addr.IsValid() && p.Addr.Is4() && p.Families&bgp.IPv6 != 0 {
			p.NextHop6 = first(self, false)
		} else if p.Addr.IsValid() && p.Addr.Is6() && p.Families&bgp.IPv4 != 0 {
			p.NextHop4 = first(self, true)
		}
		c.Peers = append(c.Peers, x.peer)
		for _, f := range slices.Concat(x.peer.Import, x.peer.Export) {
			filters[f] = all[*event.Filter](o.state)[f].Filter
		}
		for _, a := range x.peer.Advertisements {
			advertisements[a] = bgp.Advertisement{Name: a}
			if adv := all[*event.Advertisement](o.state)[a]; adv != nil {
				advertisements[a] = bgp.Advertisement{Name: a, Attributes: adv.Attributes}
			}
		}
	}
	for _, f := range slices.Sorted(maps.Keys(filters)) {
		c.Filters = append(c.Filters, filters[f])
	}
	for _, a := range slices.Sorted(maps.Keys(advertisements)) {
		c.Advertisements = append(c.Advertisements, advertisements[a])
	}
	slices.SortFunc(c.Peers, func(a, b bgp.Peer) int {
		return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Interface, b.Interface))
	})
	slices.SortFunc(w.Closed, func(a, b bgp.Session) int {
		return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Peer, b.Peer), cmp.Compare(a.LastError, b.LastError))
	})
	w.Closed = slices.Compact(w.Closed)
}

// unlock looks for the password of a wish.
func (o oracle) unlock(x *wish) {
	if x.password == nil {
		return
	}
	field := "spec.password: "
	if x.rank == 1 {
		field = "BGPConfiguration default: spec.meshPassword: "
	}
	secret := all[*event.Secret](o.state)[x.password.Secret]
	if secret == nil {
		x.missing = append(x.missing, field+fmt.Sprintf("Secret %q does not exist in the namespace of the agents, or they may not read it", x.password.Secret))
		return
	}
	x.peer.Password = secret.Values[x.password.Key]
	if _, there := secret.Values[x.password.Key]; !there {
		x.missing = append(x.missing, field+fmt.Sprintf("Secret %q has no key %q", x.password.Secret, x.password.Key))
	}
}

// reflects reports whether a node is a reflector, and tells what it hears to the
// other or from it. A node reflects to itself.
func (o oracle) reflects(node, to string) bool {
	if !o.reflector(node) {
		return false
	}
	if node == to {
		return true
	}
	group := o.group(to)
	return !o.reflector(to) && (!group.IsValid() || group == o.group(node))
}

func (o oracle) linked(a, b string) bool {
	cluster := all[*event.BGP](o.state)["default"]
	for name := range all[*event.Node](o.state) {
		if o.asn(name, cluster) == o.asn(a, cluster) && o.reflector(name) {
			return o.reflector(a) && o.reflector(b) || o.reflects(a, b) || o.reflects(b, a)
		}
	}
	return cluster.Mesh
}

func (o oracle) reflector(name string) bool {
	n, r := all[*event.Node](o.state)[name], all[*event.BGP](o.state)["default"].Reflectors
	if n == nil || r == nil {
		return false
	}
	if r.Automatic {
		network := all[*event.NodeNetwork](o.state)[name]
		return network != nil && network.Group.IsValid() && network.Reflector
	}
	return r.Nodes.Matches(n.Labels)
}

// group returns a node's group if a reflector of its AS is in it.
func (o oracle) group(name string) netip.Addr {
	cluster := all[*event.BGP](o.state)["default"]
	if !cluster.Reflectors.Automatic {
		if o.reflector(name) {
			return cluster.Reflectors.ClusterID
		}
		return netip.Addr{}
	}
	networks := all[*event.NodeNetwork](o.state)
	for other := range all[*event.Node](o.state) {
		if o.reflector(other) && o.asn(other, cluster) == o.asn(name, cluster) && networks[name] != nil && networks[other].Group == networks[name].Group {
			return networks[name].Group
		}
	}
	return netip.Addr{}
}

// myAdvertisements returns those that the node takes part in, by name.
func (o oracle) myAdvertisements() (mine []*event.Advertisement) {
	self := all[*event.Node](o.state)[o.node]
	for _, a := range all[*event.Advertisement](o.state) {
		if self != nil && a.Nodes.Matches(self.Labels) {
			mine = append(mine, a)
		}
	}
	slices.SortFunc(mine, func(a, b *event.Advertisement) int { return strings.Compare(a.Name, b.Name) })
	return mine
}

// paths says every block, pod and prefix under every name that it has.
func (o oracle) paths(w *desiredtest.World) {
	say := func(p netip.Prefix, kind bgp.Advertise, under string) {
		w.Paths[desired.PathKey{Prefix: p, Kind: kind, Advertisement: under}] = bgp.Path{Prefix: p, Kind: kind, Advertisement: under}
	}
	pooled := func(p netip.Prefix, kind bgp.Advertise) {
		pool := o.pool(p)
		if pool.Silent {
			say(p, kind, "(nodes)")
		} else {
			say(p, kind, "")
		}
		for _, a := range o.myAdvertisements() {
			if a.PoolRoutes&kind != 0 && slices.Contains(a.Pools, pool.Name) {
				say(p, kind, a.Name)
			}
		}
	}
	for _, b := range all[*event.Block](o.state) {
		if b.Owner.Node == o.node {
			pooled(b.CIDR, bgp.Blocks)
		}
	}
	for _, ep := range all[*event.Endpoint](o.state) {
		for _, a := range ep.Addrs {
			pooled(netip.PrefixFrom(a, a.BitLen()), bgp.Hosts)
		}
	}
	for a := range o.floating() {
		pooled(netip.PrefixFrom(a, a.BitLen()), bgp.Hosts)
		pooled(netip.PrefixFrom(a, a.BitLen()), bgp.Blocks)
	}
	for _, a := range o.myAdvertisements() {
		for _, p := range a.Prefixes {
			say(p, bgp.Prefixes, a.Name)
		}
	}
}

// pool returns the narrowest pool around p; of none it has no name.
func (o oracle) pool(p netip.Prefix) event.Pool {
	var around []*event.Pool
	for _, pool := range all[*event.Pool](o.state) {
		if pool.CIDR.Bits() <= p.Bits() && pool.CIDR.Contains(p.Addr()) {
			around = append(around, pool)
		}
	}
	if around == nil {
		return event.Pool{}
	}
	return *slices.MinFunc(around, func(a, b *event.Pool) int {
		return cmp.Or(cmp.Compare(b.CIDR.Bits(), a.CIDR.Bits()), strings.Compare(a.Name, b.Name))
	})
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
