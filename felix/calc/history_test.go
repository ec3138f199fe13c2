package calc_test

import (
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/koratnet/korat/felix/calc"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/desired/desiredtest"
	"github.com/koratnet/korat/felix/event"
)

var compare = cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}, netip.Prefix{}), cmpopts.EquateEmpty()}

const everyone = event.API | event.CNI | event.Neighbours

// run is an engine with what it was told and what a reader of its deltas believes.
type run struct {
	*testing.T
	proxied bool // what Auto is may have changed since the last flush
	engine  *calc.Engine
	told    state
	heard   event.Source
	world   desiredtest.World
}

func newRun(t *testing.T) *run {
	return &run{T: t, engine: calc.New(calc.Config{Node: "me"}), told: state{}, world: oracle{"me", state{}}.world(0)}
}

func (r *run) put(evs ...event.Event) {
	for _, ev := range evs {
		r.proxied = r.proxied || ev.Key.Kind == event.ProxyKind && !reflect.DeepEqual(r.told[ev.Key], ev.Value)
		r.told.put(ev)
		r.engine.Put(ev)
	}
}

func (r *run) synced(src event.Source) {
	r.heard |= src
	r.engine.Synced(src)
}

// flush folds the next delta, which must be minimal, and asks the oracle.
func (r *run) flush() {
	r.Helper()
	d := r.engine.Flush()
	want := oracle{"me", r.told}.world(r.heard)
	was, is := r.world.Settings, d.Settings
	auto := is != nil && is.Backend == desired.Auto && r.proxied
	if r.proxied = false; is != nil && was.Backend != "" && (is.Backend != was.Backend || auto || is.Recheck && !was.Recheck) {
		r.repeats(d, want)
	} else {
		for _, s := range r.world.Redundant(d) {
			r.Errorf("redundant delta: %s", s)
		}
	}
	r.world.Apply(d)
	if !reflect.DeepEqual(want, r.world) { // cheap, and almost always enough
		if diff := cmp.Diff(want, r.world, compare); diff != "" {
			r.Fatalf("desired state (-oracle +fold of deltas):\n%s", diff)
		}
	}
	if d := r.engine.Flush(); !d.Empty() {
		r.Fatalf("a second flush says something: %+v", d)
	}
}

// repeats: who begins with d, a backend or who rechecks connections, knows all
// that concerns it.
func (r *run) repeats(d desired.Delta, want desiredtest.World) {
	r.Helper()
	begins := desiredtest.Fold(d)
	want.Routes, want.Paths, want.Speaker, want.Pools = begins.Routes, begins.Paths, begins.Speaker, begins.Pools
	want.Closed, want.Policies, want.Peers, want.Ways, want.MTU, want.Encrypted, want.Rules = begins.Closed, begins.Policies, begins.Peers, begins.Ways, begins.MTU, begins.Encrypted, begins.Rules
	if diff := cmp.Diff(want, begins, compare); diff != "" {
		r.Fatalf("what a backend knows that begins now (-oracle +delta):\n%s", diff)
	}
}

func TestRandomHistoriesAgreeWithTheOracle(t *testing.T) {
	histories, steps := uint64(200), 150
	if testing.Short() {
		histories = 30
	}
	for seed := range histories {
		d, r := newDice(seed, 1), newRun(t)
		for step := range steps {
			r.put(d.event())
			switch d.IntN(40) {
			case 0:
				r.synced(event.API)
			case 1:
				r.synced(event.CNI)
			case 2:
				r.synced(event.Neighbours)
			}
			if step == steps/4 {
				r.synced(event.API)
			}
			if d.chance(60) {
				r.flush()
			}
			if t.Failed() {
				t.Fatalf("seed %d, step %d", seed, step)
			}
		}
	}
}

