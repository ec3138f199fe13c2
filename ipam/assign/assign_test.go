package assign

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/koratnet/korat/ipam"
	"github.com/koratnet/korat/ipam/journal"
	"github.com/koratnet/korat/policy/selector"
)

// world is a small API server: it lets one creator of a block win, and may
// lose replies.
type world struct {
	blocks    map[netip.Prefix]ipam.Owner
	wants     map[netip.Prefix][]ipam.Want
	free      map[netip.Prefix]int
	kept      map[netip.Prefix]map[netip.Addr]string
	fail      error // the next claim fails with it
	failAfter error // the next claim is carried out, and fails with it
	claims    int   // tried
	onAsk     func(cidr netip.Prefix)
}

func (w *world) Ask(_ context.Context, b ipam.Block, want ipam.Want) error {
	if w.fail != nil {
		return w.fail
	}
	if w.blocks[b.CIDR] != b.Owner {
		return ipam.ErrConflict
	}
	w.wants[b.CIDR] = append(slices.DeleteFunc(w.wants[b.CIDR], func(o ipam.Want) bool { return o.By.Node == want.By.Node }), want)
	if w.onAsk != nil {
		w.onAsk(b.CIDR)
	}
	return nil
}

func (w *world) Answer(_ context.Context, b ipam.Block, done, refused []ipam.Want) error {
	if w.fail != nil {
		return w.fail
	}
	if w.blocks[b.CIDR] != b.Owner {
		return ipam.ErrConflict
	}
	w.wants[b.CIDR] = slices.DeleteFunc(w.wants[b.CIDR], func(o ipam.Want) bool { return slices.ContainsFunc(done, o.Same) })
	for i, o := range w.wants[b.CIDR] {
		for _, r := range refused {
			if o.Same(r) {
				w.wants[b.CIDR][i].Refused = r.Refused
			}
		}
	}
	return nil
}

func (w *world) Claim(_ context.Context, b ipam.Block) error {
	w.claims++
	if w.fail != nil {
		return w.fail
	}
	if o, ok := w.blocks[b.CIDR]; ok && o != b.Owner {
		return ipam.ErrConflict
	}
	w.blocks[b.CIDR] = b.Owner
	return w.failAfter
}

func (w *world) TakeOver(_ context.Context, b ipam.Block, from ipam.Owner) error {
	if w.fail != nil {
		return w.fail
	}
	if w.blocks[b.CIDR] != from {
		return ipam.ErrConflict
	}
	w.blocks[b.CIDR] = b.Owner
	delete(w.wants, b.CIDR)
	return nil
}

func (w *world) Release(_ context.Context, b ipam.Block) error {
	if w.fail != nil {
		return w.fail
	}
	if w.blocks[b.CIDR] == b.Owner {
		delete(w.blocks, b.CIDR)
		delete(w.wants, b.CIDR)
	}
	return nil
}

type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// node starts (or restarts) the allocator of a node whose journal is in dir.
func (w *world) node(t *testing.T, name, dir string, c *clock, pools ...ipam.Pool) *Allocator {
	t.Helper()
	j, err := journal.Open(dir, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() }) // it may be closed
	a := New(j, w, c.now, quiet)
	a.SetNode("uid-"+name, selector.MakeLabels(map[string]string{"name": name}))
	for _, p := range pools {
		a.SetPool(p.Name, &p)
	}
	w.hear(a)
	a.Listed()
	return a
}

// hear tells a of all blocks, narrow ones first.
func (w *world) hear(a *Allocator) {
	for _, cidr := range slices.SortedFunc(maps.Keys(w.blocks), func(x, y netip.Prefix) int { return cmp.Compare(y.Bits(), x.Bits()) }) {
		pool := "p"
		for _, p := range a.pools {
			if p.CIDR.Overlaps(cidr) {
				pool = p.Name
			}
		}
		a.SetBlock(ipam.Block{CIDR: cidr, Pool: pool, Owner: w.blocks[cidr]})
		a.SetStanding(cidr, ipam.Standing{Free: w.free[cidr], Kept: w.kept[cidr], Wants: slices.Clone(w.wants[cidr])})
	}
	w.tellGone(a)
}

