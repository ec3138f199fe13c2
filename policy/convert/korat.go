package convert

import (
	"fmt"
	"math"
	"net/netip"

	v1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/selector"
)

// own converts our own resources.
type own struct {
	problems
	namespace string       // of the policy; empty for a global one
	subject   policy.Scope // of the policy
	closed    bool         // only rules that deny are kept
	effect    string       // of a problem in what is converted now
}

// KoratNetworkPolicy converts a NetworkPolicy of our own API. The policy is
// never nil. Rules keep their places, so that an index in a trace is the index
// in the object.
func KoratNetworkPolicy(o *v1.NetworkPolicy) (*policy.Policy, []Problem) {
	c := own{namespace: o.Namespace, effect: selectsNobody}
	c.subject = policy.Scope{Namespace: o.Namespace, Pods: c.pods(&o.Spec.PolicySpec)}
	if o.Namespace == "" {
		c.add("metadata.namespace", "", "a namespace", selectsNobody)
	}
	key := policy.Key{Kind: policy.NetworkPolicy, Namespace: o.Namespace, Name: o.Name}
	p, problems := c.policy(key, &o.Spec.PolicySpec, policy.Normal)
	p.Generation = o.Generation
	return p, problems
}

// GlobalNetworkPolicy converts a policy of the whole cluster. The policy is
// never nil. Rules keep their places, so that an index in a trace is the index
// in the object.
func GlobalNetworkPolicy(o *v1.GlobalNetworkPolicy) (*policy.Policy, []Problem) {
	c := own{effect: selectsNobody}
	c.subject = policy.Scope{Pods: c.pods(&o.Spec.PolicySpec), Things: policy.Pods | policy.HostEndpoints}
	if text := o.Spec.NamespaceSelector; text != "" {
		namespaces, global := c.namespaces("spec.namespaceSelector", text)
		c.subject.Things = 0
		if !namespaces.IsNone() {
			c.subject.Things, c.subject.Namespaces = policy.Pods, namespaces
		}
		if global {
			c.subject.Things |= policy.HostEndpoints
		}
		if c.subject.Things == 0 {
			c.subject = nobody()
		}
	}
	if o.Spec.ServiceAccountSelector != "" {
		if c.subject.Things &= policy.Pods; c.subject.Things == 0 {
			c.subject = nobody() // what is global has no service account
		}
	}
	hook := c.hook(&o.Spec)
	p, problems := c.policy(policy.Key{Kind: policy.GlobalNetworkPolicy, Name: o.Name}, &o.Spec.PolicySpec, hook)
	p.Generation = o.Generation
	return p, problems
}

// pods converts the selectors of the subject's labels.
func (c *own) pods(s *v1.PolicySpec) *selector.Selector {
	pods := c.selector("spec.selector", s.Selector)
	if s.ServiceAccountSelector == "" {
		return pods
	}
	accounts := policy.Account(nil, c.selector("spec.serviceAccountSelector", s.ServiceAccountSelector))
	return selector.And(pods, accounts)
}

// hook converts when a policy acts. What must not be combined makes a policy
// that selects nothing.
func (c *own) hook(s *v1.GlobalNetworkPolicySpec) policy.Hook {
	bad := func(field, expected string) { c.add("spec."+field, "true", expected, selectsNobody) }
	switch {
	case s.PreDNAT && s.DoNotTrack:
		bad("preDNAT", "preDNAT or doNotTrack, not both")
	case s.PreDNAT && !s.ApplyOnForward:
		bad("preDNAT", "applyOnForward beside it")
	case s.DoNotTrack && !s.ApplyOnForward:
		bad("doNotTrack", "applyOnForward beside it")
	case s.PreDNAT && types(&s.PolicySpec) != policy.Ingress:
		bad("preDNAT", "a policy of ingress only")
	case s.PreDNAT:
		return policy.PreDNAT
	case s.DoNotTrack:
		return policy.Untracked
	case s.ApplyOnForward:
		return policy.NormalAndForward
	}
	return policy.Normal
}

