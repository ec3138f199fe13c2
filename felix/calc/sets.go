package calc

import (
	"maps"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/compile"
	"github.com/koratnet/korat/policy/ir"
	"github.com/koratnet/korat/policy/match"
)

// sets keeps the members of the sets that active policies refer to: which things
// of the whole cluster their peer selectors match, and where services lead.
type sets struct {
	labels   *labels
	services *services
	sets     map[ir.SetID]*addrSet
	scopes   byKind[*match.Scopes[*addrSet]]
	serving  map[policy.ServiceName]map[*addrSet]struct{}
	news     map[ir.SetID]*desired.SetChange
}

// addrSet is one set. Members are counted: two pods may have one address while
// one of them is going, network sets overlap, and the end of one must not end
// the other.
type addrSet struct {
	kind     ir.SetKind
	id       ir.SetID
	def      policy.Set
	refs     int // programs that refer to it
	members  map[ir.Member]struct{}
	again    map[ir.Member]int32    // how often a member is there beyond once
	add, del map[ir.Member]struct{} // since the last flush; disjoint
}

func newSets(labels *labels, services *services) sets {
	s := sets{
		labels: labels, services: services,
		sets: map[ir.SetID]*addrSet{}, serving: map[policy.ServiceName]map[*addrSet]struct{}{},
	}
	for i := range s.scopes {
		s.scopes[i] = match.NewScopes[*addrSet]()
	}
	return s
}

func (s *sets) drain(policies *policies) {
	missing := s.count(policies)
	touched := map[*addrSet]struct{}{}
	for _, kind := range policy.AllThings {
		if scopes := *s.scopes.of(kind); scopes.Len() > 0 {
			s.followThings(kind, scopes, touched)
			s.followNamespaces(kind, scopes, touched)
		}
	}
	s.followServices(touched)
	for set := range touched {
		if len(set.add)+len(set.del) > 0 {
			s.say(set, set.change())
		}
	}
	for id, w := range missing {
		s.begin(&addrSet{id: id, kind: compile.SetKindOf(w.def), def: w.def, refs: w.refs})
	}
}

// count follows the references of changed policies. It ends the sets that lost
// their last one, and returns those that are missing with how often they are wanted.
func (s *sets) count(policies *policies) map[ir.SetID]wanted {
	refs := map[ir.SetID]wanted{}
	tally := func(p *policy.Policy, n int) {
		if p == nil {
			return
		}
		for _, d := range policy.Directions {
			for _, def := range compile.Sets(p, d) {
				id := compile.SetIDOf(def)
				refs[id] = wanted{def, refs[id].refs + n}
			}
		}
	}
	for _, p := range policies.changed {
		tally(enforced(p.was), -1)
		tally(enforced(p.is), +1)
	}
	for id, w := range refs {
		set := s.sets[id]
		if set == nil {
			continue // a policy that let go of a set had one: this is a first reference
		}
		delete(refs, id)
		if set.refs += w.refs; set.refs == 0 {
			s.end(set)
		}
	}
	return refs
}

// wanted is a set and the change of the number of references to it.
type wanted struct {
	def  policy.Set
	refs int
}

// followThings moves the members of changed things from the sets that selected
// them before to those that do now.
func (s *sets) followThings(kind policy.Things, scopes *match.Scopes[*addrSet], touched map[*addrSet]struct{}) {
	for _, c := range *s.labels.changed.of(kind) {
		if c.was != nil {
			for set := range scopes.Matching(s.labels.namespaceBefore(c.was.namespace), c.was.labels) {
				set.leave(c.was.ends)
				touched[set] = struct{}{}
			}
		}
		if c.is != nil {
			for set := range scopes.Matching(s.labels.namespace(c.is.namespace), c.is.labels) {
				set.join(c.is.ends)
				touched[set] = struct{}{}
			}
		}
	}
}

// followNamespaces moves the things of relabelled namespaces; followThings has
// seen to those that changed themselves.
func (s *sets) followNamespaces(kind policy.Things, scopes *match.Scopes[*addrSet], touched map[*addrSet]struct{}) {
	index := *s.labels.index.of(kind)
	for name, ns := range s.labels.moved {
		for set, joined := range scopes.Moved(*ns.was, *ns.is) {
			touched[set] = struct{}{}
			for thing := range index.In(name) {
				switch {
				case thing.new || !set.def.Scope.Pods.Matches(thing.labels):
				case joined:
					set.join(thing.ends)
				default:
					set.leave(thing.ends)
				}
			}
		}
	}
}

