package eval

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/compile"
)

// Host returns a node of the cluster as packets find it. interfaceOf says at
// which of its interfaces an address of a pod or of the node itself is; "" is
// nowhere. Names of pods' interfaces begin with podPrefix: no host endpoint
// stands for one.
func (a *Asker) Host(node, podPrefix string, interfaceOf func(netip.Addr) string) *Host {
	c := a.cluster
	h := &Host{
		Pods: map[string]*Attachment{}, PodPrefix: podPrefix, Endpoints: map[string]*HostChains{},
		Services: c.ServiceNets, Rules: c.Rules, Evaluator: a.evaluator,
	}
	for i := range c.Pods {
		if p := &c.Pods[i]; p.Node == node && len(p.Addrs) > 0 {
			h.Pods[interfaceOf(p.Addrs[0])] = &Attachment{Addrs: p.Addrs, Endpoint: *a.endpoint(p)}
		}
	}
	stand := func(iface string, ep policy.HostEndpoint) {
		if _, taken := h.Endpoints[iface]; iface != "" && !taken && !h.isPod(iface) {
			h.Endpoints[iface] = c.hostChains(ep)
		}
	}
	// Of several for one interface those that name it go before those that have its
	// address, and then the first by name counts.
	eps := c.endpointsOf(node)
	for _, ep := range eps {
		stand(ep.Interface, ep)
	}
	for _, ep := range eps {
		for _, addr := range ep.Addrs {
			if ep.Interface == "" {
				stand(interfaceOf(addr), ep)
			}
		}
	}
	return h
}

// endpointsOf lists the host endpoints of a node by name.
func (c *Cluster) endpointsOf(node string) []policy.HostEndpoint {
	eps := slices.DeleteFunc(slices.Clone(c.HostEndpoints), func(h policy.HostEndpoint) bool { return h.Node != node })
	slices.SortFunc(eps, func(a, b policy.HostEndpoint) int { return strings.Compare(a.Name, b.Name) })
	return eps
}

// hostChains returns the chains of a host endpoint.
func (c *Cluster) hostChains(h policy.HostEndpoint) *HostChains {
	var active []*policy.Policy
	for _, p := range c.Policies {
		if c.selects(p.Subject, hostThing(h)) {
			active = append(active, p)
		}
	}
	slices.SortFunc(active, c.Tiers.Compare)
	at := func(hook policy.Hook) Endpoint {
		return Endpoint{
			Ingress: compile.HostChain(active, policy.Ingress, c.Tiers, hook),
			Egress:  compile.HostChain(active, policy.Egress, c.Tiers, hook),
		}
	}
	return &HostChains{
		Normal: at(policy.Normal), Forward: at(policy.NormalAndForward), PreDNAT: at(policy.PreDNAT), Untracked: at(policy.Untracked),
	}
}

// crossings asks the host endpoints between the ends of a packet: on the node
// that it leaves and on the one where it arrives. Nothing is known of
// interfaces here: a node reaches others through the endpoint that has its
// address, or else through that for any interface, or else through its only one.
func (c *Cluster) crossings(e *Evaluator, p Packet, from, to *Pod) []Step {
	if len(c.HostEndpoints) == 0 {
		return nil
	}
	here, there := c.nodeOf(p.Src, from), c.nodeOf(p.Dst, to)
	if here == there {
		return nil
	}
	var steps []Step
	cross := func(node string, w Way) {
		ep := c.uplink(node)
		if node == "" || ep == nil {
			return
		}
		h := Host{Endpoints: map[string]*HostChains{uplink: c.hostChains(*ep)}, Rules: c.Rules, Evaluator: e}
		for _, s := range h.Cross(w).Steps {
			s.Interface = ep.Name
			steps = append(steps, s)
		}
	}
	out, in := Way{Out: uplink, Packet: p}, Way{In: uplink, Packet: p}
	if from != nil {
		out.In = downlink
	}
	if to != nil {
		in.Out = downlink
	}
	cross(here, out)
	cross(there, in)
	return steps
}

// The interfaces of a node of which no more is known than where they lead.
const uplink, downlink = "to other nodes", "to pods"

// nodeOf returns the name of the node of an end: of the pod, or the node that
// has the address. "" is outside.
func (c *Cluster) nodeOf(a netip.Addr, pod *Pod) string {
	if pod != nil {
		return pod.Node
	}
	for _, n := range c.Nodes {
		if slices.Contains(n.Addrs, a) {
			return n.Name
		}
	}
	return ""
}

func (c *Cluster) uplink(node string) *policy.HostEndpoint {
	eps := c.endpointsOf(node)
	for i := range eps {
		if slices.ContainsFunc(eps[i].Addrs, func(a netip.Addr) bool { return c.nodeOf(a, nil) == node }) {
			return &eps[i]
		}
	}
	for i := range eps {
		if eps[i].Interface == AnyInterface {
			return &eps[i]
		}
	}
	if len(eps) == 1 {
		return &eps[0]
	}
	return nil
}
