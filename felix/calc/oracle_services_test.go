package calc_test

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/desired/desiredtest"
	"github.com/koratnet/korat/felix/event"
)

// announce asks for every address of a service and every range whether it is told.
func (o oracle) announce(w *desiredtest.World) {
	for _, p := range o.serviceNets() {
		if o.announced(p) {
			w.Paths[desired.PathKey{Prefix: p, Kind: bgp.Services}] = bgp.Path{Prefix: p, Kind: bgp.Services}
		}
	}
	for _, s := range all[*event.Service](o.state) {
		for _, p := range singles(slices.Concat(s.ClusterIPs, s.ExternalIPs, s.LoadBalancerIPs)) {
			if o.announced(p) {
				w.Paths[desired.PathKey{Prefix: p, Kind: bgp.Services}] = bgp.Path{Prefix: p, Kind: bgp.Services}
			}
		}
	}
}

// offer asks of every advertisement, service and address whether it is told.
func (o oracle) offer(w *desiredtest.World) {
	self := all[*event.Node](o.state)[o.node]
	for name, a := range all[*event.Advertisement](o.state) {
		if a.Services == nil || self == nil || !a.Nodes.Matches(self.Labels) || o.excluded() {
			continue
		}
		for _, s := range all[*event.Service](o.state) {
			for kind, addrs := range [3][]netip.Addr{s.ClusterIPs, s.ExternalIPs, s.LoadBalancerIPs} {
				wanted := [3]bool{a.Services.ClusterIPs, a.Services.ExternalIPs, a.Services.LoadBalancerIPs}[kind]
				local := [3]bool{s.InternalLocal, s.ExternalLocal, s.ExternalLocal}[kind]
				for _, addr := range addrs {
					allowed := slices.ContainsFunc(o.ranges3()[kind], func(r event.ServiceRange) bool { return r.CIDR.Contains(addr) })
					if !wanted || !allowed || !a.Services.Labels.Matches(s.Labels) || !o.serves(s, local) {
						continue
					}
					p := netip.PrefixFrom(addr, a.Services.Length6).Masked()
					if addr.Is4() {
						p = netip.PrefixFrom(addr, a.Services.Length4).Masked()
					}
					w.Paths[desired.PathKey{Prefix: p, Kind: bgp.Services, Advertisement: name}] = bgp.Path{Prefix: p, Kind: bgp.Services, Advertisement: name}
				}
			}
		}
	}
}

func (o oracle) ranges3() [3][]event.ServiceRange {
	if c := all[*event.BGP](o.state)["default"]; c != nil {
		return [3][]event.ServiceRange{c.Services.ClusterIPs, c.Services.ExternalIPs, c.Services.LoadBalancerIPs}
	}
	return [3][]event.ServiceRange{}
}

func (o oracle) serviceNets() (nets []netip.Prefix) {
	for _, list := range o.ranges3() {
		for _, r := range list {
			nets = append(nets, r.CIDR)
		}
	}
	return nets
}

// announced reports whether this node tells its neighbours of a prefix of services.
func (o oracle) announced(p netip.Prefix) bool {
	if o.excluded() {
		return false
	}
	for kind, list := range o.ranges3() {
		if slices.Contains(list, event.ServiceRange{CIDR: p, Aggregate: true}) {
			return true
		}
		for _, s := range all[*event.Service](o.state) {
			addrs := [3][]netip.Addr{s.ClusterIPs, s.ExternalIPs, s.LoadBalancerIPs}[kind]
			local := [3]bool{s.InternalLocal, s.ExternalLocal, s.ExternalLocal}[kind]
			if p.IsSingleIP() && slices.Contains(addrs, p.Addr()) && o.singly(s, list, p, local) {
				return true
			}
		}
	}
	return false
}

// singly reports whether a service asks for its single address to be told.
func (o oracle) singly(s *event.Service, list []event.ServiceRange, p netip.Prefix, local bool) bool {
	list = slices.DeleteFunc(slices.Clone(list), func(r event.ServiceRange) bool { return !r.CIDR.Contains(p.Addr()) })
	if len(list) == 0 {
		return false
	}
	narrowest := slices.MaxFunc(list, func(a, b event.ServiceRange) int { return cmp.Compare(a.CIDR.Bits(), b.CIDR.Bits()) }).CIDR
	aggregate := slices.Contains(list, event.ServiceRange{CIDR: narrowest, Aggregate: true})
	return (local || !aggregate) && o.serves(s, local)
}

// serves reports whether the node has what it takes to serve s; with local, backends
// of its own.
func (o oracle) serves(s *event.Service, local bool) bool {
	var readyHere, endingHere, ready, ending bool
	for _, slice := range all[*event.EndpointSlice](o.state) {
		if slice.Service != s.ServiceName {
			continue
		}
		for _, b := range slice.Backends {
			ready, ending = ready || b.Ready, ending || b.Ending
			if b.Node == o.node {
				readyHere, endingHere = readyHere || b.Ready, endingHere || b.Ending
			}
		}
	}
	if local {
		return readyHere || endingHere && !ready
	}
	return ready || ending
}

func (o oracle) excluded() (excluded bool) {
	if n := all[*event.Node](o.state)[o.node]; n != nil {
		_, excluded = n.Labels.Get("node.kubernetes.io/exclude-from-external-load-balancers")
	}
	return excluded
}
