package match

import (
	"slices"

	"github.com/koratnet/korat/policy/selector"
)

// hooked finds selectors by the labels of something they may select. A selector
// hangs on one of its alternatives only: that is enough to be found.
type hooked[V comparable] struct {
	entries map[V]*entry[V]
	byPair  map[selector.Pair][]*entry[V]
	byKey   map[string][]*entry[V]
	// unhooked have no hook and are always asked: selectors of everything, which
	// match anyway, and purely negative ones, which are few.
	unhooked []*entry[V]
}

type entry[V comparable] struct {
	value    V
	selector *selector.Selector
	hooks    []selector.Hook // of the alternative where it hangs
}

func newHooked[V comparable]() *hooked[V] {
	return &hooked[V]{entries: map[V]*entry[V]{}}
}

func (x *hooked[V]) len() int { return len(x.entries) }

// add hangs up v, which must not be there yet.
func (x *hooked[V]) add(v V, s *selector.Selector) {
	e := &entry[V]{value: v, selector: s}
	x.entries[v] = e
	if s.Hooks() == nil {
		x.unhooked = append(x.unhooked, e)
		return
	}
	e.hooks = x.lightest(s.Hooks())
	if x.byPair == nil && len(e.hooks) > 0 {
		x.byPair, x.byKey = map[selector.Pair][]*entry[V]{}, map[string][]*entry[V]{}
	}
	for _, h := range e.hooks {
		if h.Pair != (selector.Pair{}) {
			x.byPair[h.Pair] = append(x.byPair[h.Pair], e)
		} else {
			x.byKey[h.Key] = append(x.byKey[h.Key], e)
		}
	}
}

// lightest chooses where to hang a selector: rather on pairs than on keys, which
// more things carry, and rather where few hang already.
func (x *hooked[V]) lightest(alternatives [][]selector.Hook) []selector.Hook {
	weight := func(hooks []selector.Hook) (w int) {
		const perKey = 1 << 20
		for _, h := range hooks {
			if h.Pair != (selector.Pair{}) {
				w += 1 + len(x.byPair[h.Pair])
			} else {
				w += perKey + len(x.byKey[h.Key])
			}
		}
		return w
	}
	return slices.MinFunc(alternatives, func(a, b []selector.Hook) int { return weight(a) - weight(b) })
}

// remove takes v down; it need not be there.
func (x *hooked[V]) remove(v V) {
	e := x.entries[v]
	if e == nil {
		return
	}
	delete(x.entries, v)
	if e.selector.Hooks() == nil {
		x.unhooked = without(x.unhooked, e)
		return
	}
	for _, h := range e.hooks {
		if h.Pair != (selector.Pair{}) {
			takeDown(x.byPair, h.Pair, e)
		} else {
			takeDown(x.byKey, h.Key, e)
		}
	}
}

func takeDown[H comparable, V comparable](m map[H][]*entry[V], h H, e *entry[V]) {
	if m[h] = without(m[h], e); len(m[h]) == 0 {
		delete(m, h)
	}
}

// without removes e by a swap; the order of entries means nothing.
func without[V comparable](list []*entry[V], e *entry[V]) []*entry[V] {
	i := slices.Index(list, e)
	last := len(list) - 1
	list[i], list[last] = list[last], nil
	return list[:last]
}

// matching visits the values whose selectors select the labels, each once. It
// returns false when visit did.
func (x *hooked[V]) matching(l selector.Labels, visit func(V) bool) bool {
	for _, e := range x.unhooked {
		if e.selector.Matches(l) && !visit(e.value) {
			return false
		}
	}
	if x.byPair == nil {
		return true
	}
	for _, p := range l {
		if !visitMatching(x.byPair[p], selector.Hook{Pair: p}, l, visit) {
			return false
		}
		if len(x.byKey) > 0 {
			key := p.Value().Key
			if !visitMatching(x.byKey[key], selector.Hook{Key: key}, l, visit) {
				return false
			}
		}
	}
	return true
}

// visitMatching visits the entries of one bucket, but those that were already
// met through an earlier of their hooks.
func visitMatching[V comparable](bucket []*entry[V], by selector.Hook, l selector.Labels, visit func(V) bool) bool {
	for _, e := range bucket {
		before := e.hooks[:slices.Index(e.hooks, by)]
		if !carries(l, before) && e.selector.Matches(l) && !visit(e.value) {
			return false
		}
	}
	return true
}

// each visits all values. It returns false when visit did.
func (x *hooked[V]) each(visit func(V) bool) bool {
	for v := range x.entries {
		if !visit(v) {
			return false
		}
	}
	return true
}
