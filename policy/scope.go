package policy

import (
	"slices"
	"strings"

	"github.com/koratnet/korat/policy/selector"
)

// Things is a set of kinds of things that a scope may select.
type Things uint8

// The kinds. Pods on the host network are none: their address is the node's.
// Namespaced and global network sets are addresses with labels; nodes are
// selected by the labels of the Node.
const (
	Pods Things = 1 << iota
	NetworkSets
	GlobalNetworkSets
	HostEndpoints
	Nodes
)

// AllThings lists the kinds one by one, for loops.
var AllThings = [...]Things{Pods, NetworkSets, GlobalNetworkSets, HostEndpoints, Nodes}

var thingNames = map[Things]string{
	Pods: "pods", NetworkSets: "networksets", GlobalNetworkSets: "globalnetworksets",
	HostEndpoints: "hostendpoints", Nodes: "nodes",
}

// Namespaced reports whether a thing of this one kind lives in a namespace.
func (t Things) Namespaced() bool { return t == Pods || t == NetworkSets }

// String lists the kinds.
func (t Things) String() string {
	var names []string
	for _, kind := range AllThings {
		if t&kind != 0 {
			names = append(names, thingNames[kind])
		}
	}
	return strings.Join(names, "+")
}

// Scope selects things: those of a kind it names whose namespace and whose
// labels both match. Things without a namespace need only have the labels.
type Scope struct {
	// Namespace is an exact namespace name; when set, Namespaces is nil.
	Namespace string
	// Namespaces selects namespaces by label; nil together with an empty Namespace
	// means every namespace.
	Namespaces *selector.Selector
	// Pods selects things by label; nil selects all.
	Pods *selector.Selector
	// Things are the kinds; zero means pods alone.
	Things Things
}

// Kinds returns the kinds of things that s may select.
func (s Scope) Kinds() Things {
	if s.Things == 0 {
		return Pods
	}
	return s.Things
}

// For returns s as it applies to things of one kind, which is how an index of
// such things understands it, and whether it applies at all.
func (s Scope) For(kind Things) (Scope, bool) {
	if s.Kinds()&kind == 0 {
		return Scope{}, false
	}
	if kind.Namespaced() {
		return Scope{Namespace: s.Namespace, Namespaces: s.Namespaces, Pods: s.Pods}, true
	}
	return Scope{Pods: s.Pods}, true
}

// String returns the canonical text of s. Equal texts select equal things, so it
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
	b.WriteString("; " + s.Kinds().String() + " ")
	if s.Pods == nil {
		b.WriteString("all()")
	} else {
		b.WriteString(s.Pods.String())
	}
	return b.String()
}

// A pod is also selected by its service account: it carries these labels beside
// its own. No label of Kubernetes can have such a key, so no pod can claim them.
const (
	// AccountLabel has the name of the service account.
	AccountLabel = "korat.dev/serviceaccount/name"
	// accountPrefix precedes the keys of the service account's own labels.
	accountPrefix = "korat.dev/serviceaccount/label/"
)

// Account selects pods by their service account: by name when there are names,
// and by the account's labels. A nil selector selects all accounts. Pods whose
// account is not known, and things that have none, are never selected.
func Account(names []string, labels *selector.Selector) *selector.Selector {
	known := selector.Has(AccountLabel)
	if len(names) > 0 {
		known = selector.In(AccountLabel, names...)
	}
	return selector.And(known, labels.Prefixed(accountPrefix))
}

// PodLabels returns what selectors see of a pod: its labels, and those that
// tell of its service account. An empty name means that none is known.
func PodLabels(own selector.Labels, account string, accountLabels selector.Labels) selector.Labels {
	if account == "" {
		return own
	}
	return selector.Merge(own, AccountLabels(account, accountLabels))
}

// AccountLabels returns those of PodLabels that tell of the service account: the
// same for all its pods.
func AccountLabels(account string, labels selector.Labels) selector.Labels {
	all := make(selector.Labels, 0, 1+len(labels))
	all = append(all, selector.MakePair(AccountLabel, account))
	for _, p := range labels {
		kv := p.Value()
		all = append(all, selector.MakePair(accountPrefix+kv.Key, kv.Value))
	}
	slices.SortFunc(all, func(a, b selector.Pair) int { return strings.Compare(a.Value().Key, b.Value().Key) })
	return all
}

// ServiceName names a Service of Kubernetes.
type ServiceName struct{ Namespace, Name string }

// String returns namespace/name.
func (s ServiceName) String() string { return s.Namespace + "/" + s.Name }

// PortName is the name that pods give a port of theirs; two pods may give it to
// different numbers. AnyProtocol matches the name with every protocol.
type PortName struct {
	Protocol Protocol
	Name     string
}

// Set defines a set of ends of connections, by what its members are:
//
//	Scope             the addresses of the things that it selects
//	Scope, Port       (address, protocol, port), where the things give the port this name
//	Service           (address, protocol, port) of all its endpoints, ready or not
//	Service, Portless the addresses of all its endpoints
type Set struct {
	Scope    Scope
	Port     PortName
	Service  ServiceName
	Portless bool
}

// HasPorts reports whether members are (address, protocol, port).
func (s Set) HasPorts() bool {
	return s.Service != ServiceName{} && !s.Portless || s.Port != PortName{}
}

// OfPods reports whether s holds the addresses of pods and of nothing else.
func (s Set) OfPods() bool {
	return s.Service == ServiceName{} && s.Port == PortName{} && s.Scope.Kinds() == Pods
}

// String returns the canonical text of s; equal texts have equal members.
func (s Set) String() string {
	switch {
	case s.Service != ServiceName{} && s.Portless:
		return "addresses of service " + s.Service.String()
	case s.Service != ServiceName{}:
		return "service " + s.Service.String()
	case s.Port != PortName{}:
		return s.Scope.String() + "; port " + s.Port.Protocol.String() + " " + s.Port.Name
	}
	return s.Scope.String()
}