// An expander leads an engine through a list of states on a way of its own. In
// every state in which it flushes it must find what the oracle says, and at the
// end the fold of everything it was told must be the same on every way.
var expanders = map[string]func(r *run, d dice, states []state){
	"one after another": func(r *run, _ dice, states []state) {
		for _, s := range states {
			r.put(r.told.changes(s)...)
			r.flush()
		}
	},
	"each in reversed order": func(r *run, _ dice, states []state) {
		for _, s := range states {
			evs := r.told.changes(s)
			slices.Reverse(evs)
			r.put(evs...)
			r.flush()
		}
	},
	"each shuffled": func(r *run, d dice, states []state) {
		for _, s := range states {
			evs := r.told.changes(s)
			d.Shuffle(len(evs), func(i, j int) { evs[i], evs[j] = evs[j], evs[i] })
			r.put(evs...)
			r.flush()
		}
	},
	"split into single events": func(r *run, d dice, states []state) {
		for _, s := range states {
			evs := r.told.changes(s)
			d.Shuffle(len(evs), func(i, j int) { evs[i], evs[j] = evs[j], evs[i] })
			for _, ev := range evs {
				r.put(ev)
				r.flush()
			}
		}
	},
	"squashed into one flush": func(r *run, _ dice, states []state) {
		for _, s := range states {
			r.put(r.told.changes(s)...)
		}
		r.flush()
	},
	"with nothing in between": func(r *run, _ dice, states []state) {
		for _, s := range states {
			r.put(r.told.changes(state{})...)
			r.flush()
			r.put(r.told.changes(s)...)
			r.flush()
		}
	},
	"with squashed nothing in between": func(r *run, _ dice, states []state) {
		for _, s := range states {
			r.put(r.told.changes(state{})...)
			r.put(state{}.changes(s)...)
			r.flush()
		}
	},
	"backwards and forwards": func(r *run, _ dice, states []state) {
		for _, s := range slices.Backward(states) {
			r.put(r.told.changes(s)...)
			r.flush()
		}
		for _, s := range states {
			r.put(r.told.changes(s)...)
			r.flush()
		}
	},
	"heard only at the end": func(r *run, _ dice, states []state) {
		r.engine, r.heard = calc.New(calc.Config{Node: "me"}), 0
		for _, s := range states {
			r.put(r.told.changes(s)...)
			r.flush()
		}
		r.synced(everyone)
		r.flush()
	},
}

func TestTheWayToAStateDoesNotMatter(t *testing.T) {
	for name, expand := range expanders {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(12) {
				d := newDice(seed, 2)
				states := []state{d.state(60), d.state(60), d.state(20), d.state(90)}
				r := newRun(t)
				r.synced(everyone)
				expand(r, newDice(seed, 3), states)
				want := oracle{"me", states[len(states)-1]}.world(everyone)
				if diff := cmp.Diff(want, r.world, compare); diff != "" {
					t.Fatalf("seed %d: last state (-oracle +fold):\n%s", seed, diff)
				}
			}
		})
	}
}

func TestAnEqualValueSaysNothing(t *testing.T) {
	for seed := range uint64(20) {
		r := newRun(t)
		r.synced(everyone)
		r.put(state{}.changes(newDice(seed, 4).state(120))...)
		r.flush()
		again := newDice(seed, 4).state(120) // equal values in other memory
		r.put(state{}.changes(again)...)
		if d := r.engine.Flush(); !d.Empty() {
			t.Fatalf("seed %d: equal values put again say %+v", seed, d)
		}
	}
}

func TestAThingThatCameAndWentWithinAFlushSaysNothing(t *testing.T) {
	r := newRun(t)
	r.synced(everyone)
	s := newDice(1, 5).state(120)
	r.put(s.changes(state{})...)
	r.flush()
	r.put(state{}.changes(s)...)
	r.put(s.changes(state{})...)
	if d := r.engine.Flush(); !d.Empty() {
		t.Fatalf("says %+v", d)
	}
}

func TestMergedDeltasOfAHistoryFoldLikeSingleOnes(t *testing.T) {
	for seed := range uint64(40) {
		d, r := newDice(seed, 6), newRun(t)
		r.synced(everyone)
		twin := calc.New(calc.Config{Node: "me"}) // makes the same deltas once more, as Merge uses them up
		twin.Synced(everyone)
		waiting, merged := twin.Flush(), desiredtest.World{}
		r.flush()
		for range 100 {
			ev := d.event()
			r.put(ev)
			twin.Put(ev)
			r.flush()
			waiting.Merge(twin.Flush())
			if d.chance(15) {
				merged.Apply(waiting)
				waiting = twin.Flush()
			}
		}
		merged.Apply(waiting)
		if diff := cmp.Diff(r.world, merged, compare); diff != "" {
			t.Fatalf("seed %d: singly (-) and merged (+):\n%s", seed, diff)
		}
	}
}
