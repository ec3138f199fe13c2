// Package delta keeps the difference between what is wanted and what is there,
// for objects of one kind that have a key. Every reconciler holds a Tracker: the
// engine's changes go in by Want and Unwant, what is read back from the kernel
// by Saw, Gone and Resync, and Pending is what is left to do.
//
// The package is pure and knows nothing of the kernel. A Tracker is owned by one
// goroutine.
package delta

import "iter"

// Change is what has to be done about one key.
type Change[V any] struct {
	Op   Op
	Want V // zero for Remove
	Have V // zero for Create
}

// Op is the kind of a Change.
type Op uint8

// Create makes what is not there, Update changes what is there but different,
// Remove takes away what is there and not wanted.
const (
	Create Op = iota + 1
	Update
	Remove
)

// Tracker holds what is wanted and what is there. A key lies in same when both
// are equal; else its wanted value, if any, lies in want and the value that is
// there, if any, in have. So the settled majority is stored once, and what is
// pending is never searched for.
type Tracker[K comparable, V any] struct {
	equal     func(a, b V) bool
	removable func(k K, have V) bool

	same, want, have map[K]V
}

// New returns an empty Tracker. equal must be an equivalence: values that are
// equal are interchangeable, and only one of them is kept. Nothing may be
// removed until AllowRemoval says so.
func New[K comparable, V any](equal func(a, b V) bool) *Tracker[K, V] {
	return &Tracker[K, V]{
		equal: equal,
		same:  map[K]V{}, want: map[K]V{}, have: map[K]V{},
	}
}

// AllowRemoval sets which of the things that are there and not wanted may be
// removed; the others are kept and are not Pending. nil, the beginning, means
// none. A wanted key that is there with another value is always Pending.
func (t *Tracker[K, V]) AllowRemoval(of func(k K, have V) bool) { t.removable = of }

// Want makes v the wanted value of k.
func (t *Tracker[K, V]) Want(k K, v V) {
	have, there := t.Have(k)
	t.put(k, v, true, have, there)
}

// Unwant makes k unwanted.
func (t *Tracker[K, V]) Unwant(k K) {
	have, there := t.Have(k)
	var none V
	t.put(k, none, false, have, there)
}

// Saw says that v is there under k.
func (t *Tracker[K, V]) Saw(k K, v V) {
	want, wanted := t.Wanted(k)
	t.put(k, want, wanted, v, true)
}

// Gone says that nothing is there under k.
func (t *Tracker[K, V]) Gone(k K) {
	want, wanted := t.Wanted(k)
	var none V
	t.put(k, want, wanted, none, false)
}

// Resync says that what is there is exactly all, in which each key occurs once.
func (t *Tracker[K, V]) Resync(all iter.Seq2[K, V]) {
	for k, v := range t.same {
		t.want[k] = v
	}
	clear(t.same)
	t.have = map[K]V{}
	for k, v := range all {
		t.Saw(k, v)
	}
}

// Done says that the pending Change of k was made: what is there is now what is
// wanted.
func (t *Tracker[K, V]) Done(k K) {
	if v, ok := t.want[k]; ok {
		remove(&t.want, k)
		t.same[k] = v
	}
	remove(&t.have, k)
}

// Pending yields what has to be done, first all that is created and updated,
// then all that is removed. Done, Saw and Gone may be called for the key just
// yielded while ranging; what was not settled is yielded again the next time.
func (t *Tracker[K, V]) Pending() iter.Seq2[K, Change[V]] {
	return func(yield func(K, Change[V]) bool) {
		for k, want := range t.want {
			c := Change[V]{Op: Create, Want: want}
			if have, there := t.have[k]; there {
				c.Op, c.Have = Update, have
			}
			if !yield(k, c) {
				return
			}
		}
		for k, have := range t.have {
			if _, wanted := t.want[k]; wanted || !t.mayRemove(k, have) {
				continue
			}
			if !yield(k, Change[V]{Op: Remove, Have: have}) {
				return
			}
		}
	}
}

// Settled reports whether nothing is Pending.
func (t *Tracker[K, V]) Settled() bool {
	for range t.Pending() {
		return false
	}
	return true
}

// AllWanted yields every wanted key and its value. Unwant may be called for the
// key just yielded while ranging.
func (t *Tracker[K, V]) AllWanted() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		for _, region := range []map[K]V{t.same, t.want} {
			for k, v := range region {
				if !yield(k, v) {
					return
				}
			}
		}
	}
}

// Wanted returns the wanted value of k.
func (t *Tracker[K, V]) Wanted(k K) (V, bool) {
	if v, ok := t.same[k]; ok {
		return v, true
	}
	v, ok := t.want[k]
	return v, ok
}

// Have returns the value that is there under k.
func (t *Tracker[K, V]) Have(k K) (V, bool) {
	if v, ok := t.same[k]; ok {
		return v, true
	}
	v, ok := t.have[k]
	return v, ok
}

// Size returns how many keys are wanted, and how many of those are not there as
// wanted.
func (t *Tracker[K, V]) Size() (wanted, missing int) {
	return len(t.same) + len(t.want), len(t.want)
}

func (t *Tracker[K, V]) mayRemove(k K, have V) bool {
	return t.removable != nil && t.removable(k, have)
}

// put stores both sides of k in the region where they belong.
func (t *Tracker[K, V]) put(k K, want V, wanted bool, have V, there bool) {
	delete(t.same, k)
	remove(&t.want, k)
	remove(&t.have, k)
	switch {
	case wanted && there && t.equal(want, have):
		t.same[k] = want
	default:
		if wanted {
			t.want[k] = want
		}
		if there {
			t.have[k] = have
		}
	}
}

// remove deletes k and gives up an empty map: ranging over one that was large
// takes as long as when it was full, and Pending ranges over them every time.
func remove[K comparable, V any](m *map[K]V, k K) {
	if _, ok := (*m)[k]; !ok {
		return
	}
	if delete(*m, k); len(*m) == 0 {
		*m = map[K]V{}
	}
}
