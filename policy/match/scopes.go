package match

import (
	"iter"

	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/selector"
)

// Scopes indexes scopes by what they select. S is whatever the owner calls a
// scope by; several may have the same scope.
type Scopes[S comparable] struct {
	scopes map[S]policy.Scope
	// A scope is in the group of its namespace part: one name, everywhere, or a
	// selector over namespace labels. Equal parts share a group.
	named      map[string]*hooked[S]
	everywhere *hooked[S]
	selected   map[string]*group[S] // by the selector's text
	byHook     *hooked[*group[S]]   // the same groups, by the selector's hooks
}

// group is the scopes that share a selector over namespace labels.
type group[S comparable] struct {
	namespaces *selector.Selector
	scopes     *hooked[S]
}

// NewScopes returns an empty index.
func NewScopes[S comparable]() *Scopes[S] {
	return &Scopes[S]{
		scopes:     map[S]policy.Scope{},
		named:      map[string]*hooked[S]{},
		everywhere: newHooked[S](),
		selected:   map[string]*group[S]{},
		byHook:     newHooked[*group[S]](),
	}
}

// Set adds the scope that s stands for, or replaces it.
func (x *Scopes[S]) Set(s S, scope policy.Scope) {
	x.Remove(s)
	x.scopes[s] = scope
	x.homeOf(scope).add(s, scope.Pods)
}

// Remove forgets s; it need not exist.
func (x *Scopes[S]) Remove(s S) {
	scope, ok := x.scopes[s]
	if !ok {
		return
	}
	delete(x.scopes, s)
	home := x.homeOf(scope)
	home.remove(s)
	if home.len() > 0 || home == x.everywhere {
		return
	}
	if scope.Namespace != "" {
		delete(x.named, scope.Namespace)
		return
	}
	text := scope.Namespaces.String()
	x.byHook.remove(x.selected[text])
	delete(x.selected, text)
}

// Get returns the scope that s stands for.
func (x *Scopes[S]) Get(s S) (policy.Scope, bool) {
	scope, ok := x.scopes[s]
	return scope, ok
}

// Len returns the number of scopes.
func (x *Scopes[S]) Len() int { return len(x.scopes) }

// Matching iterates the scopes that select a thing with these labels in
// namespace ns, each once, in no order.
func (x *Scopes[S]) Matching(ns Namespace, labels selector.Labels) iter.Seq[S] {
	return func(yield func(S) bool) {
		if h := x.named[ns.Name]; h != nil && !h.matching(labels, yield) {
			return
		}
		if !x.everywhere.matching(labels, yield) || !ns.Known {
			return
		}
		x.byHook.matching(ns.Labels, func(g *group[S]) bool {
			return g.scopes.matching(labels, yield)
		})
	}
}

// Moved iterates the scopes that select exactly one of the two states of a
// namespace by its labels, with true when it is the state after. Whether they
// select its things depends on the things' own labels.
func (x *Scopes[S]) Moved(before, after Namespace) iter.Seq2[S, bool] {
	return func(yield func(S, bool) bool) {
		_ = x.crossed(after, before, func(s S) bool { return yield(s, true) }) &&
			x.crossed(before, after, func(s S) bool { return yield(s, false) })
	}
}

// crossed visits the scopes whose namespace selector selects in but not out.
func (x *Scopes[S]) crossed(in, out Namespace, visit func(S) bool) bool {
	if !in.Known {
		return true
	}
	return x.byHook.matching(in.Labels, func(g *group[S]) bool {
		return out.Known && g.namespaces.Matches(out.Labels) || g.scopes.each(visit)
	})
}

// homeOf returns the group where scope is or will be.
func (x *Scopes[S]) homeOf(scope policy.Scope) *hooked[S] {
	switch {
	case scope.Namespace != "":
		h := x.named[scope.Namespace]
		if h == nil {
			h = newHooked[S]()
			x.named[scope.Namespace] = h
		}
		return h
	case scope.Namespaces.IsAll():
		return x.everywhere
	}
	text := scope.Namespaces.String()
	g := x.selected[text]
	if g == nil {
		g = &group[S]{namespaces: scope.Namespaces, scopes: newHooked[S]()}
		x.selected[text] = g
		x.byHook.add(g, scope.Namespaces)
	}
	return g.scopes
}
