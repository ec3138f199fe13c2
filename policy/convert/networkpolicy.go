package convert

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/koratnet/korat/policy"
)

// networkPolicyOrder places Kubernetes NetworkPolicies among the policies of
// the default tier; their API knows no order.
const networkPolicyOrder = 1000

// What happened to a part that could not be understood.
const (
	peerDropped = "this peer matches nothing"
	portDropped = "this port matches nothing"
)

// NetworkPolicy converts a NetworkPolicy of Kubernetes. The policy is never
// nil. Rules and peers keep their places, so that an index in a trace is the
// index in the object.
func NetworkPolicy(np *networkingv1.NetworkPolicy) (*policy.Policy, []Problem) {
	c := converter{namespace: np.Namespace}
	p := &policy.Policy{
		Key:   policy.Key{Kind: policy.KubernetesNetworkPolicy, Namespace: np.Namespace, Name: np.Name},
		Tier:  policy.DefaultTier,
		Order: networkPolicyOrder,
		Types: c.types(&np.Spec),
	}
	pods, ok := c.labelSelector("spec.podSelector", &np.Spec.PodSelector,
		"the policy isolates every pod that the rest of the selector selects, and allows nothing")
	p.Subject = policy.Scope{Namespace: np.Namespace, Pods: pods}
	for i, r := range np.Spec.Ingress {
		field := fmt.Sprintf("spec.ingress[%d]", i)
		p.Ingress = append(p.Ingress, policy.Rule{
			Action: policy.Allow, Peers: c.peers(field+".from", r.From), Ports: c.ports(field+".ports", r.Ports),
		})
	}
	for i, r := range np.Spec.Egress {
		field := fmt.Sprintf("spec.egress[%d]", i)
		p.Egress = append(p.Egress, policy.Rule{
			Action: policy.Allow, Peers: c.peers(field+".to", r.To), Ports: c.ports(field+".ports", r.Ports),
		})
	}
	if !ok {
		p.Ingress, p.Egress = nil, nil
	}
	return p, c.problems
}

// converter holds what the parts of one object need.
type converter struct {
	problems
	namespace string
}

// types returns the directions that the policy isolates. A policy without
// policyTypes isolates ingress, and egress when it has an egress rule: the API
// server sets it so, and manifests that have not passed it mean the same.
func (c *converter) types(spec *networkingv1.NetworkPolicySpec) policy.Direction {
	if len(spec.PolicyTypes) == 0 {
		if len(spec.Egress) > 0 {
			return policy.Ingress | policy.Egress
		}
		return policy.Ingress
	}
	var d policy.Direction
	for i, t := range spec.PolicyTypes {
		switch t {
		case networkingv1.PolicyTypeIngress:
			d |= policy.Ingress
		case networkingv1.PolicyTypeEgress:
			d |= policy.Egress
		default:
			c.add(fmt.Sprintf("spec.policyTypes[%d]", i), string(t), "Ingress or Egress", "the policy isolates both directions")
			d |= policy.Ingress | policy.Egress
		}
	}
	return d
}

// peers converts a from or to list; an absent or empty one means any address.
func (c *converter) peers(field string, list []networkingv1.NetworkPolicyPeer) []policy.Peer {
	if len(list) == 0 {
		return nil
	}
	peers := make([]policy.Peer, len(list))
	for i, p := range list {
		peers[i] = c.peer(fmt.Sprintf("%s[%d]", field, i), p)
	}
	return peers
}

// peer converts one peer, to the zero Peer if it cannot be understood.
func (c *converter) peer(field string, p networkingv1.NetworkPolicyPeer) policy.Peer {
	switch {
	case p.IPBlock != nil && (p.PodSelector != nil || p.NamespaceSelector != nil):
		c.add(field, "ipBlock with a selector", "either an ipBlock, or selectors", peerDropped)
		return policy.Peer{}
	case p.IPBlock != nil:
		return c.ipBlock(field+".ipBlock", p.IPBlock)
	case p.PodSelector == nil && p.NamespaceSelector == nil:
		c.add(field, "{}", "an ipBlock, a podSelector or a namespaceSelector", peerDropped)
		return policy.Peer{}
	}
	var s policy.Scope
	good := true
	if p.NamespaceSelector == nil {
		s.Namespace = c.namespace
	} else {
		s.Namespaces, good = c.labelSelector(field+".namespaceSelector", p.NamespaceSelector, peerDropped)
	}
	if p.PodSelector != nil {
		pods, ok := c.labelSelector(field+".podSelector", p.PodSelector, peerDropped)
		s.Pods, good = pods, good && ok
	}
	if !good {
		return policy.Peer{}
	}
	return policy.Peer{Scope: &s}
}

