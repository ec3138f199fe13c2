package calc

import (
	"net/netip"
	"slices"

	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/event"
)

// excludedLabel on a Node keeps traffic for services from outside away from it.
const excludedLabel = "node.kubernetes.io/exclude-from-external-load-balancers"

// addressKind is what an address is to a service.
type addressKind uint8

const (
	clusterIP addressKind = iota
	externalIP
	loadBalancerIP
	addressKinds
)

// claim is a service that says that it is reached under an address. Several may
// say so of one address.
type claim struct {
	service string // name of its event
	kind    addressKind
}

// advertised decides which addresses of services this node tells its neighbours,
// so that routers send connections to nodes that pass them on:
//
//   - nothing outside the ranges that are allowed for the kind of address;
//   - every aggregated range, whoever serves in it;
//   - the single address of a service whose traffic policy is Local, where this
//     node has a backend for new connections;
//   - the single address of another service only where no aggregate has it, and as
//     long as there is a backend anywhere.
//
// Backends that terminate count when no others are left, on all nodes of a Local
// service: so a node is left while its last backend still serves, and the last
// backends of all serve to their end.
type advertised struct {
	node     string
	services *services

	claims map[netip.Addr]map[claim]struct{}
	ranges [addressKinds]serviceRanges
	spec   event.ServiceRanges
	nets   []netip.Prefix // all of spec, sorted, each once
	moved  bool           // nets changed in this flush
	// configured: what is allowed changed in this flush, or whether this node takes part.
	configured bool
	excluded   bool

	changed map[netip.Prefix]struct{} // what is said otherwise in this flush
	dirty   map[netip.Prefix]struct{}
	said    said[desired.PathKey, bgp.Path]
}

// serviceRanges are those of one kind of address.
type serviceRanges struct {
	all       cover
	aggregate map[netip.Prefix]bool
}

func newServiceRanges(list []event.ServiceRange) serviceRanges {
	r := serviceRanges{all: newCover(), aggregate: map[netip.Prefix]bool{}}
	for _, x := range list {
		r.all.add(x.CIDR)
		r.aggregate[x.CIDR] = r.aggregate[x.CIDR] || x.Aggregate
	}
	return r
}

func newAdvertised(node string, services *services) advertised {
	a := advertised{
		node: node, services: services,
		claims:  map[netip.Addr]map[claim]struct{}{},
		changed: map[netip.Prefix]struct{}{}, dirty: map[netip.Prefix]struct{}{},
		said: newSaid[desired.PathKey](identical[bgp.Path]),
	}
	for k := range a.ranges {
		a.ranges[k] = newServiceRanges(nil)
	}
	return a
}

func (a *advertised) drain(in *inputs) {
	for name, was := range in.services.was {
		a.follow(name, was, in.services.now[name])
	}
	for name, was := range in.slices.was { // who serves
		for _, s := range []*event.EndpointSlice{was, in.slices.now[name]} {
			if s != nil {
				a.markService(in.services.now[s.Service.String()])
			}
		}
	}
	a.configure(in)
	for p := range a.dirty {
		a.say(p, in)
	}
}

// follow moves the claims of a service, and looks at its addresses again.
func (a *advertised) follow(name string, was, is *event.Service) {
	eachAddress(was, func(addr netip.Addr, kind addressKind) {
		if delete(a.claims[addr], claim{name, kind}); len(a.claims[addr]) == 0 {
			delete(a.claims, addr)
		}
	})
	eachAddress(is, func(addr netip.Addr, kind addressKind) {
		if a.claims[addr] == nil {
			a.claims[addr] = map[claim]struct{}{}
		}
		a.claims[addr][claim{name, kind}] = struct{}{}
	})
	a.markService(was)
	a.markService(is)
}

func (a *advertised) markService(s *event.Service) {
	eachAddress(s, func(addr netip.Addr, _ addressKind) { a.dirty[single(addr)] = struct{}{} })
}

