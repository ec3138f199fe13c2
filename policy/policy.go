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
	"strings"
)

// Kind says which API resource a policy came from.
type Kind uint8

// The kinds of policy, in the order that breaks ties between equal orders and names.
const (
	KubernetesNetworkPolicy    Kind = iota // networking.k8s.io/v1 NetworkPolicy
	NetworkPolicy                          // korat.dev/v1 NetworkPolicy
	GlobalNetworkPolicy                    // korat.dev/v1 GlobalNetworkPolicy
	ClusterNetworkPolicy                   // policy.networking.k8s.io/v1alpha2 ClusterNetworkPolicy
	AdminNetworkPolicy                     // policy.networking.k8s.io/v1alpha1 AdminNetworkPolicy
	BaselineAdminNetworkPolicy             // policy.networking.k8s.io/v1alpha1 BaselineAdminNetworkPolicy
)

var kindNames = [...]string{"knp", "np", "gnp", "cnp", "anp", "banp"}

// String returns the resource's short name as it appears in traces and chain comments.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "unknown"
}

// MarshalText returns String.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

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

// MarshalText returns String.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

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

// MarshalText returns String.
func (d Direction) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// Action is what a rule says about a packet that it matches.
type Action uint8

// Deny is the zero value, so that an action nobody set is closed.
const (
	Deny  Action = iota
	Allow        // accept in this direction; later policies are not asked
	Pass         // leave this tier, go on with the next
	Log          // note the packet, go on with the next rule
)

// Ends reports whether no later rule of the same policy is asked after a.
func (a Action) Ends() bool { return a != Log }

// String returns the action's name.
func (a Action) String() string {
	switch a {
	case Allow:
		return "Allow"
	case Pass:
		return "Pass"
	case Log:
		return "Log"
	}
	return "Deny"
}

// MarshalText returns String.
func (a Action) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// Enforcement says whether a policy has effect.
type Enforcement uint8

// Enforced policies decide. Staged ones never do: traces tell what they would
// decide if they were enforced.
const (
	Enforced Enforcement = iota
	Staged
)

// Hook says at which point of a packet's way a policy acts. Pods know only
// Normal; the others are for host endpoints.
type Hook uint8

// Normal is traffic that begins or ends at the endpoint. NormalAndForward is
// also what the host forwards. PreDNAT acts on ingress before any destination
// is translated, Untracked before connection tracking.
const (
	Normal Hook = iota
	NormalAndForward
	PreDNAT
	Untracked
)

// OnPods reports whether policies with this hook act on pods.
func (h Hook) OnPods() bool { return h == Normal || h == NormalAndForward }

// Policy is one policy after conversion.
type Policy struct {
	Key Key
	// Generation of the object, which counts its changes; 0 where it has none. It
	// is for reports and means nothing to packets.
	Generation int64
	Tier       string // name of the tier, DefaultTier for Kubernetes NetworkPolicies
	// Order places the policy in its tier, ascending, infinity last; equal orders
	// fall back to Key.Compare. Kubernetes NetworkPolicies have 1000, as there is
	// no order in their API.
	Order       float64
	Enforcement Enforcement
	Hook        Hook
	// Subject is who is selected: pods, or host endpoints as well.
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
