package cniserver_test

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/koratnet/korat/felix/desired"
)

const (
	histories = 1000
	steps     = 60
	blockGone = 15 * time.Minute // as the controller waits
)

// move is one step of chaos.
func (w *world) move() {
	m := w.all[w.r.IntN(len(w.all))]
	if !m.up {
		if w.uids[m.name] == "" {
			if w.step < m.back {
				w.now = w.now.Add(time.Minute)
				w.control()
				return
			}
			w.boot(m)
		} else {
			m.start()
		}
	}
	if w.r.IntN(4) == 0 {
		m.fuse = w.r.IntN(5) // it will be killed at one of the next writes
	}
	switch k := w.r.IntN(25); {
	case k < 8:
		w.add(m, fmt.Sprint("p", w.r.IntN(6)))
	case k < 12 && len(w.boxes) > 0:
		if b := w.boxes[w.r.IntN(len(w.boxes))]; b.m.up {
			w.del(b)
		}
	case k == 12 && len(w.boxes) > 0: // without DEL
		w.forget(w.boxes[w.r.IntN(len(w.boxes))])
	case k == 13:
		m.lose()
		m.start()
	case k == 14: // its Node is made anew while it runs
		w.uids[m.name] = w.next()
	case k == 15 && w.r.IntN(2) == 0: // it is deleted, and returns with its disk or without
		w.off(m)
		m.back = w.step + w.r.IntN(30)
		if w.r.IntN(2) == 0 {
			m.lose()
		}
	case k == 16:
		m.start()
	case k == 17 && w.pools["q"] == nil:
		w.makePool()
	case k == 17:
		w.going = true
		q := *w.pools["q"]
		q.Disabled = true
		w.pools["q"] = &q
	default:
		w.now = w.now.Add(time.Duration(w.r.IntN(90)) * time.Second)
		_ = m.upkeep(w.t.Context())
		w.control()
	}
}

// check says whether two pods that run have one address.
func (w *world) check() {
	w.t.Helper()
	user := map[netip.Addr]*box{}
	for _, b := range w.boxes {
		for _, a := range b.addrs {
			if b.ended {
				continue
			}
			if o := user[a]; o != nil {
				w.t.Fatalf("%s: %s is used by %s/%s (%s) and %s/%s (%s)", w, a, o.m.name, o.pod, o.id, b.m.name, b.pod, b.id)
			}
			user[a] = b
		}
	}
}

// settle lets all that fails end, and time pass.
func (w *world) settle() {
	w.calm = true
	for _, m := range w.all {
		if w.uids[m.name] == "" {
			w.boot(m)
		}
		m.start()
	}
	for range 40 {
		w.now = w.now.Add(time.Minute)
		for _, m := range w.all {
			if err := m.upkeep(w.t.Context()); err != nil {
				w.t.Fatalf("%s: upkeep of %s: %v", w, m.name, err)
			}
		}
		w.control()
		for _, b := range slices.Clone(w.boxes) {
			if b.ended {
				w.del(b)
			}
		}
	}
}

// judge says what is lost or left after everything settled.
func (w *world) judge() {
	w.t.Helper()
	w.check()
	running := map[string]map[netip.Addr]bool{}
	for _, m := range w.all {
		running[m.name] = map[netip.Addr]bool{}
	}
	for _, b := range w.boxes {
		for _, a := range b.addrs {
			running[b.m.name][a] = true
		}
		v, there := b.m.veths[desired.HostInterface("ns", b.pod)]
		if !there || !slices.Equal(v.Addrs, b.addrs) {
			w.t.Fatalf("%s: %s/%s has %v, its interface %v", w, b.m.name, b.pod, b.addrs, v)
		}
	}
	owned := map[netip.Prefix]string{}
	for _, m := range w.all {
		held := 0
		for _, u := range m.alloc.Usage() {
			owned[u.CIDR] = m.name
			given := 0
			for _, p := range w.partsOf(u.CIDR) {
				given += 1 << (p.CIDR.Addr().BitLen() - p.CIDR.Bits())
			}
			if c := u.Counts; c.Given != given || c.Held+c.Resting+c.Free+c.Given != 1<<(32-u.CIDR.Bits()) {
				w.t.Fatalf("%s: %s has %+v of %s, of which %d are others'", w, m.name, c, u.CIDR, given)
			}
			for a := range u.Held {
				if held++; !running[m.name][a] {
					w.t.Fatalf("%s: %s leaks %s, held by %v", w, m.name, a, u.Held[a])
				}
			}
			if o := w.blocks[u.CIDR].Owner; o.Node != m.name || o.UID != w.uids[m.name] || o.Journal != m.books.State().ID {
				w.t.Fatalf("%s: %s hands out of %s, which is of %+v", w, m.name, u.CIDR, o)
			}
		}
		if held != len(running[m.name]) || len(m.books.State().Attachments) != held {
			w.t.Fatalf("%s: %s holds %d addresses, records %d, and %d are in use", w, m.name, held, len(m.books.State().Attachments), len(running[m.name]))
		}
	}
	if w.going && w.pools["q"] != nil && !w.usesPool("q") {
		w.t.Fatalf("%s: pool q is not gone although nobody uses it: %v", w, w.blocks)
	}
	for cidr, b := range w.blocks {
		if owned[cidr] != b.Owner.Node && !w.inUse(cidr) {
			w.t.Fatalf("%s: block %s of %+v is nobody's", w, cidr, b.Owner)
		}
	}
}

// usesPool reports whether a pod claims an address of the pool.
func (w *world) usesPool(name string) bool {
	for _, addrs := range w.claims {
		if slices.ContainsFunc(addrs, w.pools[name].CIDR.Contains) {
			return true
		}
	}
	return false
}

// Whatever happens, in whatever order, and wherever an agent is killed: no
// address is used twice, and when all is quiet each is explained by a pod that
// runs. A failure names its seed; -run with it repeats the history.
func TestHistories(t *testing.T) {
	dir, err := os.MkdirTemp("/dev/shm", "korat-history") // syncs of a real disk would take minutes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	seen := map[string]int{}
	for seed := range uint64(histories) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			w := newHistory(t, seed, dir)
			w.seen = seen
			defer func() {
				for _, m := range w.all {
					m.kill()
				}
			}()
			for w.step = range steps {
				w.move()
				w.check()
			}
			w.settle()
			w.judge()
		})
		if t.Failed() {
			return
		}
	}
	t.Log(seen)
	for _, what := range []string{"given", "asked address", "refused", "taken over", "inherited", "pool gone", "kept address", "exhausted"} {
		if seen[what] == 0 {
			t.Errorf("no history has %q: it judges nothing", what)
		}
	}
}
