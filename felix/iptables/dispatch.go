package iptables

import (
	"slices"
	"strings"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy"
)

// maxLeaf is how many interfaces a chain of the trie lists before it branches.
// A packet meets at most that many tests, or 36 where it branches, per level.
const maxLeaf = 16

// tries returns those of both directions, and what leads there by a shorter way.
func (s style) tries() (from, to trie, nearFrom, nearTo near) {
	unknown := func(d policy.Direction) verdict { return s.deny(desired.Reason{Cause: desired.Unknown, Direction: d}) }
	from = trie{fromPodChain, "-i", fromPrefix, unknown(policy.Egress)}
	to = trie{toPodChain, "-o", toPrefix, unknown(policy.Ingress)}
	return from, to, near{nearFromChain, "-s", s.marks.astray(), from}, near{nearToChain, "-d", s.marks.astray(), to}
}

// dispatch returns the chains that lead a packet to the chain of its interface:
// a trie over the characters after the common prefix, shared prefixes skipped,
// and before it one over the addresses in places. They depend on what is in them
// alone, not on the order in which it came. ifaces and places are sorted and have
// each once.
func (s style) dispatch(ifaces []string, places []place) []chain {
	from, to, nearFrom, nearTo := s.tries()
	return slices.Concat(from.branch("", ifaces), to.branch("", ifaces), nearFrom.chains(places), nearTo.chains(places))
}

// trie is one of the two tries: where it begins, which interface it looks at,
// what the names of the chains at its leaves begin with, and what becomes of
// interfaces that are not in it.
type trie struct {
	root, flag, leaf string
	unknown          verdict
}

// branch returns the chain for the interfaces that go on with path after the
// common prefix, and the chains below it.
func (t trie) branch(path string, ifaces []string) []chain {
	name := t.root
	if path != "" {
		name += "-" + path
	}
	var rules []rule
	var below []chain
	for _, group := range groups(ifaces, len(desired.InterfacePrefix)+len(path)) {
		if len(group) == 1 {
			rules = append(rules, rule{spec: t.flag + " " + group[0] + " -g " + t.leaf + group[0]})
			continue
		}
		next := strings.TrimPrefix(shared(group), desired.InterfacePrefix)
		rules = append(rules, rule{spec: t.flag + " " + desired.InterfacePrefix + next + "+ -g " + t.root + "-" + next})
		below = append(below, t.branch(next, group)...)
	}
	last := t.unknown.when("")
	last.note = "unknown interface"
	rules = append(rules, last)
	return append([]chain{newChain(name, rules)}, below...)
}

// groups splits sorted names by their character at position at. Few names, and
// names that end there, are groups of their own.
func groups(names []string, at int) [][]string {
	var out [][]string
	for i, n := range names {
		same := i > 0 && len(names) > maxLeaf && at < len(n) && at < len(names[i-1]) && n[at] == names[i-1][at]
		if !same {
			out = append(out, nil)
		}
		out[len(out)-1] = append(out[len(out)-1], n)
	}
	return out
}

// shared returns what all of the sorted names begin with.
func shared(names []string) string {
	first, last := names[0], names[len(names)-1]
	n := 0
	for n < len(first) && n < len(last) && first[n] == last[n] {
		n++
	}
	return first[:n]
}
