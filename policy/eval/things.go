package eval

import (
	"net/netip"
	"slices"

	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/match"
	"github.com/koratnet/korat/policy/selector"
)

// thing is something that a scope may select.
type thing struct {
	kind      policy.Things
	namespace string
	labels    selector.Labels
	nets      []netip.Prefix
	ports     []policy.NamedPort
}

func (c *Cluster) podThing(p *Pod) thing {
	account := policy.ServiceName{Namespace: p.Namespace, Name: p.Account}
	return thing{policy.Pods, p.Namespace, policy.PodLabels(p.Labels, p.Account, c.Accounts[account]), singles(p.Addrs), p.Ports}
}

func hostThing(h policy.HostEndpoint) thing {
	return thing{policy.HostEndpoints, "", h.Labels, singles(h.Addrs), h.Ports}
}

// things lists everything that has an address.
func (c *Cluster) things() []thing {
	var all []thing
	for i := range c.Pods {
		all = append(all, c.podThing(&c.Pods[i]))
	}
	for _, s := range c.NetworkSets {
		kind := policy.GlobalNetworkSets
		if s.Namespace != "" {
			kind = policy.NetworkSets
		}
		all = append(all, thing{kind, s.Namespace, s.Labels, s.Nets, nil})
	}
	for _, h := range c.HostEndpoints {
		all = append(all, hostThing(h))
	}
	for _, n := range c.Nodes {
		all = append(all, thing{policy.Nodes, "", n.Labels, singles(n.Addrs), nil})
	}
	return all
}

func singles(addrs []netip.Addr) []netip.Prefix {
	out := make([]netip.Prefix, len(addrs))
	for i, a := range addrs {
		out[i] = netip.PrefixFrom(a, a.BitLen())
	}
	return out
}

func (c *Cluster) selects(s policy.Scope, t thing) bool {
	s, ok := s.For(t.kind)
	if !ok {
		return false
	}
	labels, known := c.Namespaces[t.namespace]
	return match.Matches(s, match.Namespace{Name: t.namespace, Labels: labels, Known: known}, t.labels)
}

// has reports whether a set of addresses has a.
func (c *Cluster) has(s policy.Set, a netip.Addr, things []thing) bool {
	if s.Service != (policy.ServiceName{}) {
		return slices.ContainsFunc(c.ends(s.Service), func(e ServiceEnd) bool { return e.Addr == a })
	}
	return slices.ContainsFunc(things, func(t thing) bool { return within(t.nets, a) && c.selects(s.Scope, t) })
}

// hasPort reports whether a set of addresses with ports has this one.
func (c *Cluster) hasPort(s policy.Set, a netip.Addr, protocol policy.Protocol, port uint16, things []thing) bool {
	if s.Service != (policy.ServiceName{}) {
		return slices.Contains(c.ends(s.Service), ServiceEnd{a, protocol, port})
	}
	called := func(n policy.NamedPort) bool { return n.Is(s.Port) && n.Protocol == protocol && n.Port == port }
	return slices.ContainsFunc(things, func(t thing) bool {
		return within(t.nets, a) && slices.ContainsFunc(t.ports, called) && c.selects(s.Scope, t)
	})
}

func (c *Cluster) ends(name policy.ServiceName) []ServiceEnd {
	var ends []ServiceEnd
	for _, s := range c.Services {
		if s.ServiceName == name {
			ends = append(ends, s.Ends...)
		}
	}
	return ends
}
