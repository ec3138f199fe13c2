package selector

import (
	"cmp"
	"slices"
	"strings"
)

// join builds the canonical conjunction (and) or disjunction (or) of canonical
// nodes. The two are mirror images: what is the neutral element of one decides
// the other, and value sets that one intersects the other unites.
func join(op kind, kids []*node) *node {
	neutral, decisive := allNode, noneNode
	if op == or {
		neutral, decisive = noneNode, allNode
	}
	parts := mergeSets(op, flatten(op, kids))
	slices.SortFunc(parts, func(a, b *node) int { return strings.Compare(a.text, b.text) })
	parts = slices.CompactFunc(parts, func(a, b *node) bool { return a.text == b.text })
	parts = slices.DeleteFunc(parts, func(n *node) bool { return n == neutral })
	switch {
	case slices.Contains(parts, decisive) || contradict(parts):
		return decisive
	case len(parts) == 0:
		return neutral
	case len(parts) == 1:
		return parts[0]
	}
	n := &node{kind: op, kids: parts}
	n.text = n.joinedText()
	return n
}

// flatten lifts the kids of nodes of the same kind: (a && b) && c is a && b && c.
func flatten(op kind, kids []*node) []*node {
	var flat []*node
	for _, k := range kids {
		if k.kind == op {
			flat = append(flat, k.kids...)
		} else {
			flat = append(flat, k)
		}
	}
	return flat
}

// contradict reports whether both a part and its opposite are there; parts are sorted.
func contradict(parts []*node) bool {
	for _, n := range parts {
		if !n.not {
			continue // of two opposite leaves one is the negated one
		}
		_, found := slices.BinarySearchFunc(parts, n.negated().text,
			func(m *node, text string) int { return strings.Compare(m.text, text) })
		if found {
			return true
		}
	}
	return false
}

// valueSets is what an and/or says about the values of one label.
type valueSets struct {
	key             string
	in, notIn       []Pair
	haveIn, haveNot bool
}

// mergeSets replaces all in and not in parts about one label by a single one.
func mergeSets(op kind, parts []*node) []*node {
	var sets []*valueSets
	byKey := map[string]*valueSets{}
	rest := make([]*node, 0, len(parts))
	for _, n := range parts {
		if n.kind != in {
			rest = append(rest, n)
			continue
		}
		s := byKey[n.key]
		if s == nil {
			s = &valueSets{key: n.key}
			byKey[n.key] = s
			sets = append(sets, s)
		}
		s.add(op, n)
	}
	for _, s := range sets {
		rest = append(rest, s.node(op))
	}
	return rest
}

// add takes one more part in: and intersects what may be and unites what may
// not, or does the opposite.
func (s *valueSets) add(op kind, n *node) {
	unite := (op == or) != n.not
	set, have := &s.in, &s.haveIn
	if n.not {
		set, have = &s.notIn, &s.haveNot
	}
	switch {
	case !*have:
		*set, *have = n.values, true
	case unite:
		*set = union(*set, n.values)
	default:
		*set = filter(*set, n.values, true)
	}
}

// node returns the one part that says the same.
func (s *valueSets) node(op kind) *node {
	switch {
	case !s.haveNot:
		return pairsNode(s.key, s.in, false)
	case !s.haveIn:
		return pairsNode(s.key, s.notIn, true)
	case op == and:
		return pairsNode(s.key, filter(s.in, s.notIn, false), false)
	}
	return pairsNode(s.key, filter(s.notIn, s.in, false), true)
}

func comparePairs(a, b Pair) int { return cmp.Compare(a.Value().Value, b.Value().Value) }

func union(a, b []Pair) []Pair {
	u := slices.Concat(a, b)
	slices.SortFunc(u, comparePairs)
	return slices.Compact(u)
}

// filter returns the pairs of a that are (keep) or are not in b.
func filter(a, b []Pair, keep bool) []Pair {
	var out []Pair
	for _, p := range a {
		if _, found := slices.BinarySearchFunc(b, p, comparePairs); found == keep {
			out = append(out, p)
		}
	}
	return out
}
