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

	"github.com/koratnet/korat/felix/annotation"
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
	t           *testing.T
	seed        uint64
	step        int
	r           *rand.Rand
	now         time.Time
	calm        bool // nothing fails any more
	pools       map[string]*ipam.Pool
	going       bool              // pool q is being deleted
	uids        map[string]string // of Node objects
	blocks      map[netip.Prefix]ipam.Block
	wants       map[netip.Prefix][]ipam.Want // what is asked of blocks' owners
	free        map[netip.Prefix]int         // as owners published it
	kept        map[netip.Prefix]map[netip.Addr]string
	orphan      map[ipam.Block]time.Time     // since when the controller sees it so
	annotations map[string]map[string]string // of pods, by machine and pod
	all         []*machine
	boxes       []*box
	claims      map[string][]netip.Addr // podIPs, by machine and pod
	serial      int
	seen        map[string]int // how often what happened, in all histories
}

func (w *world) String() string { return fmt.Sprintf("seed %d step %d", w.seed, w.step) }

func (w *world) next() string { w.serial++; return fmt.Sprint("s", w.serial) }

func newHistory(t *testing.T, seed uint64, dir string) *world {
	w := &world{
		t: t, seed: seed, r: rand.New(rand.NewPCG(seed, 1)), now: time.Unix(1e9, 0),
		uids: map[string]string{}, blocks: map[netip.Prefix]ipam.Block{}, orphan: map[ipam.Block]time.Time{}, claims: map[string][]netip.Addr{},
		wants: map[netip.Prefix][]ipam.Want{}, free: map[netip.Prefix]int{}, kept: map[netip.Prefix]map[netip.Addr]string{},
		annotations: map[string]map[string]string{},
	}
	// Two thirds of the clusters have fewer blocks than their nodes want.
	p := netip.PrefixFrom(netip.MustParseAddr("10.0.0.0"), 27+int(seed%3))
	w.pools = map[string]*ipam.Pool{"p": {Name: "p", CIDR: p, BlockSize: 30}}
	w.makePool()
	for i := range 3 {
		m := &machine{w: w, impatient: func() {}, name: fmt.Sprint("n", i), disk: filepath.Join(dir, fmt.Sprint(seed, "-", i))}
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
	w.annotate(m.name + "/" + pod)
	b := &box{m: m, pod: pod, id: w.next()}
	m.netns[b.netns()] = true
	w.boxes = append(w.boxes, b)
	ctx, cancel := context.WithCancel(w.t.Context())
	defer cancel()
	m.impatient = cancel
	if !m.listed {
		cancel() // nobody waits for the API server here
	}
	reply := m.server.Handle(ctx, b.request(wire.Add))
	if reply.Error != nil || !m.up {
		if reply.Error != nil && strings.Contains(reply.Error.Details, ipam.ErrExhausted.Error()) {
			w.seen["exhausted"]++
		}
		b.ended = true // the runtime will say DEL
		return
	}
	b.addrs = reply.Added.Addrs
	asked := w.annotations[m.name+"/"+pod]
	if a := asked[annotation.IPAddresses]; a != "" {
		w.seen["asked address"]++
		if b.addrs[0].String() != a {
			w.t.Fatalf("%s: %s/%s asked for %s and got %v", w, m.name, pod, a, b.addrs)
		}
	}
	if asked[annotation.StickyAddress] != "" && w.returns(b.addrs[0], pod) {
		w.seen["kept address"]++
	}
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

// inUse reports whether a pod claims an address of cidr, and not of a block inside.
func (w *world) inUse(cidr netip.Prefix) bool {
	for _, addrs := range w.claims {
		if slices.ContainsFunc(addrs, func(a netip.Addr) bool { return w.blockOf(a) == cidr }) {
			return true
		}
	}
	return false
}

// blockOf returns the block that an address belongs to: the narrowest.
func (w *world) blockOf(a netip.Addr) (best netip.Prefix) {
	for cidr := range w.blocks {
		if cidr.Contains(a) && (!best.IsValid() || cidr.Bits() > best.Bits()) {
			best = cidr
		}
	}
	return best
}

// partsOf returns the blocks inside of cidr.
func (w *world) partsOf(cidr netip.Prefix) (parts []ipam.Block) {
	for p, b := range w.blocks {
		if p.Bits() > cidr.Bits() && cidr.Contains(p.Addr()) {
			parts = append(parts, b)
		}
	}
	return parts
}

func (w *world) remove(cidr netip.Prefix) {
	delete(w.blocks, cidr)
	delete(w.wants, cidr)
	delete(w.free, cidr)
	delete(w.kept, cidr)
}

// makePool makes the pool that comes and goes.
func (w *world) makePool() {
	w.pools["q"], w.going = &ipam.Pool{Name: "q", CIDR: netip.MustParsePrefix("10.0.1.0/29"), BlockSize: 30}, false
}

// annotate lets a pod ask for something, now and then.
func (w *world) annotate(key string) {
	delete(w.annotations, key)
	switch w.r.IntN(6) {
	case 0:
		w.annotations[key] = map[string]string{annotation.StickyAddress: "5m"}
	case 1:
		want := netip.AddrFrom4([4]byte{10, 0, byte(w.r.IntN(4) / 3), byte(w.r.IntN(32))})
		w.annotations[key] = map[string]string{annotation.IPAddresses: want.String()}
	}
}

// control is the controller: it deletes blocks whose Node has been gone for long,
// or leaves one of which others have parts to one of these; and pools when nobody
// has a block of them any more.
func (w *world) control() {
	left := 0
	for cidr, b := range w.blocks {
		if b.Pool == "q" {
			left++
		}
		if w.uids[b.Owner.Node] == b.Owner.UID {
			delete(w.orphan, b)
			continue
		}
		since, known := w.orphan[b]
		switch {
		case !known:
			w.orphan[b] = w.now
			continue
		case w.now.Sub(since) < blockGone || w.inUse(cidr):
			continue
		}
		parts := w.partsOf(cidr)
		heir := slices.IndexFunc(parts, func(p ipam.Block) bool { return w.uids[p.Owner.Node] == p.Owner.UID })
		switch {
		case heir >= 0:
			b.Owner = parts[heir].Owner
			w.blocks[cidr] = b
			delete(w.wants, cidr)
			w.seen["inherited"]++
		case len(parts) == 0:
			w.remove(cidr)
		}
	}
	if w.going && left == 0 && w.pools["q"] != nil {
		w.pools["q"] = nil
		w.seen["pool gone"]++
	}
}

// returns reports whether an address was kept for the pod, as far as was published.
func (w *world) returns(a netip.Addr, pod string) bool {
	for _, kept := range w.kept {
		if kept[a] == "ns/"+pod {
			return true
		}
	}
	return false
}

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
