package cniserver_test

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/koratnet/korat/felix/cniserver"
	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/felix/pod"
	"github.com/koratnet/korat/ipam"
	"github.com/koratnet/korat/ipam/assign"
	"github.com/koratnet/korat/ipam/journal"
	"github.com/koratnet/korat/policy/selector"
)

// errDead: the agent was killed; nothing it does reaches the world any more.
var errDead = errors.New("killed")

// errLost: a reply was lost, or a request.
var errLost = errors.New("connection reset")

// machine is a node of the history: its kernel and its disk, and an agent that
// can be killed at every write.
type machine struct {
	w      *world
	name   string
	disk   string // state directory
	netns  map[string]bool
	veths  map[string]pod.Wired // by host interface
	ends   map[string]string    // host interface -> network namespace
	heard  map[netip.Prefix]bool
	refuse error // what the kernel says to endpoints
	back   int   // the step before which it does not return
	listed bool

	impatient func()        // who asks another node does not wait any longer
	up        bool          // the agent runs
	wired     chan struct{} // closed when Attach is over
	late      func()        // a record that is written after the veth is made
	fuse      int           // writes until it is killed; negative: it is not
	books     *journal.Journal
	alloc     *assign.Allocator
	server    *cniserver.Server
}

// write lets one write happen, or the agent die before or after it.
func (m *machine) write(do func() error) error {
	if !m.up {
		return errDead
	}
	if m.fuse != 0 {
		m.fuse--
		return do()
	}
	if m.w.r.IntN(2) == 0 {
		_ = do()
	}
	m.up = false
	return errDead
}

// kill ends the agent, and start starts it with what the disk and the kernel have.
func (m *machine) kill() {
	m.up = false
	if m.books != nil {
		m.books.Close()
		m.books = nil
	}
}

func (m *machine) start() {
	m.kill()
	var err error
	if m.books, err = journal.Open(m.disk, m.name); err != nil {
		m.w.t.Fatalf("%s: %v", m.w, err)
	}
	m.up, m.fuse, m.listed, m.heard = true, -1, false, map[netip.Prefix]bool{}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	m.alloc = assign.New(disk{m}, m, func() time.Time { return m.w.now }, log)
	m.server = cniserver.New(cniserver.Config{
		RunDir: m.disk, MTU: func() int { return 1500 }, Allocator: m.alloc, Journal: disk{m}, Wirer: m, Directory: m, Status: m, Box: m, Log: log,
	})
	_ = m.server.Recover() // what fails here the upkeep mends
}

// hear tells the agent what the API server knows, in the order in which the agent
// of a node hears a listing.
func (m *machine) hear() {
	m.alloc.SetNode(m.w.uids[m.name], selector.Labels(nil))
	for name, p := range m.w.pools {
		m.alloc.SetPool(name, p)
	}
	for cidr := range maps.Clone(m.heard) {
		if _, there := m.w.blocks[cidr]; !there {
			m.alloc.BlockGone(cidr)
			delete(m.heard, cidr)
		}
	}
	narrowFirst := slices.SortedFunc(maps.Keys(m.w.blocks), func(a, b netip.Prefix) int { return cmp.Compare(b.Bits(), a.Bits()) })
	for _, cidr := range narrowFirst {
		m.alloc.SetBlock(m.w.blocks[cidr])
		m.alloc.SetStanding(cidr, ipam.Standing{Free: m.w.free[cidr], Kept: m.w.kept[cidr], Wants: slices.Clone(m.w.wants[cidr])})
		m.heard[cidr] = true
	}
}

// upkeep is what the agent does now and then.
func (m *machine) upkeep(ctx context.Context) error {
	m.hear()
	former := m.alloc.Former()
	err := m.server.Adopt(m.w.podsOf(m, former))
	if err == nil {
		err = m.alloc.TakeOver(ctx, former)
	}
	if err != nil || !m.alloc.Challenging() {
		m.alloc.Listed()
		m.listed = true
	}
	publish := func(b ipam.Block, u assign.Usage) error {
		if m.w.blocks[b.CIDR].Owner != b.Owner {
			return nil
		}
		m.w.free[b.CIDR], m.w.kept[b.CIDR] = u.Free, u.Kept
		return nil
	}
	err = errors.Join(err, m.alloc.Answer(ctx), m.server.Collect(m.w.claimed), m.alloc.GiveBack(ctx))
	return errors.Join(err, m.alloc.Reclaim(ctx), m.alloc.EachBlock(publish))
}

