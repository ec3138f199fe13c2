package calc_test

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/desired/desiredtest"
	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/compile"
	"github.com/koratnet/korat/policy/ir"
)

// state is what the engine has been told, all of it.
type state map[event.Key]event.Value

// all returns the things of one type by name.
func all[V event.Value](s state) map[string]V {
	out := map[string]V{}
	for k, v := range s {
		if v, ok := v.(V); ok {
			out[k.Name] = v
		}
	}
	return out
}

// oracle says what should be desired. It knows the rules but no history, no
// index and no order: every question is answered by asking everything. It is
// slow and meant to be obviously right.
type oracle struct {
	node  string
	state state
}

func (o oracle) world(heard event.Source) desiredtest.World {
	w := desiredtest.World{
		Endpoints: map[string]desired.Endpoint{},
		Programs:  map[ir.ProgramID]ir.Program{},
		Sets:      map[ir.SetID]map[ir.Member]struct{}{},
		Routes:    map[netip.Prefix]desired.Route{},
		Paths:     map[desired.PathKey]bgp.Path{},
	}
	if heard&event.API == 0 {
		return w
	}
	w.Speaker = o.speaker()
	w.Complete = heard&event.CNI != 0
	w.Learned = w.Complete && heard&event.Neighbours != 0
	for iface, ep := range all[*event.Endpoint](o.state) {
		w.Endpoints[iface] = o.endpoint(iface, ep)
	}
	for _, p := range all[*event.Policy](o.state) {
		if o.active(p.Policy) {
			o.enforce(&w, p.Policy)
		}
	}
	for _, p := range all[*event.Pool](o.state) {
		w.Pools = append(w.Pools, p.CIDR)
	}
	slices.SortFunc(w.Pools, netip.Prefix.Compare)
	w.Pools = slices.Compact(w.Pools)
	o.route(&w)
	return w
}

// answer is whether a policy selects an endpoint.
type answer int

const (
	no answer = iota
	yes
	maybe
)

// selects asks one policy about one endpoint.
func (o oracle) selects(p *policy.Policy, ep *event.Endpoint) answer {
	inside := o.inNamespace(p.Subject, ep.Handle.Namespace)
	pod := o.localPod(ep)
	switch {
	case inside == no:
		return no
	case pod == nil:
		return maybe
	case !p.Subject.Pods.Matches(pod.Labels):
		return no
	}
	return inside
}

func (o oracle) inNamespace(s policy.Scope, name string) answer {
	ns := all[*event.Namespace](o.state)[name]
	switch {
	case s.Namespace != "" && s.Namespace == name, s.Namespace == "" && s.Namespaces.IsAll():
		return yes
	case s.Namespace != "":
		return no
	case ns == nil:
		return maybe
	case s.Namespaces.Matches(ns.Labels):
		return yes
	}
	return no
}

func (o oracle) localPod(ep *event.Endpoint) *event.Pod {
	pod := all[*event.Pod](o.state)[ep.Handle.Namespace+"/"+ep.Handle.Pod]
	if pod != nil && pod.Node != o.node {
		return nil
	}
	return pod
}

func (o oracle) active(p *policy.Policy) bool {
	for _, ep := range all[*event.Endpoint](o.state) {
		if o.selects(p, ep) == yes {
			return true
		}
	}
	return false
}

func (o oracle) enforce(w *desiredtest.World, p *policy.Policy) {
	for _, d := range policy.Directions {
		if p.Types&d == 0 {
			continue
		}
		prog := compile.Compile(p, d, compile.SetIDOf)
		w.Programs[prog.ID] = *prog
		for _, set := range compile.Sets(p, d) {
			w.Sets[compile.SetIDOf(set)] = o.members(set.Scope)
		}
	}
}

func (o oracle) members(s policy.Scope) map[ir.Member]struct{} {
	members := map[ir.Member]struct{}{}
	for _, pod := range all[*event.Pod](o.state) {
		if o.inNamespace(s, pod.Namespace) != yes || !s.Pods.Matches(pod.Labels) {
			continue
		}
		for _, a := range o.addrs(pod) {
			members[ir.Member{Prefix: netip.PrefixFrom(a, a.BitLen())}] = struct{}{}
		}
	}
	return members
}

// addrs: of a local pod, what its endpoints say goes before what its object says.
func (o oracle) addrs(pod *event.Pod) []netip.Addr {
	var addrs []netip.Addr
	for _, ep := range all[*event.Endpoint](o.state) {
		if o.localPod(ep) == pod {
			addrs = append(addrs, ep.Addrs...)
		}
	}
	if addrs == nil {
		return pod.Addrs
	}
	return addrs
}

