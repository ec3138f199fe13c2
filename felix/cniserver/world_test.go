package cniserver_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/koratnet/korat/felix/annotation"
	"github.com/koratnet/korat/felix/cniserver"
	"github.com/koratnet/korat/felix/cniserver/wire"
	"github.com/koratnet/korat/ipam"

	podnet "github.com/koratnet/korat/felix/pod"
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
