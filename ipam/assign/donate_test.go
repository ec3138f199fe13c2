package assign

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/koratnet/korat/ipam"
	"github.com/koratnet/korat/ipam/journal"
)

func TestAnAddressThatIsAskedForComesFromWhereverItIs(t *testing.T) {
	w, c := newWorld()
	p := pool("p", "10.0.0.0/28", 29)
	a, b := w.node(t, "a", t.TempDir(), c, p), w.node(t, "b", t.TempDir(), c, p)
	w.lively(t, a, b)
	mine := give(t, a, handle(1), ipam.Request{})
	w.tell(a, b)
	free := mine.Next()
	if !a.blockFor(free) {
		free = mine.Prev()
	}
	if got := give(t, b, handle(2), ipam.Request{Addrs: []netip.Addr{free}}); got != free || w.blocks[netip.PrefixFrom(free, 32)].Node != "b" {
		t.Fatalf("got %s, want %s as a block of its own: %v", got, free, w.blocks)
	}
	_, err := b.Assign(t.Context(), handle(3), ipam.Request{Addrs: []netip.Addr{mine}})
	if !errors.Is(err, ipam.ErrTaken) || !strings.Contains(err.Error(), "held by pod ns/p1") || !strings.Contains(err.Error(), "node a") {
		t.Errorf("an address that a pod has: %v", err)
	}
	_, err = a.Assign(t.Context(), handle(4), ipam.Request{Addrs: []netip.Addr{mine}})
	if !errors.Is(err, ipam.ErrTaken) || !strings.Contains(err.Error(), "held by pod ns/p1") {
		t.Errorf("the same on its own node: %v", err)
	}
	end(t, a, handle(1), mine, 0) // it rests, which matters to nobody who asks for it
	w.tell(a, b)
	if got := give(t, b, handle(3), ipam.Request{Addrs: []netip.Addr{mine}}); got != mine {
		t.Errorf("got %s, want %s", got, mine)
	}
}