// policy converts what both kinds have in common.
func (c *own) policy(key policy.Key, s *v1.PolicySpec, hook policy.Hook) (*policy.Policy, []Problem) {
	if len(c.problems) > 0 {
		c.subject = nobody()
	}
	p := &policy.Policy{Key: key, Tier: s.Tier, Order: math.Inf(1), Hook: hook, Subject: c.subject, Types: types(s)}
	if p.Tier == "" {
		p.Tier = policy.DefaultTier
	}
	if s.Order != nil {
		p.Order = *s.Order
	}
	switch s.Enforcement {
	case "", v1.Enforced:
	case v1.Staged:
		p.Enforcement = policy.Staged
	default:
		c.add("spec.enforcement", string(s.Enforcement), "Enforced or Staged", onlyDenies)
		c.closed = true
	}
	for i, t := range s.Types {
		if t != v1.PolicyTypeIngress && t != v1.PolicyTypeEgress {
			c.add(fmt.Sprintf("spec.types[%d]", i), string(t), "Ingress or Egress", "the policy isolates both directions")
		}
	}
	p.Ingress = c.rules("spec.ingress", policy.Ingress, s.Ingress)
	p.Egress = c.rules("spec.egress", policy.Egress, s.Egress)
	return p, c.problems
}

// types returns the directions that a policy isolates. Without types those are
// the directions that have rules, and ingress where none has.
func types(s *v1.PolicySpec) policy.Direction {
	var d policy.Direction
	for _, t := range s.Types {
		switch t {
		case v1.PolicyTypeIngress:
			d |= policy.Ingress
		case v1.PolicyTypeEgress:
			d |= policy.Egress
		default:
			d |= policy.Ingress | policy.Egress
		}
	}
	switch {
	case d != 0:
		return d
	case len(s.Egress) == 0:
		return policy.Ingress
	case len(s.Ingress) == 0:
		return policy.Egress
	}
	return policy.Ingress | policy.Egress
}

// Tier converts a tier. An end that is not understood is Deny.
func Tier(o *v1.Tier) (policy.Tier, []Problem) {
	var ps problems
	t := policy.Tier{Name: o.Name, Order: math.Inf(1), End: policy.Deny}
	if o.Spec.Order != nil {
		t.Order = *o.Spec.Order
	}
	switch o.Spec.DefaultAction {
	case "", v1.TierDeny:
	case v1.TierPass:
		t.End = policy.Pass
	default:
		ps.add("spec.defaultAction", string(o.Spec.DefaultAction), "Deny or Pass", "the tier ends with Deny")
	}
	return t, ps
}

// NetworkSet converts a set of a namespace.
func NetworkSet(o *v1.NetworkSet) (policy.NetworkSet, []Problem) {
	return networkSet(o.Namespace, o.Name, o.Labels, o.Spec.Nets)
}

// GlobalNetworkSet converts a set of the cluster.
func GlobalNetworkSet(o *v1.GlobalNetworkSet) (policy.NetworkSet, []Problem) {
	return networkSet("", o.Name, o.Labels, o.Spec.Nets)
}

func networkSet(namespace, name string, labels map[string]string, nets []v1.Net) (policy.NetworkSet, []Problem) {
	c := own{effect: "this range is not in the set"}
	s := policy.NetworkSet{Namespace: namespace, Name: name, Labels: selector.MakeLabels(labels)}
	s.Nets = c.nets("spec.nets", nets)
	return s, c.problems
}

// HostEndpoint converts a host endpoint.
func HostEndpoint(o *v1.HostEndpoint) (policy.HostEndpoint, []Problem) {
	var ps problems
	h := policy.HostEndpoint{
		Name: o.Name, Node: o.Spec.Node, Interface: o.Spec.InterfaceName, Labels: selector.MakeLabels(o.Labels),
	}
	for i, text := range o.Spec.ExpectedIPs {
		a, err := netip.ParseAddr(string(text))
		if err != nil {
			ps.add(fmt.Sprintf("spec.expectedIPs[%d]", i), string(text), "an IPv4 or IPv6 address", "it is left out")
			continue
		}
		h.Addrs = append(h.Addrs, a.Unmap())
	}
	for i, p := range o.Spec.Ports {
		field := fmt.Sprintf("spec.ports[%d]", i)
		protocol := protocolsByName[p.Protocol]
		if !protocol.HasPorts() || p.Name == "" {
			ps.add(field, p.Protocol+" "+p.Name, "a name, and protocol TCP, UDP or SCTP", "this port has no name")
			continue
		}
		if n, ok := ps.portNumbers(field+".port", protocol, p.Port, p.Port, "this port has no name"); ok {
			h.Ports = append(h.Ports, policy.NamedPort{Name: p.Name, Protocol: protocol, Port: n.First})
		}
	}
	return h, ps
}
