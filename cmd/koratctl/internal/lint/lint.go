// Package lint finds what is wrong, or probably not meant, in the policies of a
// world.
package lint

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/koratnet/korat/cmd/koratctl/internal/world"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/compile"
	"github.com/koratnet/korat/policy/eval"
	"github.com/koratnet/korat/policy/ir"
)

// Check returns all problems of the world's objects, in the order in which they
// stand in their files.
func Check(w *world.World) []world.Problem {
	c := checker{w: w, problems: slices.Clone(w.Problems)}
	for _, p := range w.Cluster.Policies {
		c.policy(p)
	}
	slices.SortStableFunc(c.problems, func(a, b world.Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Document, b.Document))
	})
	return c.problems
}

// Errors counts the problems that are errors.
func Errors(problems []world.Problem) int {
	n := 0
	for _, p := range problems {
		if p.Severity == world.Error {
			n++
		}
	}
	return n
}

type checker struct {
	w        *world.World
	problems []world.Problem
}

// warn adds a warning, unless something worse is known of the same part.
func (c *checker) warn(p *policy.Policy, field, effect string) {
	o := c.w.Sources[p.Key]
	for _, known := range c.problems {
		if known.Place == o.Place && known.Object == o.String() && len(known.Field) >= len(field) && known.Field[:len(field)] == field {
			return
		}
	}
	c.problems = append(c.problems, world.Problem{Severity: world.Warning, Place: o.Place, Object: o.String(), Field: field, Effect: effect})
}

func (c *checker) policy(p *policy.Policy) {
	c.tier(p)
	if pods := c.w.Cluster.Pods; len(pods) > 0 && p.Subject.Kinds() == policy.Pods && !slices.ContainsFunc(pods, c.selected(p.Subject)) {
		c.warn(p, "spec", "the policy selects none of the pods that are known here")
	}
	for _, d := range policy.Directions {
		field := "spec." + d.String()
		if p.Types&d == 0 {
			if len(p.Rules(d)) > 0 {
				c.warn(p, field, "the rules have no effect, because the types of the policy do not name this direction")
			}
			continue
		}
		c.rules(p, d, field)
		c.peers(p, d, field)
	}
}

// tier warns of tiers that nobody defined. It is no error, because the tier may
// be in other files.
func (c *checker) tier(p *policy.Policy) {
	_, builtin := policy.Builtin(p.Tier)
	if _, ok := c.w.Cluster.Tiers[p.Tier]; !ok && !builtin {
		c.warn(p, "spec.tier", fmt.Sprintf("there is no tier %q here: the policy is asked last, and what it does not allow is denied", p.Tier))
	}
}

// rules warns of rules that match nothing and of those that are never asked.
func (c *checker) rules(p *policy.Policy, d policy.Direction, field string) {
	rules := compile.Compile(p, d, compile.SetIDOf).Rules
	for i := range p.Rules(d) {
		at := fmt.Sprintf("%s[%d]", field, i)
		mine := slices.DeleteFunc(slices.Clone(rules), func(r ir.Rule) bool { return r.Origin != i })
		if len(mine) == 0 {
			c.warn(p, at, "the rule matches nothing")
			continue
		}
		earlier := slices.DeleteFunc(slices.Clone(rules), func(r ir.Rule) bool { return r.Origin >= i || !r.Action.Ends() })
		if by := covered(mine, earlier); by >= 0 {
			c.warn(p, at, fmt.Sprintf("the rule is never asked, because %s[%d] matches all that it matches", field, by))
		}
	}
}

// covered returns the origin of a rule that leaves nothing to the rules mine,
// or -1. It sees only what is cheap to see: the same criteria, or none.
func covered(mine, earlier []ir.Rule) int {
	by := -1
	for _, m := range mine {
		i := slices.IndexFunc(earlier, func(e ir.Rule) bool {
			e.Action, e.Origin = m.Action, m.Origin
			text := e.String()
			return text == m.Action.String() || text == m.String()
		})
		if i < 0 {
			return -1
		}
		by = max(by, earlier[i].Origin)
	}
	return by
}

// peers warns of peers that select no pod, where the pods are known.
func (c *checker) peers(p *policy.Policy, d policy.Direction, field string) {
	pods := c.w.Cluster.Pods
	if len(pods) == 0 {
		return
	}
	for i, r := range p.Rules(d) {
		for _, peer := range r.Peers {
			if peer.Scope != nil && peer.Scope.Kinds() == policy.Pods && !slices.ContainsFunc(pods, c.selected(*peer.Scope)) {
				c.warn(p, fmt.Sprintf("%s[%d]", field, i), fmt.Sprintf("a peer selects none of the pods that are known here (%s)", peer.Scope))
			}
		}
	}
}

func (c *checker) selected(s policy.Scope) func(eval.Pod) bool {
	return func(p eval.Pod) bool { return c.w.Cluster.Selects(s, &p) }
}