// followServices moves the ends of changed endpoint slices.
func (s *sets) followServices(touched map[*addrSet]struct{}) {
	if len(s.serving) == 0 {
		return
	}
	in := &s.services.in.slices
	for name, was := range in.was {
		if was != nil {
			for set := range s.serving[was.Service] {
				set.leave(sliceEnds(was))
				touched[set] = struct{}{}
			}
		}
		if is := in.now[name]; is != nil {
			for set := range s.serving[is.Service] {
				set.join(sliceEnds(is))
				touched[set] = struct{}{}
			}
		}
	}
}

// begin makes a set that was missing, and tells it whole.
func (s *sets) begin(set *addrSet) {
	s.sets[set.id] = set
	var members []ir.Member // first, because a map that grows costs more
	add := func(e ends) {
		e.members(&set.def, func(m ir.Member) { members = append(members, m) })
	}
	if service := set.def.Service; service != (policy.ServiceName{}) {
		if s.serving[service] == nil {
			s.serving[service] = map[*addrSet]struct{}{}
		}
		s.serving[service][set] = struct{}{}
		s.services.each(service, add)
	} else {
		for _, kind := range policy.AllThings {
			if scope, ok := set.def.Scope.For(kind); ok {
				(*s.scopes.of(kind)).Set(set, scope)
			}
		}
		s.labels.each(set.def.Scope, add)
	}
	set.members = make(map[ir.Member]struct{}, len(members))
	for _, m := range members {
		set.put(m)
	}
	s.say(set, set.whole())
}

// end forgets a set that nobody refers to any more.
func (s *sets) end(set *addrSet) {
	delete(s.sets, set.id)
	for _, scopes := range s.scopes {
		scopes.Remove(set)
	}
	service := set.def.Service
	if delete(s.serving[service], set); len(s.serving[service]) == 0 {
		delete(s.serving, service)
	}
	s.say(set, &desired.SetChange{Kind: set.kind, Gone: true})
}

func (s *sets) say(set *addrSet, c *desired.SetChange) {
	if s.news == nil {
		s.news = map[ir.SetID]*desired.SetChange{}
	}
	s.news[set.id] = c
}

func (s *sets) take() map[ir.SetID]*desired.SetChange {
	news := s.news
	s.news = nil
	return news
}

func (x *addrSet) join(e ends) {
	e.members(&x.def, func(m ir.Member) {
		if x.put(m) {
			note(&x.add, x.del, m)
		}
	})
}

func (x *addrSet) leave(e ends) {
	e.members(&x.def, func(m ir.Member) {
		if x.take(m) {
			note(&x.del, x.add, m)
		}
	})
}

// put counts a member once more, and reports whether it was not there before.
func (x *addrSet) put(m ir.Member) bool {
	n := len(x.members)
	if x.members[m] = struct{}{}; len(x.members) > n {
		return true
	}
	if x.again == nil {
		x.again = map[ir.Member]int32{}
	}
	x.again[m]++
	return false
}

// take counts a member once less, and reports whether it is gone.
func (x *addrSet) take(m ir.Member) bool {
	if x.again[m] == 0 {
		delete(x.members, m)
		return true
	}
	if x.again[m]--; x.again[m] == 0 {
		delete(x.again, m)
	}
	return false
}

// whole returns the change that makes a set what x is.
func (x *addrSet) whole() *desired.SetChange {
	return &desired.SetChange{Kind: x.kind, Whole: true, Add: maps.Clone(x.members)}
}

// change returns what became of x since the last flush, and forgets it.
func (x *addrSet) change() *desired.SetChange {
	c := &desired.SetChange{Kind: x.kind, Add: x.add, Del: x.del}
	x.add, x.del = nil, nil
	return c
}

// note marks m in into, or takes back the opposite mark.
func note(into *map[ir.Member]struct{}, opposite map[ir.Member]struct{}, m ir.Member) {
	if _, marked := opposite[m]; marked {
		delete(opposite, m)
		return
	}
	if *into == nil {
		*into = map[ir.Member]struct{}{}
	}
	(*into)[m] = struct{}{}
}
