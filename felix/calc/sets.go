package calc

import (
	"net/netip"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/compile"
	"github.com/koratnet/korat/policy/ir"
	"github.com/koratnet/korat/policy/match"
)

// sets keeps the members of the address sets that active policies refer to:
// which pods of the whole cluster their peer selectors match.
type sets struct {
	labels *labels
	sets   map[ir.SetID]*addrSet
	scopes *match.Scopes[*addrSet]
	news   map[ir.SetID]*desired.SetChange
}

// addrSet is one set. Members are counted: two pods may have one address while
// one of them is going, and the end of one must not end the other.
type addrSet struct {
	id       ir.SetID
	refs     int // programs that refer to it
	members  map[netip.Addr]int32
	add, del map[ir.Member]struct{} // since the last flush; disjoint
}

func newSets(labels *labels) sets {
	return sets{labels: labels, sets: map[ir.SetID]*addrSet{}, scopes: match.NewScopes[*addrSet]()}
}

func (s *sets) drain(policies *policies) {
	missing := s.count(policies)
	touched := map[*addrSet]struct{}{}
	s.followPods(touched)
	s.followNamespaces(touched)
	for set := range touched {
		if len(set.add)+len(set.del) > 0 {
			s.say(set.id, &desired.SetChange{Add: set.add, Del: set.del})
			set.add, set.del = nil, nil
		}
	}
	for id, w := range missing {
		s.begin(id, w)
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
			for _, set := range compile.Sets(p, d) {
				if !set.OfPods() {
					continue // nobody fills it yet: to the data plane it is missing, and closed
				}
				id := compile.SetIDOf(set)
				refs[id] = wanted{set.Scope, refs[id].refs + n}
			}
		}
	}
	for _, p := range policies.changed {
		tally(p.was, -1)
		tally(p.is, +1)
	}
	for id, w := range refs {
		set := s.sets[id]
		if set == nil {
			continue // a policy that let go of a set had one: this is a first reference
		}
		delete(refs, id)
		if set.refs += w.refs; set.refs == 0 {
			delete(s.sets, id)
			s.scopes.Remove(set)
			s.say(id, &desired.SetChange{Gone: true})
		}
	}
	return refs
}

// wanted is a scope and the change of the number of references to its set.
type wanted struct {
	scope policy.Scope
	refs  int
}

// followPods moves the addresses of changed pods from the sets that selected
// them before to those that do now.
func (s *sets) followPods(touched map[*addrSet]struct{}) {
	for _, pod := range s.labels.changed {
		if was := pod.was; was != nil {
			ns := s.labels.namespaceBefore(was.namespace)
			for set := range s.scopes.Matching(ns, was.labels) {
				set.leave(was.addrs)
				touched[set] = struct{}{}
			}
		}
		if is := pod.is; is != nil {
			ns := s.labels.index.Namespace(is.namespace)
			for set := range s.scopes.Matching(ns, is.labels) {
				set.join(is.addrs)
				touched[set] = struct{}{}
			}
		}
	}
}

// followNamespaces moves the pods of relabelled namespaces; followPods has seen
// to those that changed themselves.
func (s *sets) followNamespaces(touched map[*addrSet]struct{}) {
	for name, ns := range s.labels.moved {
		for set, joined := range s.scopes.Moved(*ns.was, *ns.is) {
			scope, _ := s.scopes.Get(set)
			touched[set] = struct{}{}
			for pod := range s.labels.index.In(name) {
				if _, seen := s.labels.changed[pod]; seen {
					continue
				}
				t := s.labels.thing(pod, s.labels.in.pods.now[pod])
				switch {
				case !scope.Pods.Matches(t.labels):
				case joined:
					set.join(t.addrs)
				default:
					set.leave(t.addrs)
				}
			}
		}
	}
}

// begin makes a set that was missing, and tells it whole.
func (s *sets) begin(id ir.SetID, w wanted) {
	set := &addrSet{id: id, refs: w.refs, members: map[netip.Addr]int32{}}
	for a := range s.labels.matching(w.scope) {
		set.members[a]++
	}
	s.sets[id] = set
	s.scopes.Set(set, w.scope)
	whole := make(map[ir.Member]struct{}, len(set.members))
	for a := range set.members {
		whole[member(a)] = struct{}{}
	}
	s.say(id, &desired.SetChange{Whole: true, Add: whole})
}

func (s *sets) say(id ir.SetID, c *desired.SetChange) {
	if s.news == nil {
		s.news = map[ir.SetID]*desired.SetChange{}
	}
	c.Kind = ir.Addrs
	s.news[id] = c
}

func (s *sets) take() map[ir.SetID]*desired.SetChange {
	news := s.news
	s.news = nil
	return news
}

func (x *addrSet) join(addrs []netip.Addr) {
	for _, a := range addrs {
		if x.members[a]++; x.members[a] == 1 {
			note(&x.add, x.del, a)
		}
	}
}

func (x *addrSet) leave(addrs []netip.Addr) {
	for _, a := range addrs {
		if x.members[a]--; x.members[a] == 0 {
			delete(x.members, a)
			note(&x.del, x.add, a)
		}
	}
}

// note marks a in into, or takes back the opposite mark.
func note(into *map[ir.Member]struct{}, opposite map[ir.Member]struct{}, a netip.Addr) {
	m := member(a)
	if _, marked := opposite[m]; marked {
		delete(opposite, m)
		return
	}
	if *into == nil {
		*into = map[ir.Member]struct{}{}
	}
	(*into)[m] = struct{}{}
}

func member(a netip.Addr) ir.Member { return ir.Member{Prefix: single(a)} }
