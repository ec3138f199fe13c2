package calc

import (
	"cmp"
	"slices"

	"github.com/koratnet/korat/policy"
)

// policies knows which policies are active here: those that select at least one
// local endpoint. The others cost this node nothing.
type policies struct {
	in      *inputs
	active  map[string]*policy.Policy
	changed map[string]moved[policy.Policy] // in this flush; nil is not active
}

func newPolicies(in *inputs) policies {
	return policies{in: in, active: map[string]*policy.Policy{}, changed: map[string]moved[policy.Policy]{}}
}

func (p *policies) drain(subjects *subjects) {
	for name := range subjects.dirtyPolicies {
		was := p.active[name]
		var is *policy.Policy
		if len(subjects.byPolicy[name]) > 0 {
			is = p.in.policies.now[name].Policy
			p.active[name] = is
		} else {
			delete(p.active, name)
		}
		if was != is {
			p.changed[name] = moved[policy.Policy]{was, is}
		}
	}
}

// inOrder returns the active policies of these names in the order in which they
// are evaluated, on every node the same. Tiers are ordered by name as long as
// none but the default one exists.
func (p *policies) inOrder(names set) []*policy.Policy {
	list := make([]*policy.Policy, 0, len(names))
	for name := range names {
		list = append(list, p.active[name])
	}
	slices.SortFunc(list, func(a, b *policy.Policy) int {
		return cmp.Or(cmp.Compare(a.Tier, b.Tier), cmp.Compare(a.Order, b.Order), a.Key.Compare(b.Key))
	})
	return list
}

func (p *policies) settle() { forget(&p.changed) }
