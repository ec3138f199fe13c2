package cniserver_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/koratnet/korat/felix/cniserver"
	"github.com/koratnet/korat/felix/cniserver/wire"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/ipam"

	podnet "github.com/koratnet/korat/felix/pod"
)

const (
	histories = 1000
	steps     = 60
	blockGone = 15 * time.Minute // as the controller waits
)

// A box is one sandbox of a pod, as its runtime knows it.
type box struct {
	m       *machine
	pod, id string
	addrs   []netip.Addr // what ADD answered; its containers use them
	ended   bool         // its containers are gone; a DEL is still to come
}

func (b *box) netns() string { return "/netns/" + b.id }

// world is a cluster: an API server, machines, and their runtimes. Nothing in it
// looks at how the agents keep their books.
type world struct {
	t      *testing.T
	seed   uint64
	step   int
	r      *rand.Rand
	now    time.Time
	calm   bool // nothing fails any more
	pool   netip.Prefix
	uids   map[string]string // of Node objects
	blocks map[netip.Prefix]ipam.Block
	orphan map[ipam.Block]time.Time // since when the controller sees it so
	all    []*machine
	boxes  []*box
	claims map[string][]netip.Addr // podIPs, by machine and pod
	serial int
}

func (w *world) String() string { return fmt.Sprintf("seed %d step %d", w.seed, w.step) }

func (w *world) next() string { w.serial++; return fmt.Sprint("s", w.serial) }

func newHistory(t *testing.T, seed uint64, dir string) *world {
	w := &world{
		t: t, seed: seed, r: rand.New(rand.NewPCG(seed, 1)), now: time.Unix(1e9, 0), pool: netip.MustParsePrefix("10.0.0.0/27"),
		uids: map[string]string{}, blocks: map[netip.Prefix]ipam.Block{}, orphan: map[ipam.Block]time.Time{}, claims: map[string][]netip.Addr{},
	}
	for i := range 3 {
		m := &machine{w: w, name: fmt.Sprint("n", i), disk: filepath.Join(dir, fmt.Sprint(seed, "-", i))}
		m.netns, m.veths, m.ends = map[string]bool{}, nil, nil
		w.all = append(w.all, m)
		w.boot(m)
	}
	return w
}

// boot starts a machine from nothing but its disk, as a new Node.
func (w *world) boot(m *machine) {
	m.netns, m.veths, m.ends = map[string]bool{}, map[string]podnet.Wired{}, map[string]string{}
	w.uids[m.name] = w.next()
	m.start()
}

// off takes the power from a machine; its Node and its pods are deleted.
func (w *world) off(m *machine) {
	m.kill()
	delete(w.uids, m.name)
	w.boxes = slices.DeleteFunc(w.boxes, func(b *box) bool {
		if b.m == m {
			delete(w.claims, m.name+"/"+b.pod)
		}
		return b.m == m
	})
}

func (w *world) podsOf(m *machine, former []ipam.Block) (out []cniserver.Pod) {
	for key, addrs := range w.claims {
		if name, pod, _ := strings.Cut(key, "/"); name == m.name {
			p := cniserver.Pod{Namespace: "ns", Name: pod}
			for _, a := range addrs {
				if slices.ContainsFunc(former, func(b ipam.Block) bool { return b.CIDR.Contains(a) }) {
					p.Addrs = append(p.Addrs, a)
				}
			}
			out = append(out, p)
		}
	}
	return out
}

func (w *world) claimed(a netip.Addr) bool {
	for _, addrs := range w.claims {
		if slices.Contains(addrs, a) {
			return true
		}
	}
	return false
}

func (b *box) request(c wire.Command) wire.Request {
	return wire.Request{Command: c, ContainerID: b.id, Netns: b.netns(), IfName: "eth0", Namespace: "ns", Pod: b.pod}
}

// add lets the runtime of m make a sandbox of a pod, after the one before ended.
func (w *world) add(m *machine, pod string) {
	for _, b := range w.boxes {
		if b.m == m && b.pod == pod {
			b.ended = true
		}
	}
	b := &box{m: m, pod: pod, id: w.next()}
	m.netns[b.netns()] = true
	w.boxes = append(w.boxes, b)
	ctx, cancel := context.WithCancel(w.t.Context())
	defer cancel()
	if !m.listed {
		cancel() // nobody waits for the API server here
	}
	reply := m.server.Handle(ctx, b.request(wire.Add))
	if reply.Error != nil || !m.up {
		b.ended = true // the runtime will say DEL
		return
	}
	b.addrs = reply.Added.Addrs
	w.claims[m.name+"/"+pod] = b.addrs
}

// del lets the runtime end a sandbox. It repeats DEL until that succeeds.
func (w *world) del(b *box) {
	b.ended = true
	if reply := b.m.server.Handle(w.t.Context(), b.request(wire.Del)); reply.Error == nil && b.m.up {
		w.forget(b)
	}
}

// forget ends a sandbox, with or without DEL.
func (w *world) forget(b *box) {
	b.m.destroy(b.netns())
	w.boxes = slices.DeleteFunc(w.boxes, func(o *box) bool { return o == b })
	if !slices.ContainsFunc(w.boxes, func(o *box) bool { return o.m == b.m && o.pod == b.pod && !o.ended }) {
		delete(w.claims, b.m.name+"/"+b.pod)
	}
}

// inUse reports whether a pod claims an address of cidr.
func (w *world) inUse(cidr netip.Prefix) bool {
	for _, addrs := range w.claims {
		if slices.ContainsFunc(addrs, cidr.Contains) {
			return true
		}
	}
	return false
}

// stranded counts the pods of m in blocks that m had when both its Node and its
// journal were others. Nothing says that the machine is the same, so nobody hands
// out of these; the controller deletes them when their last pod is gone.
func (w *world) stranded(m *machine) (n int) {
	for _, b := range w.boxes {
		for cidr, x := range w.blocks {
			o := x.Owner
			former := o.Node == m.name && o.UID != w.uids[m.name] && o.Journal != m.books.State().ID
			if b.m == m && former && slices.ContainsFunc(b.addrs, cidr.Contains) {
				n++
			}
		}
	}
	return n
}

// control is the controller: it deletes blocks whose Node has been gone for long.
func (w *world) control() {
	for cidr, b := range w.blocks {
		if w.uids[b.Owner.Node] == b.Owner.UID {
			delete(w.orphan, b)
			continue
		}
		since, known := w.orphan[b]
		switch {
		case !known:
			w.orphan[b] = w.now
		case w.now.Sub(since) >= blockGone && !w.inUse(cidr):
			delete(w.blocks, cidr)
			delete(w.orphan, b)
		}
	}
}

// move is one step of chaos.
func (w *world) move() {
	m := w.all[w.r.IntN(len(w.all))]
	if !m.up {
		if w.uids[m.name] == "" {
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
		if w.r.IntN(2) == 0 {
			m.lose()
		}
	case k == 16:
		m.start()
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
	for range 25 {
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
		held := w.stranded(m)
		for _, u := range m.alloc.Usage() {
			owned[u.CIDR] = m.name
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
	for cidr, b := range w.blocks {
		if owned[cidr] != b.Owner.Node && !w.inUse(cidr) {
			w.t.Fatalf("%s: block %s of %+v is nobody's", w, cidr, b.Owner)
		}
	}
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
	for seed := range uint64(histories) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			w := newHistory(t, seed, dir)
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
}