// A block of one address cannot be carved out of itself: it would be nobody's.
func TestAWholeBlockIsGivenBackRatherThanCarved(t *testing.T) {
	w, c := newWorld()
	p := pool("p", "10.0.0.0/28", 29)
	a, b := w.node(t, "a", t.TempDir(), c, p), w.node(t, "b", t.TempDir(), c, p)
	other := w.node(t, "c", t.TempDir(), c, p)
	w.lively(t, a, b, other)
	mine := give(t, a, handle(1), ipam.Request{})
	w.tell(a, b, other)
	free := mine.Next()
	if !a.blockFor(free) {
		free = mine.Prev()
	}
	give(t, b, handle(2), ipam.Request{Addrs: []netip.Addr{free}})
	end(t, b, handle(2), free, 0)
	w.tell(a, b, other)
	ask := ipam.Request{Addrs: []netip.Addr{free}}
	if _, err := other.Assign(t.Context(), handle(3), ask); !errors.Is(err, ipam.ErrTaken) || !strings.Contains(err.Error(), "whole of the block") {
		t.Fatalf("got %v", err)
	}
	c.t = c.t.Add(ipam.DefaultCooldown) // the address has rested
	if err := b.GiveBack(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, left := w.blocks[netip.PrefixFrom(free, 32)]; left {
		t.Fatalf("b keeps what it does not need and another asked for: %v", w.blocks)
	}
	for range 2 { // a sees that nobody has the part, and later that this is still so
		w.tell(a, b, other)
		if err := a.Answer(t.Context()); err != nil {
			t.Fatal(err)
		}
		c.t = c.t.Add(returnAfter)
	}
	if got := give(t, other, handle(3), ask); got != free {
		t.Errorf("got %s, want %s", got, free)
	}
}

func TestAnOwnerThatIsSilentIsNotWaitedForLong(t *testing.T) {
	w, c := newWorld()
	p := pool("p", "10.0.0.0/30", 30)
	a, b := w.node(t, "a", t.TempDir(), c, p), w.node(t, "b", t.TempDir(), c, p)
	give(t, a, handle(1), ipam.Request{})
	w.tell(a, b)
	start := time.Now()
	_, err := b.Assign(t.Context(), handle(2), ipam.Request{})
	if !errors.Is(err, ipam.ErrExhausted) || !strings.Contains(err.Error(), "node a, which owns block 10.0.0.0/30, has not given it up yet") {
		t.Errorf("got %v", err)
	}
	if took := time.Since(start); took > donorWait+2*time.Second {
		t.Errorf("it took %s", took)
	}
	w.lively(t, a, b) // it answers later: what comes then is used
	w.onAsk(netip.Prefix{})
	if got := give(t, b, handle(2), ipam.Request{}); a.blockFor(got) {
		t.Errorf("%s is the other's", got)
	}
}

// Killed between any two writes of a gift, the owner neither uses the part nor
// forgets it.
func TestAGiftSurvivesACrashAtEveryWrite(t *testing.T) {
	for name, crash := range map[string]func(*world){
		"before the part is made": func(w *world) { w.fail = errors.New("connection refused") },
		"the reply is lost":       func(w *world) { w.failAfter = errors.New("connection reset") },
	} {
		t.Run(name, func(t *testing.T) {
			w, c := newWorld()
			p := pool("p", "10.0.0.0/30", 30)
			dir := t.TempDir()
			a, b := w.node(t, "a", dir, c, p), w.node(t, "b", t.TempDir(), c, p)
			give(t, a, handle(1), ipam.Request{})
			want := ipam.Want{By: b.identity(), Bits: 32, Number: 1}
			w.wants[prefix("10.0.0.0/30")] = []ipam.Want{want}
			w.tell(a, b)
			crash(w)
			if err := a.Answer(t.Context()); err == nil {
				t.Fatal("no error")
			}
			w.fail, w.failAfter = nil, nil
			_ = a.journal.(*journal.Journal).Close()
			a = w.node(t, "a", dir, c, p)
			if u := a.Usage()[0]; u.Given != 1 {
				t.Fatalf("after a restart it counts %+v", u.Counts)
			}
			if err := a.Answer(t.Context()); err != nil {
				t.Fatal(err)
			}
			w.tell(a, b)
			got := give(t, b, handle(2), ipam.Request{})
			if n := len(b.Usage()); a.blockFor(got) || n != 1 || a.Usage()[0].Given != 1 {
				t.Errorf("b got %s, of %d blocks; a counts %+v", got, n, a.Usage()[0].Counts)
			}
		})
	}
}

func TestAStickyAddressWaitsForItsPod(t *testing.T) {
	w, c := newWorld()
	p := pool("p", "10.0.0.0/28", 29)
	a, b := w.node(t, "a", t.TempDir(), c, p), w.node(t, "b", t.TempDir(), c, p)
	w.lively(t, a, b)
	sticky := ipam.Request{Keep: 10 * time.Minute}
	pod := ipam.Handle{Namespace: "ns", Pod: "db-0", Sandbox: "first"}
	at := give(t, a, pod, sticky)
	end(t, a, pod, at, sticky.Keep)
	c.t = c.t.Add(5 * time.Minute)
	for i := range 7 { // all others of the block
		if got := give(t, a, handle(i), ipam.Request{}); got == at {
			t.Fatalf("%s was given to another", at)
		}
	}
	if _, err := a.Assign(t.Context(), handle(8), ipam.Request{Addrs: []netip.Addr{at}}); !errors.Is(err, ipam.ErrTaken) || !strings.Contains(err.Error(), "kept for pod ns/db-0") {
		t.Errorf("another asks for it: %v", err)
	}
	w.tell(a, b)
	pod.Sandbox = "second" // on another node
	if got := give(t, b, pod, sticky); got != at {
		t.Fatalf("the pod got %s on the other node, want %s", got, at)
	}
	end(t, b, pod, at, sticky.Keep)
	pod.Sandbox = "third"
	if got := give(t, b, pod, sticky); got != at {
		t.Fatalf("the pod got %s on the same node, want %s", got, at)
	}
	end(t, b, pod, at, sticky.Keep)
	c.t = c.t.Add(sticky.Keep)
	if u := b.Usage(); u[len(u)-1].Resting != 0 {
		t.Errorf("the address is kept for ever: %+v", u)
	}
}

// Two machines of one name: the second asks, the first refuses, and only the first
// assigns. When the first has ended, the second takes over.
func TestASecondAgentOfTheSameNameIsFenced(t *testing.T) {
	w, c := newWorld()
	p := pool("p", "10.0.0.0/28", 30)
	first, second := w.node(t, "n", t.TempDir(), c, p), w.node(t, "n", t.TempDir(), c, p)
	at := give(t, first, handle(1), ipam.Request{})
	w.lively(t, first)
	w.tell(first, second)
	takeOver := func() error {
		w.tell(second)
		return second.TakeOver(t.Context(), second.Former())
	}
	if err := takeOver(); err != nil || !second.Challenging() {
		t.Fatalf("%v; it has asked: %t", err, second.Challenging())
	}
	c.t = c.t.Add(2 * fenceWait)
	if err := takeOver(); !errors.Is(err, ipam.ErrRival) || !errors.Is(second.Problem(), ipam.ErrRival) {
		t.Fatalf("got %v, problem %v", err, second.Problem())
	}
	if got, err := second.Assign(t.Context(), handle(2), ipam.Request{}); !errors.Is(err, ipam.ErrRival) {
		t.Errorf("the second assigned %v (%v)", got, err)
	}
	if got := give(t, first, handle(3), ipam.Request{}); first.Problem() != nil || got == at {
		t.Errorf("the first: %v, %s", first.Problem(), got)
	}
	w.onAsk = nil // the first has ended
	c.t = c.t.Add(fenceRetry)
	for range 2 {
		_ = takeOver()
		c.t = c.t.Add(fenceWait)
	}
	w.tell(second)
	if len(second.Former()) != 0 || second.Problem() != nil || len(second.Usage()) != 1 {
		t.Errorf("former %v, problem %v, blocks %d", second.Former(), second.Problem(), len(second.Usage()))
	}
}

// A pod that comes before the API server has told all waits for the end of the
// takeover. It once kept the node from it, until it gave up half a minute later.
func TestAPodThatWaitsForATakeoverDoesNotHoldItUp(t *testing.T) {
	for _, r := range []ipam.Request{{}, {Addrs: []netip.Addr{addr("10.0.0.14")}}} {
		synctest.Test(t, func(t *testing.T) {
			w, c := newWorld()
			p := pool("p", "10.0.0.0/28", 28)
			give(t, w.node(t, "n", t.TempDir(), c, p), handle(1), ipam.Request{})
			again := New(open(t, t.TempDir(), "n"), w, c.now, quiet) // its journal was lost
			again.SetNode("uid-n", nil)
			again.SetPool(p.Name, &p)
			w.hear(again)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			got := make(chan error, 1)
			go func() {
				_, err := again.Assign(ctx, handle(2), r)
				got <- err
			}()
			synctest.Wait()
			if !again.claiming.TryLock() {
				t.Fatal("while it waits blocks cannot be taken over")
			}
			again.claiming.Unlock()
			for range 2 {
				if err := again.TakeOver(t.Context(), again.Former()); err != nil {
					t.Fatal(err)
				}
				c.t = c.t.Add(fenceWait)
			}
			again.Listed()
			if err := <-got; err != nil || len(again.Usage()) != 1 {
				t.Errorf("%v; the node has %d blocks", err, len(again.Usage()))
			}
		})
	}
}

// The Node made anew and the journal lost at once: only what runs says that the
// machine is the same.
func TestBlocksComeBackByWhatRuns(t *testing.T) {
	w, c := newWorld()
	p := pool("p", "10.0.0.0/28", 30)
	a := w.node(t, "n", t.TempDir(), c, p)
	at := give(t, a, handle(1), ipam.Request{})
	again := w.node(t, "n", t.TempDir(), c, p)
	again.SetNode("new uid", nil)
	w.hear(again)
	if f := again.Former(); len(f) != 0 {
		t.Fatalf("without a pod: %v", f)
	}
	record(t, again, ipam.Handle{Pod: "kor1"}, []netip.Addr{at}) // as Adopt does
	for range 2 {
		if err := again.TakeOver(t.Context(), again.Former()); err != nil {
			t.Fatal(err)
		}
		c.t = c.t.Add(fenceWait)
	}
	if u := again.Usage(); len(u) != 1 || u[0].Held[at].Pod != "kor1" {
		t.Errorf("got %+v", u)
	}
}
