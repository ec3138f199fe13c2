package policy

import (
	"cmp"
	"math"
	"strings"
)

// The tiers that exist without an object. DefaultTier is the tier of Kubernetes
// NetworkPolicies and of every policy that names none; the policies of
// ClusterNetworkPolicy's tiers Admin and Baseline are in the other two.
const (
	AdminTier    = "kube-admin"
	DefaultTier  = "default"
	BaselineTier = "kube-baseline"
)

// Tier is a group of policies that decide together.
type Tier struct {
	Name  string
	Order float64 // ascending, infinity last; equal orders fall back to Name
	// End decides for packets that no rule of the tier matched, at endpoints that
	// a policy of the tier selects: Deny or Pass.
	End Action
}

// Tiers are the tiers of a cluster by name. The three that exist without an
// object need not be among them, and nil is valid. What an object says of those
// is not asked: they are what Kubernetes wants them to be.
type Tiers map[string]Tier

// Builtin returns the tier of that name if it exists without an object.
func Builtin(name string) (Tier, bool) {
	switch name {
	case AdminTier:
		return Tier{Name: name, Order: 1000, End: Pass}, true
	case BaselineTier:
		return Tier{Name: name, Order: 10_000_000, End: Pass}, true
	case DefaultTier:
		return Tier{Name: name, Order: 1_000_000, End: Deny}, true
	}
	return Tier{}, false
}

// Get returns the tier of that name. One that nobody defined is the last and
// final: what its policies do not allow is denied, and what they allow cannot
// overrule another tier.
func (t Tiers) Get(name string) Tier {
	if tier, builtin := Builtin(name); builtin {
		return tier
	}
	if tier, ok := t[name]; ok {
		tier.Name, tier.End = name, tier.end()
		return tier
	}
	return Tier{Name: name, Order: math.Inf(1), End: Deny}
}

// end returns Pass or Deny, whatever else was set.
func (t Tier) end() Action {
	if t.End == Pass {
		return Pass
	}
	return Deny
}

// Compare orders policies by tier, order number and key: the order in which
// they are evaluated, in which every node agrees.
func (t Tiers) Compare(a, b *Policy) int {
	if a.Tier != b.Tier {
		x, y := t.Get(a.Tier), t.Get(b.Tier)
		return cmp.Or(cmp.Compare(x.Order, y.Order), strings.Compare(x.Name, y.Name))
	}
	return cmp.Or(cmp.Compare(a.Order, b.Order), a.Key.Compare(b.Key))
}