// configure takes over what is allowed, and whether this node takes part.
func (a *advertised) configure(in *inputs) {
	var spec event.ServiceRanges
	if c := in.bgp.now["default"]; c != nil {
		spec = c.Services
	}
	excluded := false
	if n := in.nodes.now[a.node]; n != nil {
		_, excluded = n.Labels.Get(excludedLabel)
	}
	if excluded == a.excluded && sameRanges(spec, a.spec) {
		return
	}
	was := a.nets
	a.configured, a.excluded, a.spec, a.nets = true, excluded, spec, nil
	for k, list := range [addressKinds][]event.ServiceRange{spec.ClusterIPs, spec.ExternalIPs, spec.LoadBalancerIPs} {
		a.ranges[k] = newServiceRanges(list)
		for _, r := range list {
			a.nets = append(a.nets, r.CIDR)
		}
	}
	slices.SortFunc(a.nets, netip.Prefix.Compare)
	a.nets = slices.Compact(a.nets)
	a.moved = !slices.Equal(was, a.nets)
	for _, p := range slices.Concat(was, a.nets) {
		a.dirty[p] = struct{}{}
	}
	for addr := range a.claims { // whole, because a person changed what is allowed
		a.dirty[single(addr)] = struct{}{}
	}
}

func sameRanges(a, b event.ServiceRanges) bool {
	return slices.Equal(a.ClusterIPs, b.ClusterIPs) && slices.Equal(a.ExternalIPs, b.ExternalIPs) &&
		slices.Equal(a.LoadBalancerIPs, b.LoadBalancerIPs)
}

func (a *advertised) say(p netip.Prefix, in *inputs) {
	key := desired.PathKey{Prefix: p, Kind: bgp.Services}
	before := a.has(p)
	if a.want(p, in) {
		a.said.say(key, &bgp.Path{Prefix: p, Kind: bgp.Services})
	} else {
		a.said.say(key, nil)
	}
	if a.has(p) != before {
		a.changed[p] = struct{}{}
	}
}

// has reports whether p is announced, as said last.
func (a *advertised) has(p netip.Prefix) bool {
	return a.said.last[desired.PathKey{Prefix: p, Kind: bgp.Services}] != nil
}

func (a *advertised) want(p netip.Prefix, in *inputs) bool {
	if a.excluded {
		return false
	}
	for _, r := range a.ranges {
		if r.aggregate[p] {
			return true
		}
	}
	if p.IsSingleIP() {
		for c := range a.claims[p.Addr()] {
			if a.announces(c, p, in) {
				return true
			}
		}
	}
	return false
}

// announces reports whether this node announces the single address p for c.
func (a *advertised) announces(c claim, p netip.Prefix, in *inputs) bool {
	r := a.ranges[c.kind]
	bits := r.all.narrowest(p)
	if bits < 0 {
		return false
	}
	s := in.services.now[c.service]
	aggregated := r.aggregate[netip.PrefixFrom(p.Addr(), bits).Masked()]
	return (local(s, c.kind) || !aggregated) && a.serves(s, c.kind)
}

// allows reports whether addresses of a kind in p may be announced.
func (a *advertised) allows(kind addressKind, p netip.Prefix) bool {
	return a.ranges[kind].all.contains(p)
}

// serves reports whether this node passes on connections to addresses of s that
// are of a kind.
func (a *advertised) serves(s *event.Service, kind addressKind) bool {
	b := a.serving(s)
	if local(s, kind) {
		return b.here.Ready || b.here.Ending && !b.any.Ready
	}
	return b.any.Ready || b.any.Ending
}

// local reports whether nodes pass on connections only to backends of their own.
func local(s *event.Service, kind addressKind) bool {
	if kind == clusterIP {
		return s.InternalLocal
	}
	return s.ExternalLocal
}

// serving is how the backends of a service do, on this node and on all.
type serving struct{ here, any event.Backend }

func (a *advertised) serving(s *event.Service) (all serving) {
	for name := range a.services.slices[s.String()] {
		for _, b := range a.services.in.slices.now[name].Backends {
			all.any.Ready, all.any.Ending = all.any.Ready || b.Ready, all.any.Ending || b.Ending
			if b.Node == a.node {
				all.here.Ready, all.here.Ending = all.here.Ready || b.Ready, all.here.Ending || b.Ending
			}
		}
	}
	return all
}

func eachAddress(s *event.Service, visit func(netip.Addr, addressKind)) {
	if s == nil {
		return
	}
	for kind, addrs := range [addressKinds][]netip.Addr{s.ClusterIPs, s.ExternalIPs, s.LoadBalancerIPs} {
		for _, a := range addrs {
			visit(a, addressKind(kind))
		}
	}
}

func (a *advertised) settle() {
	a.moved, a.configured = false, false
	forget(&a.changed)
	forget(&a.dirty)
}
