package calc

import (
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy"
)

// uses counts what each active policy selects on this node, for those who tell
// the cluster.
type uses struct {
	said said[policy.Key, desired.PolicyUse]
}

func newUses() uses {
	return uses{said: newSaid[policy.Key](identical[desired.PolicyUse])}
}

func (u *uses) drain(policies *policies, subjects *subjects) {
	for _, selection := range []*selection{&subjects.pods, &subjects.hosts} {
		for name := range selection.dirtyPolicies {
			u.update(name, policies, subjects)
		}
	}
}

func (u *uses) update(name string, policies *policies, subjects *subjects) {
	if c := policies.changed[name]; c.was != nil && c.is == nil {
		u.said.say(c.was.Key, nil)
	}
	if p := policies.active[name]; p != nil {
		u.said.say(p.Key, &desired.PolicyUse{
			Generation: p.Generation, Staged: p.Enforcement == policy.Staged,
			Pods: len(subjects.pods.byPolicy[name]), Hosts: len(subjects.hosts.byPolicy[name]),
		})
	}
}
