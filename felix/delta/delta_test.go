package delta_test

import (
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/koratnet/korat/felix/delta"
)

// TestTrackerBehavesLikeTwoMaps drives a Tracker and the obvious model, one map
// for each side, through the same random history and compares what is pending.
func TestTrackerBehavesLikeTwoMaps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tr := delta.New[int](func(a, b string) bool { return a == b })
		want, have := map[int]string{}, map[int]string{}
		removable := func(int, string) bool { return false }
		key, value := rapid.IntRange(0, 5), rapid.SampledFrom([]string{"a", "b", "c"})

		t.Repeat(map[string]func(*rapid.T){
			"want": func(t *rapid.T) {
				k, v := key.Draw(t, "k"), value.Draw(t, "v")
				tr.Want(k, v)
				want[k] = v
			},
			"unwant": func(t *rapid.T) {
				k := key.Draw(t, "k")
				tr.Unwant(k)
				delete(want, k)
			},
			"saw": func(t *rapid.T) {
				k, v := key.Draw(t, "k"), value.Draw(t, "v")
				tr.Saw(k, v)
				have[k] = v
			},
			"gone": func(t *rapid.T) {
				k := key.Draw(t, "k")
				tr.Gone(k)
				delete(have, k)
			},
			"resync": func(t *rapid.T) {
				have = rapid.MapOf(key, value).Draw(t, "all")
				tr.Resync(maps.All(have))
			},
			"allow": func(t *rapid.T) {
				limit := key.Draw(t, "limit")
				removable = func(k int, v string) bool { return k < limit || v == "c" }
				tr.AllowRemoval(removable)
			},
			"apply": func(t *rapid.T) {
				for k, c := range tr.Pending() {
					if rapid.Bool().Draw(t, "fails") {
						continue
					}
					if tr.Done(k); c.Op == delta.Remove {
						delete(have, k)
					} else {
						have[k] = c.Want
					}
				}
			},
			"": func(t *rapid.T) { compare(t, tr, want, have, removable) },
		})
	})
}

func compare(t *rapid.T, tr *delta.Tracker[int, string], want, have map[int]string, removable func(int, string) bool) {
	pending := map[int]delta.Change[string]{}
	missing := 0
	for k, w := range want {
		h, there := have[k]
		switch {
		case !there:
			pending[k] = delta.Change[string]{Op: delta.Create, Want: w}
		case h != w:
			pending[k] = delta.Change[string]{Op: delta.Update, Want: w, Have: h}
		default:
			continue
		}
		missing++
	}
	for k, h := range have {
		if _, wanted := want[k]; !wanted && removable(k, h) {
			pending[k] = delta.Change[string]{Op: delta.Remove, Have: h}
		}
	}
	got := map[int]delta.Change[string]{}
	removing := false
	for k, c := range tr.Pending() {
		if _, twice := got[k]; twice {
			t.Fatalf("key %d is pending twice", k)
		}
		if removing = removing || c.Op == delta.Remove; removing && c.Op != delta.Remove {
			t.Fatalf("key %d: %v after a removal", k, c)
		}
		got[k] = c
	}
	if diff := cmp.Diff(pending, got); diff != "" {
		t.Fatalf("pending (-want +got):\n%s", diff)
	}
	if tr.Settled() != (len(pending) == 0) {
		t.Fatalf("Settled is %v with %d pending", tr.Settled(), len(pending))
	}
	if w, m := tr.Size(); w != len(want) || m != missing {
		t.Fatalf("Size is %d, %d, not %d, %d", w, m, len(want), missing)
	}
	if diff := cmp.Diff(want, maps.Collect(tr.AllWanted())); diff != "" {
		t.Fatalf("AllWanted (-want +got):\n%s", diff)
	}
	for k := range 6 {
		w, wok := tr.Wanted(k)
		h, hok := tr.Have(k)
		mw, mwok := want[k]
		mh, mhok := have[k]
		if w != mw || wok != mwok || h != mh || hok != mhok {
			t.Fatalf("key %d: wanted %q %v, have %q %v", k, w, wok, h, hok)
		}
	}
}

// BenchmarkPendingAfterMany: what is left to do is found at once, also after a
// hundred thousand keys were pending together.
func BenchmarkPendingAfterMany(b *testing.B) {
	tr := delta.New[int](func(a, b int) bool { return a == b })
	for k := range 100_000 {
		tr.Want(k, k)
	}
	for k := range tr.Pending() {
		tr.Done(k)
	}
	for b.Loop() {
		tr.Want(1, 2)
		for k := range tr.Pending() {
			tr.Done(k)
		}
	}
}

func TestNothingIsRemovedUnlessAllowed(t *testing.T) {
	tr := delta.New[string](func(a, b int) bool { return a == b })
	tr.Resync(maps.All(map[string]int{"stray": 1}))
	if !tr.Settled() {
		t.Error("a stray is pending before removal was allowed")
	}
	tr.AllowRemoval(func(string, int) bool { return true })
	if tr.Settled() {
		t.Error("a stray is not pending though removal is allowed")
	}
}
