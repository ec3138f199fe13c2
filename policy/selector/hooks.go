package selector

import "slices"

// Hook is a label that something selected must carry: a whole pair, or only a
// key when Pair is the zero Pair. Comparable, to be a key of an index.
type Hook struct {
	Pair Pair
	Key  string
}

// hooks returns the alternatives of a canonical node, as Selector.Hooks tells.
func (n *node) hooks() [][]Hook {
	switch {
	case n == noneNode:
		return [][]Hook{{}}
	case n.kind == and:
		var alternatives [][]Hook
		for _, k := range n.kids {
			alternatives = append(alternatives, k.hooks()...)
		}
		return alternatives
	case n.kind == or:
		return n.unionHooks()
	case n.not, n.kind == all, n.kind == global:
		return nil
	case n.kind == in:
		pairs := make([]Hook, len(n.values))
		for i, p := range n.values {
			pairs[i] = Hook{Pair: p}
		}
		return [][]Hook{pairs}
	}
	return [][]Hook{{{Key: n.key}}}
}

// unionHooks gathers the best alternative of every side of an or. If one side
// has none, nothing can be said about the whole.
func (n *node) unionHooks() [][]Hook {
	var gathered []Hook
	for _, k := range n.kids {
		alternatives := k.hooks()
		if alternatives == nil {
			return nil
		}
		for _, h := range slices.MinFunc(alternatives, cost) {
			if !slices.Contains(gathered, h) {
				gathered = append(gathered, h)
			}
		}
	}
	return [][]Hook{gathered}
}

// cost prefers pairs to keys, and few hooks to many: a guess, made where the
// real frequency of labels is not known.
func cost(a, b []Hook) int { return weight(a) - weight(b) }

func weight(hooks []Hook) int {
	w := 0
	for _, h := range hooks {
		w++
		if h.Pair == (Pair{}) {
			w += 100
		}
	}
	return w
}