// Lookup is what the API server says of a pod of the machine.
func (m *machine) Lookup(_ context.Context, _, pod string, _ event.UID) cniserver.Listing {
	return cniserver.Listing{Pod: m.w.annotations[m.name+"/"+pod], PodKnown: true, NamespaceKnown: true}
}

// destroy ends a network namespace; the kernel takes its veth along.
func (m *machine) destroy(netns string) {
	delete(m.netns, netns)
	for iface, end := range m.ends {
		if end == netns {
			delete(m.veths, iface)
			delete(m.ends, iface)
		}
	}
}

// The API server, as this machine reaches it.

func (m *machine) call(do func() error) error {
	if m.w.calm {
		return m.write(do)
	}
	switch m.w.r.IntN(12) {
	case 0:
		return errLost
	case 1:
		return errors.Join(m.write(do), errLost)
	}
	return m.write(do)
}

func (m *machine) Claim(_ context.Context, b ipam.Block) error {
	return m.call(func() error {
		if there, ok := m.w.blocks[b.CIDR]; ok && there.Owner != b.Owner {
			return ipam.ErrConflict
		}
		m.w.blocks[b.CIDR] = b
		if b.Owner.Node != m.name {
			m.w.seen["given"]++
		}
		return nil
	})
}

func (m *machine) TakeOver(_ context.Context, b ipam.Block, from ipam.Owner) error {
	return m.call(func() error {
		if o := m.w.blocks[b.CIDR].Owner; o != from && o != b.Owner {
			return ipam.ErrConflict
		}
		m.w.blocks[b.CIDR] = b
		m.w.seen["taken over"]++
		delete(m.w.wants, b.CIDR)
		return nil
	})
}

func (m *machine) Release(_ context.Context, b ipam.Block) error {
	return m.call(func() error {
		if m.w.blocks[b.CIDR].Owner == b.Owner {
			m.w.remove(b.CIDR)
		}
		return nil
	})
}

// Ask lays a want before the owner, who may answer at once. If not, who asks does
// not wait: the answer comes when nobody expects it any more.
func (m *machine) Ask(ctx context.Context, b ipam.Block, want ipam.Want) error {
	err := m.call(func() error {
		if there, ok := m.w.blocks[b.CIDR]; !ok || there.Owner != b.Owner {
			return ipam.ErrConflict
		}
		wants := slices.DeleteFunc(slices.Clone(m.w.wants[b.CIDR]), func(o ipam.Want) bool { return o.By.Node == want.By.Node })
		m.w.wants[b.CIDR] = append(wants, want)
		return nil
	})
	for _, o := range m.w.all {
		if o.name == b.Owner.Node && o != m && o.up && o.listed && m.w.r.IntN(3) > 0 {
			o.hear()
			_ = o.alloc.Answer(ctx)
		}
	}
	m.hear()
	m.impatient()
	return err
}

func (m *machine) Answer(_ context.Context, b ipam.Block, done, refused []ipam.Want) error {
	return m.call(func() error {
		if there, ok := m.w.blocks[b.CIDR]; !ok || there.Owner != b.Owner {
			return ipam.ErrConflict
		}
		wants := slices.DeleteFunc(slices.Clone(m.w.wants[b.CIDR]), func(o ipam.Want) bool { return slices.ContainsFunc(done, o.Same) })
		for i, o := range wants {
			for _, x := range refused {
				if o.Same(x) {
					wants[i].Refused = x.Refused
					m.w.seen["refused"]++
				}
			}
		}
		m.w.wants[b.CIDR] = wants
		return nil
	})
}

// disk is the machine's journal.
type disk struct{ m *machine }

func (d disk) do(f func() error) error {
	if !d.m.w.calm && d.m.w.r.IntN(40) == 0 {
		return journal.ErrNotRecorded
	}
	return d.m.write(f)
}

func (d disk) State() journal.State                          { return d.m.books.State() }
func (d disk) Find(h ipam.Handle) (journal.Attachment, bool) { return d.m.books.Find(h) }
func (d disk) On(iface string) []journal.Attachment          { return d.m.books.On(iface) }
func (d disk) Claim(b netip.Prefix, c journal.Claim) error {
	return d.do(func() error { return d.m.books.Claim(b, c) })
}

