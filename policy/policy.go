// Package policy is the vocabulary of network policy: who is selected, in which
// order, and what may talk to what. Every source (Kubernetes NetworkPolicy,
// ClusterNetworkPolicy, our own CRDs) is converted to these types by
// policy/convert; felix/calc decides which of them matter on a node; and
// policy/compile turns them into policy/ir, whose meaning policy/eval defines.
//
// The package holds plain values. They are not changed after conversion.
package policy

import (
	"cmp"
	"net/netip"
	"strconv"
	"strings"

	"github.com/koratnet/korat/policy/selector"
)

// Kind says which API resource a policy came from.
type Kind uint8

// The kinds of policy, in the order that breaks ties between equal orders and names.
const (
	KubernetesNetworkPolicy Kind = iota // networking.k8s.io/v1 NetworkPolicy
)

// String returns the resource's short name as it appears in traces and chain comments.
func (k Kind) String() string {
	switch k {
	case KubernetesNetworkPolicy:
		return "knp"
	}
	return "unknown"
}

// Key identifies a policy in the cluster. Namespace is empty for cluster-wide kinds.
type Key struct {
	Kind            Kind
	Namespace, Name string
}

// String returns kind/namespace/name, or kind/name for cluster-wide kinds.
func (k Key) String() string {
	if k.Namespace == "" {
		return k.Kind.String() + "/" + k.Name
	}
	return k.Kind.String() + "/" + k.Namespace + "/" + k.Name
}

// Compare orders keys by name, namespace and kind: the order in which policies
// of the same tier and order number are evaluated on every node.
func (k Key) Compare(o Key) int {
	return cmp.Or(strings.Compare(k.Name, o.Name), strings.Compare(k.Namespace, o.Namespace), cmp.Compare(k.Kind, o.Kind))
}

// Direction is a set of traffic directions, seen from the selected pod.
type Direction uint8

// Ingress is traffic to the selected pod, Egress traffic from it.
const (
	Ingress Direction = 1 << iota
	Egress
)

// Directions lists the single directions, for loops over both.
var Directions = [...]Direction{Ingress, Egress}

// String returns "ingress", "egress", "ingress+egress" or "none".
func (d Direction) String() string {
	switch d {
	case Ingress:
		return "ingress"
	case Egress:
		return "egress"
	case Ingress | Egress:
		return "ingress+egress"
	}
	return "none"
}

// Action is what a rule says about a packet that it matches.
type Action uint8

// Deny is the zero value, so that an action nobody set is closed.
const (
	Deny  Action = iota
	Allow        // accept in this direction; later policies are not asked
	Pass         // leave this tier, go on with the next
)

// String returns the action's name.
func (a Action) String() string {
	switch a {
	case Allow:
		return "Allow"
	case Pass:
		return "Pass"
	}
	return "Deny"
}

// DefaultTier is the tier of Kubernetes NetworkPolicies and of every policy that names none.
const DefaultTier = "default"

// Policy is one policy after conversion.
type Policy struct {
	Key  Key
	Tier string // name of the tier, DefaultTier for Kubernetes NetworkPolicies
	// Order places the policy in its tier, ascending; equal orders fall back to
	// Key.Compare. Kubernetes NetworkPolicies have 1000, as there is no order in their API.
	Order float64
	// Subject is who is selected.
	Subject Scope
	// Types are the directions in which the subject is isolated: rules of other
	// directions have no effect.
	Types           Direction
	Ingress, Egress []Rule
}

// Rules returns the rules of one direction.
func (p *Policy) Rules(d Direction) []Rule {
	if d == Egress {
		return p.Egress
	}
	return p.Ingress
}

// Compare orders policies by tier, order number and key: the order in which they
// are evaluated, in which every node agrees. Tiers compare by name.
func Compare(a, b *Policy) int {
	return cmp.Or(strings.Compare(a.Tier, b.Tier), cmp.Compare(a.Order, b.Order), a.Key.Compare(b.Key))
}

// Scope selects pods: those whose namespace and whose labels both match.
// Host-network pods are never selected: their address is the node's.
type Scope struct {
	// Namespace is an exact namespace name; when set, Namespaces is nil.
	Namespace string
	// Namespaces selects namespaces by label; nil together with an empty Namespace
	// means every namespace.
	Namespaces *selector.Selector
	// Pods selects pods by label; nil selects all.
	Pods *selector.Selector
}

// String returns the canonical text of s. Equal texts select equal pods, so it
// serves as identity: equal scopes share one address set.
func (s Scope) String() string {
	var b strings.Builder
	switch {
	case s.Namespace != "":
		b.WriteString("namespace " + s.Namespace)
	case s.Namespaces != nil:
		b.WriteString("namespaces " + s.Namespaces.String())
	default:
		b.WriteString("namespaces all()")
	}
	b.WriteString("; pods ")
	if s.Pods == nil {
		b.WriteString("all()")
	} else {
		b.WriteString(s.Pods.String())
	}
	return b.String()
}

// Rule matches packets whose other end is one of Peers and whose destination is
// one of Ports. It is the shape of Kubernetes' rules: two lists, each an OR,
// joined by AND.
type Rule struct {
	Action Action
	// Peers are the other ends; nil matches any address, an empty non-nil list none.
	Peers []Peer
	// Ports are the destination protocols and ports; nil matches all traffic, an
	// empty non-nil list none.
	Ports []Port
}

// Peer is the other end of a connection: either pods (Scope set) or addresses
// (Net valid). A Peer with neither matches nothing: that is what an unusable
// peer in an object is converted to.
type Peer struct {
	Scope  *Scope
	Net    netip.Prefix   // masked; matches pods' addresses too
	Except []netip.Prefix // inside Net, masked; subtracted from this peer only
}

// Port matches a destination port range of one protocol. First and Last both
// zero match every port of the protocol.
type Port struct {
	Protocol    Protocol
	First, Last uint16 // inclusive
}

// Protocol is an IP protocol number; zero means any protocol.
type Protocol uint8

// The protocols that Kubernetes names, and ICMP.
const (
	AnyProtocol Protocol = 0
	ICMP        Protocol = 1
	TCP         Protocol = 6
	UDP         Protocol = 17
	ICMPv6      Protocol = 58
	SCTP        Protocol = 132
)

// HasPorts reports whether packets of the protocol carry port numbers.
func (p Protocol) HasPorts() bool { return p == TCP || p == UDP || p == SCTP }

// String returns the protocol's name, or its number where it has none here.
func (p Protocol) String() string {
	switch p {
	case AnyProtocol:
		return "any"
	case ICMP:
		return "ICMP"
	case TCP:
		return "TCP"
	case UDP:
		return "UDP"
	case ICMPv6:
		return "ICMPv6"
	case SCTP:
		return "SCTP"
	}
	return "protocol " + strconv.Itoa(int(p))
}