func (o oracle) endpoint(iface string, ep *event.Endpoint) desired.Endpoint {
	out := desired.Endpoint{
		Interface: iface, Pod: ep.Handle.Namespace + "/" + ep.Handle.Pod, Generation: ep.Generation,
		Ingress: o.chain(ep, policy.Ingress), Egress: o.chain(ep, policy.Egress),
	}
	for _, a := range ep.Addrs {
		if o.holder(a) == iface {
			out.Addrs = append(out.Addrs, a)
		}
	}
	return out
}

func (o oracle) chain(ep *event.Endpoint, d policy.Direction) ir.Chain {
	var selected []*policy.Policy
	for _, p := range all[*event.Policy](o.state) {
		answer := o.selects(p.Policy, ep)
		if p.Types&d == 0 || answer == no {
			continue
		}
		if answer == maybe {
			return ir.Chain{Default: policy.Deny}
		}
		selected = append(selected, p.Policy)
	}
	slices.SortFunc(selected, func(a, b *policy.Policy) int {
		return cmp.Or(cmp.Compare(a.Tier, b.Tier), cmp.Compare(a.Order, b.Order),
			cmp.Compare(a.Key.Name, b.Key.Name), cmp.Compare(a.Key.Namespace, b.Key.Namespace))
	})
	chain := ir.Chain{Default: policy.Allow}
	for _, tier := range slices.Compact(names(selected)) {
		t := ir.Tier{Name: tier, End: policy.Deny}
		for _, p := range selected {
			if p.Tier == tier {
				t.Programs = append(t.Programs, ir.ProgramID{Policy: p.Key, Direction: d})
			}
		}
		chain.Tiers = append(chain.Tiers, t)
	}
	return chain
}

func names(ps []*policy.Policy) (tiers []string) {
	for _, p := range ps {
		tiers = append(tiers, p.Tier)
	}
	return tiers
}

// holder returns the interface of the endpoint that holds a, "" for none.
func (o oracle) holder(a netip.Addr) string {
	eps := all[*event.Endpoint](o.state)
	var claims []string
	for iface, ep := range eps {
		if slices.Contains(ep.Addrs, a) {
			claims = append(claims, iface)
		}
	}
	if claims == nil {
		return ""
	}
	return slices.MinFunc(claims, func(x, y string) int {
		return cmp.Or(-cmp.Compare(eps[x].Generation, eps[y].Generation), cmp.Compare(x, y))
	})
}

// route writes routes in rising rank: a later one takes the place of an earlier.
func (o oracle) route(w *desiredtest.World) {
	for _, l := range all[*event.Learned](o.state) {
		if hops := o.hops(l.NextHops); o.importable(l.Prefix) && len(hops) > 0 {
			w.Routes[l.Prefix] = desired.Route{Prefix: l.Prefix, Kind: desired.Via, NextHops: hops}
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

func (o oracle) importable(p netip.Prefix) bool {
	inside := func(outer netip.Prefix) bool { return outer.Bits() <= p.Bits() && outer.Contains(p.Addr()) }
	for _, b := range all[*event.Block](o.state) {
		if b.Owner.Node == o.node && inside(b.CIDR) {
			return false
		}
	}
	for _, pool := range all[*event.Pool](o.state) {
		if inside(pool.CIDR) {
			return true
		}
	}
	return false
}

func (o oracle) hops(learned []netip.Addr) (hops []netip.Addr) {
	self := all[*event.Node](o.state)[o.node]
	for _, h := range learned {
		if self == nil || !slices.Contains(self.Addrs, h) {
			hops = append(hops, h)
		}
	}
	slices.SortFunc(hops, netip.Addr.Compare)
	return slices.Compact(hops)
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

// changes returns the events that lead from s to t, in the order of their keys.
func (s state) changes(t state) []event.Event {
	var evs []event.Event
	for k := range s {
		if t[k] == nil {
			evs = append(evs, event.Event{Key: k})
		}
	}
	for k, v := range t {
		if s[k] != v {
			evs = append(evs, event.Event{Key: k, Value: v})
		}
	}
	slices.SortFunc(evs, func(a, b event.Event) int {
		return cmp.Or(cmp.Compare(a.Key.Kind, b.Key.Kind), cmp.Compare(a.Key.Name, b.Key.Name))
	})
	return evs
}

// put changes s by an event.
func (s state) put(ev event.Event) {
	if ev.Value == nil {
		delete(s, ev.Key)
	} else {
		s[ev.Key] = ev.Value
	}
}
