package match

import (
	"slices"

	"github.com/koratnet/korat/policy/selector"
)

// table keeps rows and finds them by label. A quarter of a million rows with
// eight labels each are usual, so a label of a row costs two words of four bytes:
// its row number in the bucket of the pair, and its position there, which makes
// removal a swap.
type table[V any] struct {
	rows   []row[V]
	free   []uint32
	byPair map[selector.Pair]*bucket
	byKey  map[string]*key
}

type row[V any] struct {
	value  V
	labels selector.Labels
	at     []uint32 // position in the bucket of each label
}

// bucket lists the rows that carry one pair.
type bucket struct {
	rows []uint32
	key  *key
	at   uint32 // where it is in key.buckets
}

// key has the buckets of all pairs of one label key.
type key struct {
	name    string
	rows    int // in all buckets
	buckets []*bucket
}

func newTable[V any]() table[V] {
	return table[V]{byPair: map[selector.Pair]*bucket{}, byKey: map[string]*key{}}
}

// add returns the number of the new row, which stays valid until remove.
func (t *table[V]) add(v V, labels selector.Labels) uint32 {
	var id uint32
	if n := len(t.free); n > 0 {
		id, t.free = t.free[n-1], t.free[:n-1]
	} else {
		id = uint32(len(t.rows))
		t.rows = append(t.rows, row[V]{})
	}
	t.rows[id].value = v
	t.link(id, labels)
	return id
}

func (t *table[V]) remove(id uint32) {
	t.unlink(id)
	t.rows[id] = row[V]{}
	t.free = append(t.free, id)
}

// relabel moves a row between the buckets of the labels that changed. Usually
// that is one of many.
func (t *table[V]) relabel(id uint32, labels selector.Labels) {
	r := &t.rows[id]
	was, wasAt := r.labels, r.at
	if was.Equal(labels) {
		r.labels = labels
		return
	}
	for i, p := range was {
		if !slices.Contains(labels, p) {
			t.leave(p, wasAt[i])
		}
	}
	r.labels, r.at = labels, make([]uint32, len(labels))
	for i, p := range labels {
		if j := slices.Index(was, p); j >= 0 {
			r.at[i] = wasAt[j]
		} else {
			r.at[i] = t.enter(p, id)
		}
	}
}

func (t *table[V]) link(id uint32, labels selector.Labels) {
	r := &t.rows[id]
	r.labels, r.at = labels, make([]uint32, len(labels))
	for i, p := range labels {
		r.at[i] = t.enter(p, id)
	}
}

func (t *table[V]) unlink(id uint32) {
	r := &t.rows[id]
	for i, p := range r.labels {
		t.leave(p, r.at[i])
	}
}

// enter puts row id into the bucket of p and returns its position there.
func (t *table[V]) enter(p selector.Pair, id uint32) (at uint32) {
	b := t.byPair[p]
	if b == nil {
		b = t.newBucket(p)
	}
	at = uint32(len(b.rows))
	b.rows = append(b.rows, id)
	b.key.rows++
	return at
}

// leave takes out of the bucket of p the row that stands at a position.
func (t *table[V]) leave(p selector.Pair, at uint32) {
	b := t.byPair[p]
	last := len(b.rows) - 1
	moved := b.rows[last]
	b.rows[at] = moved
	t.moved(moved, p, at)
	b.rows = b.rows[:last]
	b.key.rows--
	if last == 0 {
		t.dropBucket(p, b)
	}
}

func (t *table[V]) newBucket(p selector.Pair) *bucket {
	name := p.Value().Key
	k := t.byKey[name]
	if k == nil {
		k = &key{name: name}
		t.byKey[name] = k
	}
	b := &bucket{key: k, at: uint32(len(k.buckets))}
	k.buckets = append(k.buckets, b)
	t.byPair[p] = b
	return b
}

func (t *table[V]) dropBucket(p selector.Pair, b *bucket) {
	delete(t.byPair, p)
	k := b.key
	last := len(k.buckets) - 1
	k.buckets[b.at] = k.buckets[last]
	k.buckets[b.at].at = b.at
	k.buckets[last] = nil
	if k.buckets = k.buckets[:last]; last == 0 {
		delete(t.byKey, k.name)
	}
}

// moved notes that row id now stands at position at in the bucket of p.
func (t *table[V]) moved(id uint32, p selector.Pair, at uint32) {
	r := &t.rows[id]
	for i, q := range r.labels {
		if p == q {
			r.at[i] = at
			return
		}
	}
}

// rarest returns the alternative of s that the fewest rows carry, and how many
// those are. hooked is false when s has no hooks, so every row must be asked.
func (t *table[V]) rarest(s *selector.Selector) (hooks []selector.Hook, n int, hooked bool) {
	for _, alternative := range s.Hooks() {
		m := 0
		for _, h := range alternative {
			m += t.count(h)
		}
		if !hooked || m < n {
			hooks, n, hooked = alternative, m, true
		}
	}
	return hooks, n, hooked
}

func (t *table[V]) count(h selector.Hook) int {
	if h.Pair != (selector.Pair{}) {
		if b := t.byPair[h.Pair]; b != nil {
			return len(b.rows)
		}
		return 0
	}
	if k := t.byKey[h.Key]; k != nil {
		return k.rows
	}
	return 0
}

// each visits the rows that carry at least one of the hooks, each once, until visit says false.
func (t *table[V]) each(hooks []selector.Hook, visit func(id uint32) bool) {
	for i, h := range hooks {
		once := func(b *bucket) bool {
			for _, id := range b.rows {
				if !carries(t.rows[id].labels, hooks[:i]) && !visit(id) {
					return false
				}
			}
			return true
		}
		if h.Pair != (selector.Pair{}) {
			if b := t.byPair[h.Pair]; b != nil && !once(b) {
				return
			}
			continue
		}
		if k := t.byKey[h.Key]; k != nil {
			for _, b := range k.buckets {
				if !once(b) {
					return
				}
			}
		}
	}
}

// carries reports whether the labels have one of the hooks.
func carries(l selector.Labels, hooks []selector.Hook) bool {
	for _, h := range hooks {
		for _, p := range l {
			if p == h.Pair || h.Pair == (selector.Pair{}) && p.Value().Key == h.Key {
				return true
			}
		}
	}
	return false
}
