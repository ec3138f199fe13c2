package selector

import (
	"slices"
	"strconv"
	"strings"
)

// kind says what a node asks.
type kind uint8

const (
	all kind = iota // negated: nothing
	global
	has
	in // one value prints as ==
	contains
	startsWith
	endsWith
	and
	or
)

// node is one part of a canonical selector: leaves carry their own negation,
// and/or have at least two kids, sorted by text, none of their own kind.
type node struct {
	kind   kind
	not    bool
	key    string
	value  string // contains, startsWith, endsWith
	values []Pair // in, sorted by value, at least one
	kids   []*node
	text   string
}

var (
	allNode  = &node{kind: all, text: "all()"}
	noneNode = &node{kind: all, not: true, text: "!all()"}
)

func leafNode(k kind, key, value string) *node {
	return leaf(node{kind: k, key: key, value: value})
}

// leaf completes a leaf with its text.
func leaf(n node) *node {
	n.text = n.leafText()
	return &n
}

// setNode asks whether the label's value is one of values, or with not, none of them.
func setNode(key string, values []string, not bool) *node {
	sorted := slices.Clone(values)
	slices.Sort(sorted)
	sorted = slices.Compact(sorted)
	pairs := make([]Pair, len(sorted))
	for i, v := range sorted {
		pairs[i] = MakePair(key, v)
	}
	return pairsNode(key, pairs, not)
}

// pairsNode is setNode for pairs that are sorted already.
func pairsNode(key string, pairs []Pair, not bool) *node {
	switch {
	case len(pairs) > 0:
		return leaf(node{kind: in, not: not, key: key, values: pairs})
	case not:
		return allNode
	}
	return noneNode
}

// negated returns the canonical opposite of n.
func (n *node) negated() *node {
	switch n.kind {
	case all:
		if n.not {
			return allNode
		}
		return noneNode
	case and, or:
		kids := make([]*node, len(n.kids))
		for i, k := range n.kids {
			kids[i] = k.negated()
		}
		if n.kind == and {
			return join(or, kids)
		}
		return join(and, kids)
	}
	m := *n
	m.not = !n.not
	return leaf(m)
}

// matches reports whether n holds for the labels.
func (n *node) matches(l Labels) bool {
	switch n.kind {
	case and:
		for _, k := range n.kids {
			if !k.matches(l) {
				return false
			}
		}
		return true
	case or:
		for _, k := range n.kids {
			if k.matches(l) {
				return true
			}
		}
		return false
	}
	return n.holds(l) != n.not
}

// holds is matches for a leaf, without its negation.
func (n *node) holds(l Labels) bool {
	switch n.kind {
	case all:
		return true
	case in:
		for _, p := range l {
			if slices.Contains(n.values, p) {
				return true
			}
		}
		return false
	case has, contains, startsWith, endsWith:
		v, ok := l.Get(n.key)
		return ok && (n.kind == has ||
			n.kind == contains && strings.Contains(v, n.value) ||
			n.kind == startsWith && strings.HasPrefix(v, n.value) ||
			n.kind == endsWith && strings.HasSuffix(v, n.value))
	}
	return false
}

// leafText renders a leaf.
func (n *node) leafText() string {
	not := ""
	if n.not {
		not = "!"
	}
	switch n.kind {
	case all:
		return not + "all()"
	case global:
		return not + "global()"
	case has:
		return not + "has(" + label(n.key) + ")"
	case contains:
		return not + label(n.key) + " contains " + quote(n.value)
	case startsWith:
		return not + label(n.key) + " starts with " + quote(n.value)
	case endsWith:
		return not + label(n.key) + " ends with " + quote(n.value)
	}
	return n.setText()
}

// setText renders an in leaf in the shortest of its four forms.
func (n *node) setText() string {
	if len(n.values) == 1 {
		op := " == "
		if n.not {
			op = " != "
		}
		return label(n.key) + op + quote(n.values[0].Value().Value)
	}
	op := " in {"
	if n.not {
		op = " not in {"
	}
	words := make([]string, len(n.values))
	for i, p := range n.values {
		words[i] = quote(p.Value().Value)
	}
	return label(n.key) + op + strings.Join(words, ", ") + "}"
}

// joinedText renders an and/or from the texts of its kids.
func (n *node) joinedText() string {
	parts := make([]string, len(n.kids))
	for i, k := range n.kids {
		parts[i] = k.text
		if n.kind == and && k.kind == or {
			parts[i] = "(" + k.text + ")"
		}
	}
	if n.kind == and {
		return strings.Join(parts, " && ")
	}
	return strings.Join(parts, " || ")
}

// quote returns a value as the language writes it, or, where it holds both
// kinds of quote, in a form that is unique although Parse refuses it.
func quote(v string) string {
	switch {
	case !strings.Contains(v, "'"):
		return "'" + v + "'"
	case !strings.Contains(v, `"`):
		return `"` + v + `"`
	}
	return `\` + strconv.Quote(v)
}

// label returns a label name as the language writes it, or a unique form where it cannot.
func label(key string) string {
	if key != "" && len(key) <= maxLabel && labelLength(key) == len(key) {
		return key
	}
	return `\` + strconv.Quote(key)
}
