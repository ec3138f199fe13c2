package calc

import (
	"slices"

	"github.com/koratnet/korat/policy"
)

// policies knows which policies are active here, staged ones among them: those
// that select at least one local endpoint. The others cost this node nothing.
type policies struct {
	in      *inputs
	tiers   policy.Tiers
	active  map[string]*policy.Policy
	changed map[string]moved[policy.Policy] // in this flush; nil is not active
	// retiered are active policies whose tier changed in this flush.
	retiered []string
}

func newPolicies(in *inputs) policies {
	return policies{in: in, tiers: policy.Tiers{}, active: map[string]*policy.Policy{}, changed: map[string]moved[policy.Policy]{}}
}

func (p *policies) drain(subjects *subjects) {
	for name := range p.in.tiers.was {
		if is := p.in.tiers.now[name]; is != nil {
			p.tiers[name] = is.Tier
		} else {
			delete(p.tiers, name)
		}
	}
	for _, selection := range []*selection{&subjects.pods, &subjects.hosts} {
		for name := range selection.dirtyPolicies {
			p.update(name, len(subjects.pods.byPolicy[name])+len(subjects.hosts.byPolicy[name]) > 0)
		}
	}
	if len(p.in.tiers.was) == 0 {
		return
	}
	for name, policy := range p.active { // tiers change rarely, and only few policies are active on a node
		if _, changed := p.in.tiers.was[policy.Tier]; changed {
			p.retiered = append(p.retiered, name)
		}
	}
}

// update takes over a policy that may have changed, or selects others now.
func (p *policies) update(name string, active bool) {
	was := p.active[name]
	var is *policy.Policy
	if active {
		is = p.in.policies.now[name].Policy
		p.active[name] = is
	} else {
		delete(p.active, name)
	}
	if was != is {
		p.changed[name] = moved[policy.Policy]{was, is}
	}
}

// inOrder returns the active policies of these names in the order in which they
// are evaluated, on every node the same.
func (p *policies) inOrder(names set) []*policy.Policy {
	list := make([]*policy.Policy, 0, len(names))
	for name := range names {
		list = append(list, p.active[name])
	}
	slices.SortFunc(list, p.tiers.Compare)
	return list
}

// mark adds the things that policies of changed tiers select.
func (p *policies) mark(things set, selection *selection) {
	for _, name := range p.retiered {
		for thing := range selection.byPolicy[name] {
			things.add(thing)
		}
	}
}

// enforced returns p if it decides about packets, else nil.
func enforced(p *policy.Policy) *policy.Policy {
	if p == nil || p.Enforcement == policy.Staged {
		return nil
	}
	return p
}

func (p *policies) settle() {
	forget(&p.changed)
	p.retiered = nil
}