// tell lets nodes publish what they have and hear of each other.
func (w *world) tell(nodes ...*Allocator) {
	for _, a := range nodes {
		for _, u := range a.Usage() {
			w.free[u.CIDR], w.kept[u.CIDR] = u.Free, u.Kept
		}
	}
	for _, a := range nodes {
		w.hear(a)
	}
}

// lively lets nodes answer at once when they are asked.
func (w *world) lively(t *testing.T, nodes ...*Allocator) {
	w.onAsk = func(netip.Prefix) {
		w.tell(nodes...)
		for _, a := range nodes {
			if err := a.Answer(t.Context()); err != nil {
				t.Error(err)
			}
		}
		w.tell(nodes...)
	}
}

// copied returns a copy of the directory.
func copied(t *testing.T, dir string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

func pool(name, cidr string, size int) ipam.Pool {
	return ipam.Pool{Name: name, CIDR: netip.MustParsePrefix(cidr), BlockSize: size}
}

func handle(i int) ipam.Handle {
	return ipam.Handle{Namespace: "ns", Pod: fmt.Sprint("p", i), Sandbox: fmt.Sprint("s", i)}
}

func newWorld() (*world, *clock) {
	return &world{blocks: map[netip.Prefix]ipam.Owner{}, wants: map[netip.Prefix][]ipam.Want{}, free: map[netip.Prefix]int{}, kept: map[netip.Prefix]map[netip.Addr]string{}}, &clock{time.Unix(1_000_000, 0)}
}

func TestADualStackNodeGetsBothFamiliesOrNothing(t *testing.T) {
	w, c := newWorld()
	a := w.node(t, "n", t.TempDir(), c, pool("p4", "10.0.0.0/30", 30), pool("p6", "fd00::/126", 127))
	for i := range 4 {
		addrs, err := a.Assign(t.Context(), handle(i), ipam.Request{})
		if err != nil || len(addrs) != 2 || !addrs[0].Is4() || !addrs[1].Is6() {
			t.Fatalf("pod %d: got %v, %v", i, addrs, err)
		}
	}
	if addrs, err := a.Assign(t.Context(), handle(9), ipam.Request{}); !errors.Is(err, ipam.ErrExhausted) {
		t.Fatalf("got %v, %v from full pools", addrs, err)
	}
	for _, u := range a.Usage() {
		if u.Counts.Held+u.Resting+u.Free == 0 || u.Resting != 0 {
			t.Fatalf("usage %+v", u)
		}
	}
}

func TestWithoutAPoolTheErrorSaysWhatToDo(t *testing.T) {
	w, c := newWorld()
	p := pool("p", "10.0.0.0/24", 26)
	p.Nodes = selector.Equals("name", "other")
	if _, err := w.node(t, "n", t.TempDir(), c, p).Assign(t.Context(), handle(1), ipam.Request{}); !errors.Is(err, ipam.ErrNoPool) {
		t.Fatalf("got %v, want ErrNoPool", err)
	}
}

func TestPodsStartFromAnOwnedBlockWhileTheAPIServerIsAway(t *testing.T) {
	w, c := newWorld()
	dir := t.TempDir()
	a := w.node(t, "n", dir, c, pool("p", "10.0.0.0/24", 30))
	if _, err := a.Assign(t.Context(), handle(1), ipam.Request{}); err != nil {
		t.Fatal(err)
	}
	w.fail = errors.New("connection refused")
	a.journal.(*journal.Journal).Close()
	j, err := journal.Open(dir, "n")
	if err != nil {
		t.Fatal(err)
	}
	again := New(j, w, c.now, quiet) // knows the journal only
	for i := range 4 {
		if _, err := again.Assign(t.Context(), handle(10+i), ipam.Request{}); err != nil {
			t.Fatalf("pod %d: %v", i, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := again.Assign(ctx, handle(99), ipam.Request{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v when the block is full and the API server away", err)
	}
}

func TestBlocksOfOverlappingPoolsDoNotOverlap(t *testing.T) {
	w, c := newWorld()
	wide, narrow := pool("a", "10.0.0.0/27", 28), pool("b", "10.0.0.16/28", 30)
	held := map[netip.Addr]bool{}
	for i, pools := range [][]ipam.Pool{{narrow}, {wide}, {wide, narrow}} {
		a := w.node(t, fmt.Sprint("n", i), t.TempDir(), c, wide, narrow)
		if len(pools) == 1 { // this node may use one of them only
			for _, p := range []ipam.Pool{wide, narrow} {
				p.Disabled = p.Name != pools[0].Name
				a.SetPool(p.Name, &p)
			}
		}
		for k := range 20 {
			addrs, err := a.Assign(t.Context(), handle(100*i+k), ipam.Request{})
			if errors.Is(err, ipam.ErrExhausted) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if held[addrs[0]] {
				t.Fatalf("%s was handed out twice", addrs[0])
			}
			held[addrs[0]] = true
		}
	}
	if len(held) != 32 {
		t.Errorf("%d of 32 addresses could be used", len(held))
	}
}

// Nodes come, claim, assign, release and restart at random: no address is ever
// held twice in the cluster, and a freed one rests.
func TestNoAddressIsHeldTwiceInTheCluster(t *testing.T) {
	for seed := range uint64(8) {
		r := rand.New(rand.NewPCG(seed, 7))
		w, c := newWorld()
		p := pool("p", "10.0.0.0/25", 30)
		dirs, nodes := make([]string, 4), make([]*Allocator, 4)
		for i := range nodes {
			dirs[i] = t.TempDir()
			nodes[i] = w.node(t, fmt.Sprint("n", i), dirs[i], c, p)
		}
		type held struct {
			node  int
			h     ipam.Handle
			addrs []netip.Addr
		}
		var all []held
		holder := map[netip.Addr]ipam.Handle{}
		restUntil := map[netip.Addr]time.Time{}
		for step := range 150 {
			c.t = c.t.Add(time.Duration(r.IntN(4)) * time.Second)
			i := r.IntN(len(nodes))
			switch k := r.IntN(10); {
			case k < 6:
				h := handle(step)
				addrs, err := nodes[i].Assign(t.Context(), h, ipam.Request{})
				if errors.Is(err, ipam.ErrExhausted) {
					continue
				}
				if err != nil {
					t.Fatalf("seed %d step %d: %v", seed, step, err)
				}
				for _, a := range addrs {
					if o, taken := holder[a]; taken || c.t.Before(restUntil[a]) {
						t.Fatalf("seed %d step %d: %s given to %v, held by %v, rests until %v", seed, step, a, h, o, restUntil[a])
					}
					holder[a] = h
				}
				if _, err := nodes[i].journal.(*journal.Journal).Attach(journal.Attachment{Handle: h, Addrs: addrs}); err != nil {
					t.Fatal(err)
				}
				all = append(all, held{i, h, addrs})
			case k < 9 && len(all) > 0:
				n := r.IntN(len(all))
				x := all[n]
				all = append(all[:n], all[n+1:]...)
				rest := nodes[x.node].Rest(x.h, x.addrs, 0)
				if err := nodes[x.node].journal.(*journal.Journal).Detach(x.h, rest); err != nil {
					t.Fatal(err)
				}
				nodes[x.node].Release(x.h, x.addrs, rest)
				for _, a := range x.addrs {
					delete(holder, a)
					restUntil[a] = rest.Until
				}
			default: // killed and started again
				nodes[i].journal.(*journal.Journal).Close()
				nodes[i] = w.node(t, fmt.Sprint("n", i), dirs[i], c, p)
			}
		}
	}
}