func (d disk) Carve(part netip.Prefix, g journal.Gift) error {
	return d.do(func() error { return d.m.books.Carve(part, g) })
}

func (d disk) Return(part netip.Prefix) error {
	return d.do(func() error { return d.m.books.Return(part) })
}

func (d disk) Drop(b netip.Prefix) error { return d.do(func() error { return d.m.books.Drop(b) }) }

func (d disk) Detach(h ipam.Handle, r journal.Rest) error {
	return d.do(func() error { return d.m.books.Detach(h, r) })
}

func (d disk) Attach(a journal.Attachment) (g uint64, err error) {
	err = d.do(func() error {
		g, err = d.m.books.Attach(a)
		return err
	})
	return g, err
}

// Begin records at once, or only when the veth has been made.
func (d disk) Begin(a journal.Attachment) (g uint64, wait func() error) {
	var outcome error
	ready := make(chan struct{})
	record := func() {
		defer close(ready)
		var recorded uint64
		if recorded, outcome = d.Attach(a); recorded != 0 {
			g = recorded
		}
	}
	wait = func() error {
		<-ready
		return outcome
	}
	if d.m.w.r.IntN(2) == 0 {
		record()
		return g, wait
	}
	d.m.late = record
	return d.m.books.State().Generation + 1, wait
}

// The kernel.

// Prepare is part of Attach here. What is done at the same time as Attach comes
// after it, so that a history can be repeated.
func (m *machine) Prepare(pod.Spec) error {
	m.wired = make(chan struct{})
	return nil
}

func (m *machine) Attach(s pod.Spec) (net.HardwareAddr, error) {
	defer close(m.wired)
	mac, err := m.wire(s)
	if m.late != nil {
		m.late()
		m.late = nil
	}
	return mac, err
}

func (m *machine) wire(s pod.Spec) (net.HardwareAddr, error) {
	return nil, m.write(func() error {
		if !m.netns[s.Netns] {
			return pod.ErrNoNetns
		}
		m.ends[s.HostInterface] = s.Netns
		for iface, v := range m.veths { // the route of an address leads to its latest interface
			v.Addrs = slices.DeleteFunc(v.Addrs, func(a netip.Addr) bool { return slices.Contains(s.Addrs, a) })
			m.veths[iface] = v
		}
		m.veths[s.HostInterface] = pod.Wired{HostInterface: s.HostInterface, Addrs: slices.Clone(s.Addrs)}
		return nil
	})
}

func (m *machine) Detach(iface string) error {
	return m.write(func() error {
		delete(m.veths, iface)
		delete(m.ends, iface)
		return nil
	})
}

func (m *machine) Retire(iface string) error { return m.Detach(iface) }
func (m *machine) Reap() error               { return nil }
func (m *machine) SetMTU(pod.Spec) error     { return nil }

func (m *machine) WaitGone(context.Context, string) error { return nil }

func (m *machine) Exists(iface string) (bool, error) {
	_, there := m.veths[iface]
	return there, nil
}

func (m *machine) Check(s pod.Spec) error {
	switch end, there := m.ends[s.HostInterface]; {
	case !there:
		return errors.New("no such interface")
	case !m.netns[s.Netns]:
		return pod.ErrNoNetns
	case end != s.Netns:
		return pod.ErrElsewhere
	}
	return nil
}

func (m *machine) Wired() ([]pod.Wired, error) {
	return slices.SortedFunc(maps.Values(m.veths), func(a, b pod.Wired) int {
		return strings.Compare(a.HostInterface, b.HostInterface)
	}), nil
}

func (m *machine) Post(...event.Event) {}
func (m *machine) Synced(event.Source) {}
func (m *machine) Ready() error        { return nil }
func (m *machine) WaitEndpoint(context.Context, string, uint64) error {
	<-m.wired
	if !m.up {
		return errDead
	}
	if !m.w.calm && m.w.r.IntN(20) == 0 {
		return errors.New("the kernel refuses")
	}
	return m.refuse
}

// lose removes the state directory.
func (m *machine) lose() {
	m.kill()
	if err := os.RemoveAll(m.disk); err != nil {
		m.w.t.Fatal(err)
	}
}
