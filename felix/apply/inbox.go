package apply

import (
	"maps"
	"sync"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy/ir"
)

// inbox is where deltas and pokes pile up, bounded by the number of keys, while
// a Loop is busy.
type inbox struct {
	wake chan struct{} // of capacity 1: something is in

	mu     sync.Mutex // guards the rest
	delta  desired.Delta
	told   uint64 // deltas that came so far
	merged bool   // delta is our own copy
	pokes  map[Poke]struct{}
	parts  map[string]struct{} // that somebody else changed
}

func newInbox() *inbox {
	return &inbox{wake: make(chan struct{}, 1), pokes: map[Poke]struct{}{}, parts: map[string]struct{}{}}
}

// want adds d, which stays the caller's: several loops get the same Delta, so
// it is copied before anything is merged into it, and only then.
func (in *inbox) want(d desired.Delta) {
	in.mu.Lock()
	in.told++
	switch {
	case in.delta.Empty():
		in.delta, in.merged = d, false
	default:
		if !in.merged {
			in.delta, in.merged = clone(in.delta), true
		}
		in.delta.Merge(clone(d))
	}
	in.mu.Unlock()
	in.ring()
}

func (in *inbox) poke(p Poke) {
	in.mu.Lock()
	in.pokes[p] = struct{}{}
	in.mu.Unlock()
	in.ring()
}

// touch says that somebody changed what a part keeps.
func (in *inbox) touch(part string) {
	in.mu.Lock()
	in.parts[part] = struct{}{}
	in.mu.Unlock()
	in.ring()
}

// touched returns the parts that were touched since the last call.
func (in *inbox) touched() map[string]struct{} {
	in.mu.Lock()
	defer in.mu.Unlock()
	parts := in.parts
	in.parts = map[string]struct{}{}
	return parts
}

func (in *inbox) ring() {
	select {
	case in.wake <- struct{}{}:
	default: // it rings already
	}
}

// take empties the inbox. told is how many deltas have come until now.
func (in *inbox) take() (d desired.Delta, told uint64, pokes map[Poke]struct{}) {
	in.mu.Lock()
	defer in.mu.Unlock()
	d, pokes = in.delta, in.pokes
	in.delta, in.pokes = desired.Delta{}, map[Poke]struct{}{}
	return d, in.told, pokes
}

// clone copies what Merge changes: the maps and the set changes.
func clone(d desired.Delta) desired.Delta {
	d.Endpoints = maps.Clone(d.Endpoints)
	d.HostEndpoints = maps.Clone(d.HostEndpoints)
	d.Programs = maps.Clone(d.Programs)
	d.Routes = maps.Clone(d.Routes)
	d.Paths = maps.Clone(d.Paths)
	d.Policies = maps.Clone(d.Policies)
	sets := make(map[ir.SetID]*desired.SetChange, len(d.Sets))
	for id, c := range d.Sets {
		sets[id] = &desired.SetChange{Kind: c.Kind, Gone: c.Gone, Whole: c.Whole, Add: maps.Clone(c.Add), Del: maps.Clone(c.Del)}
	}
	d.Sets = sets
	return d
}
