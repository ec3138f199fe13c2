package assign

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/koratnet/korat/ipam"
	"github.com/koratnet/korat/ipam/journal"
)

// filled is a node with blocks .0/31, .2/31 and .4/31 in some order, full of
// pods, on a world of 8 addresses; the pods' addresses by handle number.
func filled(t *testing.T) (*world, *clock, *Allocator, string, map[int]netip.Addr) {
	t.Helper()
	w, c := newWorld()
	dir := t.TempDir()
	a := w.node(t, "n", dir, c, pool("p", "10.0.0.0/29", 31))
	got := map[int]netip.Addr{}
	for i := range 6 {
		addrs, err := a.Assign(t.Context(), handle(i), ipam.Request{})
		if err != nil {
			t.Fatal(err)
		}
		got[i] = addrs[0]
	}
	return w, c, a, dir, got
}

func (w *world) tellGone(a *Allocator) {
	for cidr := range maps.Clone(a.taken) {
		if _, there := w.blocks[cidr]; !there {
			a.BlockGone(cidr)
		}
	}
}

func TestItem60EmptyBlocksAreGivenBackAfterTheGraceAndOneIsKept(t *testing.T) {
	w, c, a, dir, got := filled(t)
	for i, addr := range got {
		a.Release(handle(i), []netip.Addr{addr}, a.Rest(handle(i), []netip.Addr{addr}, 0))
	}
	look := func(want int) {
		t.Helper()
		if err := a.GiveBack(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := len(a.journal.State().Blocks); len(w.blocks) != want || n != want {
			t.Fatalf("%d blocks in the API, %d in the journal, want %d", len(w.blocks), n, want)
		}
	}
	look(3) // they rest
	c.t = c.t.Add(ipam.DefaultCooldown)
	look(3) // seen empty for the first time
	c.t = c.t.Add(idleGrace - 1)
	look(3)
	if addrs, err := a.Assign(t.Context(), handle(7), ipam.Request{}); err != nil {
		t.Fatal(err)
	} else {
		a.Undo(handle(7), addrs) // its block was in use meanwhile, and is the one that is kept
	}
	c.t = c.t.Add(1)
	look(1)
	w.tellGone(a)
	c.t = c.t.Add(2 * idleGrace)
	look(1)
	for i := range 6 { // what was given back can be claimed again
		if _, err := a.Assign(t.Context(), handle(10+i), ipam.Request{}); err != nil {
			t.Fatal(err)
		}
	}
	a.journal.(*journal.Journal).Close()
	if again := w.node(t, "n", dir, c); len(again.Usage()) != 3 {
		t.Errorf("after a restart %d blocks, want 3", len(again.Usage()))
	}
}

func TestABlockWithFreeAddressesIsKeptBesideAFullOne(t *testing.T) {
	w, c, a, _, got := filled(t)
	blocks := slices.SortedFunc(maps.Keys(w.blocks), netip.Prefix.Compare)
	for i, addr := range got {
		if !blocks[0].Contains(addr) { // which stays full
			a.Release(handle(i), []netip.Addr{addr}, journal.Rest{Until: c.t})
		}
	}
	for range 3 {
		if err := a.GiveBack(t.Context()); err != nil {
			t.Fatal(err)
		}
		c.t = c.t.Add(idleGrace)
	}
	if len(w.blocks) != 2 {
		t.Errorf("blocks %v, want the full one and one to hand out of", w.blocks)
	}
}

func TestABlockThatLeavesIsNeitherHandedOutOfNorLost(t *testing.T) {
	w, c, a, dir, got := filled(t)
	for i, addr := range got {
		a.Release(handle(i), []netip.Addr{addr}, journal.Rest{Until: c.t})
	}
	_ = a.GiveBack(t.Context())
	c.t = c.t.Add(idleGrace)
	w.fail = errors.New("connection refused")
	if err := a.GiveBack(t.Context()); !errors.Is(err, w.fail) {
		t.Fatalf("got %v, want what the API says", err)
	}
	w.hear(a) // a late event says that they are ours
	if n := len(a.Usage()); n != 1 {
		t.Fatalf("%d blocks to hand out of, want the one that stays", n)
	}
	w.fail = nil
	t.Run("after a restart they are adopted", func(t *testing.T) {
		j, err := journal.Open(copied(t, dir), "n")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { j.Close() })
		again := New(j, w, c.now, quiet)
		again.SetNode("uid-n", nil)
		w.hear(again)
		if n := len(again.Usage()); n != 3 {
			t.Errorf("%d blocks, want 3", n)
		}
	})
	if err := a.GiveBack(t.Context()); err != nil || len(w.blocks) != 1 {
		t.Errorf("tried again: %v, %d blocks", err, len(w.blocks))
	}
}

func TestABlockOfAPoolThatIsDisabledIsGivenBackWhenItIsEmpty(t *testing.T) {
	w, c, a, _, got := filled(t)
	p := pool("p", "10.0.0.0/29", 31)
	p.Disabled = true
	a.SetPool("p", &p)
	for i, addr := range got {
		a.Release(handle(i), []netip.Addr{addr}, journal.Rest{Until: c.t})
	}
	_ = a.GiveBack(t.Context())
	c.t = c.t.Add(idleGrace + time.Second)
	if err := a.GiveBack(t.Context()); err != nil || len(w.blocks) != 0 {
		t.Errorf("%v, %d blocks are left", err, len(w.blocks))
	}
}