// ipBlock converts an address range. An exception that cannot be understood
// takes the whole peer with it, because without the exception it would match more.
func (c *converter) ipBlock(field string, b *networkingv1.IPBlock) policy.Peer {
	net, good := c.cidr(field+".cidr", b.CIDR, peerDropped)
	peer := policy.Peer{Nets: []netip.Prefix{net}}
	for i, text := range b.Except {
		at := fmt.Sprintf("%s.except[%d]", field, i)
		e, ok := c.cidr(at, text, peerDropped)
		switch {
		case !ok:
			good = false
		case good && !e.Overlaps(net):
			c.add(at, text, "a range inside "+b.CIDR, "it excepts nothing")
		case good && e.Bits() <= net.Bits():
			c.add(at, text, "a smaller range inside "+b.CIDR, peerDropped)
			good = false
		default:
			peer.Except = append(peer.Except, e)
		}
	}
	if !good {
		return policy.Peer{}
	}
	slices.SortFunc(peer.Except, netip.Prefix.Compare)
	peer.Except = slices.Compact(peer.Except)
	return peer
}

// ports converts a ports list; an absent or empty one means all traffic. What
// cannot be understood is left out, so the result may be empty and match nothing.
func (c *converter) ports(field string, list []networkingv1.NetworkPolicyPort) []policy.Port {
	if len(list) == 0 {
		return nil
	}
	ports := make([]policy.Port, 0, len(list))
	for i, p := range list {
		if port, ok := c.port(fmt.Sprintf("%s[%d]", field, i), p); ok {
			ports = append(ports, port)
		}
	}
	return ports
}

func (c *converter) port(field string, p networkingv1.NetworkPolicyPort) (policy.Port, bool) {
	protocol, ok := c.protocol(field+".protocol", p.Protocol, portDropped)
	if !ok {
		return policy.Port{}, false
	}
	const numbers = "a number from 1 to 65535"
	switch {
	case p.Port == nil && p.EndPort != nil:
		c.add(field+".endPort", fmt.Sprint(*p.EndPort), "a port beside endPort", portDropped)
		return policy.Port{}, false
	case p.Port == nil:
		return policy.Port{Protocol: protocol}, true
	case p.Port.Type == intstr.String && p.EndPort != nil:
		c.add(field+".endPort", fmt.Sprint(*p.EndPort), "no endPort beside the name of a port", portDropped)
		return policy.Port{}, false
	case p.Port.Type == intstr.String:
		return c.namedPort(field+".port", protocol, p.Port.StrVal)
	case p.Port.IntVal < 1 || p.Port.IntVal > 65535:
		c.add(field+".port", fmt.Sprint(p.Port.IntVal), numbers, portDropped)
		return policy.Port{}, false
	}
	first := uint16(p.Port.IntVal)
	if p.EndPort == nil {
		return policy.Port{Protocol: protocol, First: first, Last: first}, true
	}
	if *p.EndPort < p.Port.IntVal || *p.EndPort > 65535 {
		c.add(field+".endPort", fmt.Sprint(*p.EndPort), fmt.Sprintf("a number from port, %d, to 65535", first), portDropped)
		return policy.Port{}, false
	}
	return policy.Port{Protocol: protocol, First: first, Last: uint16(*p.EndPort)}, true
}

// namedPort converts the name of a port. Any text may be one, but the empty one.
func (ps *problems) namedPort(field string, protocol policy.Protocol, name string) (policy.Port, bool) {
	if name == "" {
		ps.add(field, name, "a number from 1 to 65535, or the name of a port", portDropped)
		return policy.Port{}, false
	}
	return policy.Port{Protocol: protocol, Name: name}, true
}

// protocol converts a protocol's name; none means TCP.
func (ps *problems) protocol(field string, p *corev1.Protocol, effect string) (policy.Protocol, bool) {
	if p == nil {
		return policy.TCP, true
	}
	switch *p {
	case corev1.ProtocolTCP:
		return policy.TCP, true
	case corev1.ProtocolUDP:
		return policy.UDP, true
	case corev1.ProtocolSCTP:
		return policy.SCTP, true
	}
	ps.add(field, string(*p), "TCP, UDP or SCTP", effect)
	return policy.AnyProtocol, false
}
