package calc

import (
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/match"
	"github.com/koratnet/korat/policy/selector"
)

// selection relates policies to the local things of one kind that they select.
// Its owner first brings both indexes up to date and marks what changed, and
// then has the relation follow.
type selection struct {
	kind     policy.Things
	policies *match.Scopes[string] // by policy
	things   *match.Things[string]
	byPolicy relation // policy → things
	byThing  relation // thing → policies

	dirtyPolicies, dirtyThings set // whose selection may have changed in this flush
}

func newSelection(kind policy.Things) selection {
	return selection{
		kind: kind, policies: match.NewScopes[string](), things: match.NewThings[string](),
		byPolicy: relation{}, byThing: relation{}, dirtyPolicies: set{}, dirtyThings: set{},
	}
}

// subjectOf returns the scope by which p selects things of a kind, and whether
// it may select any.
func subjectOf(p *policy.Policy, kind policy.Things) (policy.Scope, bool) {
	if kind == policy.Pods && !p.Hook.OnPods() {
		return policy.Scope{}, false
	}
	return p.Subject.For(kind)
}

// setPolicy takes over a changed policy; nil is gone.
func (s *selection) setPolicy(name string, p *policy.Policy) {
	s.dirtyPolicies.add(name)
	if p != nil {
		if scope, ok := subjectOf(p, s.kind); ok {
			s.policies.Set(name, scope)
			return
		}
	}
	s.policies.Remove(name)
}

// setThing takes over a changed thing.
func (s *selection) setThing(name, namespace string, labels selector.Labels) {
	s.dirtyThings.add(name)
	s.things.Set(name, namespace, labels)
}

// removeThing takes over a thing that is gone, or that cannot be judged.
func (s *selection) removeThing(name string) {
	s.dirtyThings.add(name)
	s.things.Remove(name)
}

// relate makes the relation follow what is marked.
func (s *selection) relate() {
	things := s.dirtyThings
	s.dirtyThings = set{}
	for name := range s.dirtyPolicies {
		for thing := range s.byPolicy[name] {
			s.byThing.remove(thing, name)
			s.dirtyThings.add(thing)
		}
		delete(s.byPolicy, name)
		if scope, ok := s.policies.Get(name); ok {
			for thing := range s.things.Matching(scope) {
				s.link(name, thing)
			}
		}
	}
	for thing := range things {
		s.rejudge(thing)
	}
}

// rejudge asks all policies about one thing.
func (s *selection) rejudge(thing string) {
	s.dirtyThings.add(thing)
	for name := range s.byThing[thing] {
		s.byPolicy.remove(name, thing)
		s.dirtyPolicies.add(name)
	}
	delete(s.byThing, thing)
	if ns, labels, judged := s.things.Get(thing); judged {
		for name := range s.policies.Matching(ns, labels) {
			s.link(name, thing)
		}
	}
}

func (s *selection) link(name, thing string) {
	s.byPolicy.add(name, thing)
	s.byThing.add(thing, name)
	s.dirtyPolicies.add(name)
	s.dirtyThings.add(thing)
}

func (s *selection) settle() {
	forget(&s.dirtyPolicies)
	forget(&s.dirtyThings)
}

// set is a set of names.
type set map[string]struct{}

func (s set) add(name string)      { s[name] = struct{}{} }
func (s set) has(name string) bool { _, ok := s[name]; return ok }

// relation holds for each name the set of names that it is related to.
type relation map[string]set

func (r relation) add(a, b string) {
	if r[a] == nil {
		r[a] = set{}
	}
	r[a].add(b)
}

func (r relation) remove(a, b string) {
	if delete(r[a], b); len(r[a]) == 0 {
		delete(r, a)
	}
}
