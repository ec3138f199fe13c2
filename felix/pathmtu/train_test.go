package pathmtu

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/koratnet/korat/felix/desired"
)

const all = loads * perLoad

func TestADeviceIsJudgedOnlyOnAPathThatCarries(t *testing.T) {
	train := func(came int, took time.Duration) Train { return Train{Segments: all, Came: came, Took: took} }
	const quick = time.Millisecond
	for what, c := range map[string]struct {
		trains Trains
		want   verdict
	}{
		"nothing was sent":                          {Trains{}, unsaid},
		"nothing comes":                             {Trains{Finished: train(0, 0)}, unsaid},
		"the path loses as much":                    {Trains{train(all*8/10, quick), train(0, 0)}, unsaid},
		"only the kernel's train was sent":          {Trains{Finished: train(all, quick)}, unsaid},
		"all comes":                                 {Trains{train(all, quick), train(all, quick)}, sane},
		"some is lost on either side":               {Trains{train(all-2, quick), train(all-9, quick)}, sane},
		"half of what is cut comes":                 {Trains{train(all, quick), train(all/2, quick)}, sane},
		"less than half of it":                      {Trains{train(all, quick), train(all/2-1, quick)}, insane},
		"none of it":                                {Trains{train(all, quick), train(0, 0)}, insane},
		"it takes long":                             {Trains{train(all, quick), train(all, slowest+1)}, insane},
		"it takes many times as long, and not long": {Trains{train(all, quick), train(all, slowest)}, sane},
		"it takes long, as all there":               {Trains{train(all, slowest), train(all, slower*slowest)}, sane},
	} {
		if got := c.trains.judge(); got != c.want {
			t.Errorf("%s: %d, want %d", what, got, c.want)
		}
	}
}

// TestAnswersAreCounted: whatever arrives, no segment is held against a device that did.
func TestAnswersAreCounted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var a answers
		came, mayBeMore := map[int]bool{}, 0
		for load := range loads {
			arrive := rapid.SliceOfDistinct(rapid.IntRange(0, perLoad-1), rapid.ID).Draw(t, "segments")
			for _, n := range arrive { // in any order, and more than once
				came[load*perLoad+n] = true
				a.note(uint32(load*perLoad+n+1) * trainSegment)
				a.note(uint32(load*perLoad+n+1) * trainSegment)
			}
			if len(arrive) == 1 && arrive[0] == perLoad-1 {
				mayBeMore += perLoad - 1
			}
		}
		for _, foreign := range []uint32{0, 1, trainSegment - 1, (all + 1) * trainSegment, 1 << 31, ^uint32(0)} {
			a.note(foreign)
		}
		if got := a.of(finished); got != len(came) {
			t.Fatalf("%d of the kernel's segments, want %d", got, len(came))
		}
		if got := a.of(cut); got != len(came)+mayBeMore {
			t.Fatalf("%d of the device's segments, want %d", got, len(came)+mayBeMore)
		}
	})
}

func TestTrainsGoToAPeerOnceInAWhileUnlessItIsInTrouble(t *testing.T) {
	b := newBook()
	p, other := peer(0), peer(1)
	p.Tunnel, p.Offloads, p.MAC = "vx", true, desired.MAC{2}
	b.follow([]Peer{p, other})
	now := time.Unix(1e9, 0)
	due := func() bool { to, due := b.trainTo([]Peer{other, p}, now); return due && to == p }
	if due() {
		t.Error("a train goes to a peer that nothing unfinished has reached yet")
	}
	b.noteLeft(p, left{finished: true, summed: true, cut: whole})
	good := Trains{Train{all, all, 1}, Train{all, all, 1}}
	bad := Trains{Train{all, all, 1}, Train{all, 7, 1}}
	for i, step := range []struct {
		came   Trains
		after  time.Duration
		due    bool // when that has gone by
		node   string
		intact int
	}{
		{good, trainsEvery - 1, false, "", 1},
		{good, trainsEvery, true, "", 1},
		{bad, 10 * time.Second, true, "", 1},
		{bad, 10 * time.Second, true, "", 1},
		{good, 10 * time.Second, false, "", 1},
		{bad, 10 * time.Second, true, "", 1},
		{Trains{}, 10 * time.Second, true, "", 1}, // nothing is answered
		{bad, 10 * time.Second, true, "", 1},
		{bad, 10 * time.Second, false, "a", 0},
		{bad, trainsEvery, true, "a", 0},
		{good, 10 * time.Second, false, "", 1},
	} {
		b.noteTrains(p, step.came, now)
		if now = now.Add(step.after); due() != step.due {
			t.Errorf("step %d: another train is due: %v, want %v", i, !step.due, step.due)
		}
		want := Offload{Tunnel: "vx", Intact: step.intact, Node: step.node}
		if step.node != "" {
			want.Segments, want.Trains = true, bad
		}
		if got := b.offloads(); len(got) != 1 || got[0] != want {
			t.Errorf("step %d: %+v, want %+v", i, got, want)
		}
	}
	b.noteTrains(p, bad, now)
	if next := b.next(2); next[0] != p {
		t.Errorf("%s is tried before the suspect", next[0].Node)
	}
	b.follow([]Peer{other})
	if b.noteTrains(p, bad, now); len(b.hauls) != 0 {
		t.Errorf("who is no peer any more is in the book: %+v", b.hauls)
	}
}
