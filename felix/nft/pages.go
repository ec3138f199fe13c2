package nft

import (
	"github.com/koratnet/korat/felix/kernel/nftables"
	"github.com/koratnet/korat/policy/ir"
)

// text is what a chain is to hold. Where the chain of an endpoint has the rules of
// many policies, it is cut into pages, each of which goes to the next at its end:
// the kernel takes the rules of a chain anew as a whole, and a change should be one
// of few rules.
type text struct {
	rules    []nftables.Rule
	openings []opening
}

// opening is where the rules of a policy begin.
type opening struct {
	at int
	id ir.ProgramID
}

func (t *text) add(words ...word) { t.rules = append(t.rules, rule(words...)) }

// open adds the rules of a policy.
func (t *text) open(id ir.ProgramID, rules []nftables.Rule) {
	t.openings = append(t.openings, opening{len(t.rules), id})
	t.rules = append(t.rules, rules...)
}

func (t *text) join(next text) {
	for _, o := range next.openings {
		t.openings = append(t.openings, opening{len(t.rules) + o.at, o.id})
	}
	t.rules = append(t.rules, next.rules...)
}

// The sizes of pages, in rules. There are at most mostPages of them in a chain, as
// the kernel follows no way that is deeper than 16 chains. Up to twice leastPage
// rules are not cut.
const (
	leastPage = 8
	mostPages = 8
)

// pages returns the chains of a text, of which the first has the name. They are cut
// where a policy begins whose name says so: then a policy that comes or goes
// changes the pages around it, and not all that follow.
func (t text) pages(name string) []nftables.Chain {
	size := leastPage
	for size*mostPages < len(t.rules) {
		size *= 2
	}
	all := []nftables.Chain{{Name: name}}
	used := map[string]bool{}
	begin := 0
	for _, o := range t.openings {
		long, rest := o.at-begin, len(t.rules)-o.at
		if long < size || rest < size {
			continue
		}
		mark := short(o.id.Policy.String(), 4)
		if cut := mark[0] < '4' || long >= 3*size; !cut || used[mark] {
			continue
		}
		used[mark] = true
		next := name + "/p-" + mark
		last := &all[len(all)-1]
		last.Rules = append(t.rules[begin:o.at:o.at], rule(goTo(next)))
		all, begin = append(all, nftables.Chain{Name: next}), o.at
	}
	all[len(all)-1].Rules = t.rules[begin:]
	return all
}
