// Package match is the two-way index between things that carry labels (pods)
// and scopes that select them (policies' subjects, address sets).
//
//	Rows.Matching(scope)        who is selected by this scope? Also of Things
//	Scopes.Matching(ns, labels) which scopes select this thing?
//	Scopes.Moved(before, after) which scopes does a relabelled namespace enter or leave?
//
// Each answer costs what it touches: both directions go through the rarest
// label (hook) that a match must carry, and labels of a namespace are matched
// once per namespace, never once per pod. An index holds no relation between
// the two sides; who needs one (a stage of felix/calc) keeps it and owns its own
// indexes.
//
// The package is pure. An index is used by one goroutine and must not be
// changed while one of its iterators runs.
package match

import (
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/selector"
)

// Namespace is what matching needs to know of the namespace of a thing.
type Namespace struct {
	Name   string
	Labels selector.Labels
	// Known is false while only the name is known, because a thing was heard of
	// before its namespace. No selector over namespace labels selects it then,
	// not even a negative one, so that nothing is opened by ignorance; all() does.
	Known bool
}

// Matches reports whether scope selects a thing with these labels in namespace ns.
func Matches(scope policy.Scope, ns Namespace, labels selector.Labels) bool {
	return InNamespace(scope, ns) && scope.Pods.Matches(labels)
}

// InNamespace reports whether the namespace part of scope selects ns.
func InNamespace(scope policy.Scope, ns Namespace) bool {
	switch {
	case scope.Namespace != "":
		return scope.Namespace == ns.Name
	case scope.Namespaces.IsAll():
		return true
	}
	return ns.Known && scope.Namespaces.Matches(ns.Labels)
}
