package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/bgp/child"
	"github.com/koratnet/korat/felix/conflist"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/felix/event/mailbox"
	"github.com/koratnet/korat/felix/pathmtu"
	"github.com/koratnet/korat/felix/report"
	"github.com/koratnet/korat/felix/status"
	"github.com/koratnet/korat/ipam"
	"github.com/koratnet/korat/ipam/assign"
	"github.com/koratnet/korat/ipam/journal"
)

// tee is the API server's letterbox: the engine's mailbox, and beside it the
// allocator, which needs to know pools and blocks without waiting for a flush.
type tee struct {
	*mailbox.Mailbox
	node *local
}

// Post hands events to both.
func (t *tee) Post(evs ...event.Event) {
	for _, ev := range narrowFirst(evs) {
		t.node.hear(ev)
	}
	t.Mailbox.Post(evs...)
}

// narrowFirst puts the blocks of a listing into such an order that a block comes
// after those inside of it: what of it is another's is known when it is opened.
func narrowFirst(evs []event.Event) []event.Event {
	bits := func(ev event.Event) int {
		if b, ok := ev.Value.(*event.Block); ok {
			return b.CIDR.Bits()
		}
		return -1
	}
	if len(evs) < 2 || bits(evs[0]) < 0 && bits(evs[1]) < 0 {
		return evs
	}
	evs = slices.Clone(evs)
	slices.SortStableFunc(evs, func(a, b event.Event) int { return cmp.Compare(bits(b), bits(a)) })
	return evs
}

// Synced hands the mark to both.
func (t *tee) Synced(s event.Source) {
	close(t.node.listed)
	// What the engine says first has to be right, or flows would be moved to
	// tunnels and back at every start.
	t.node.tunnels.lookAround()
	t.Mailbox.Synced(s)
}

// local gathers what there is to report about this node.
type local struct {
	name, version string
	board         *status.Board
	speaker       *child.Client
	allocator     *assign.Allocator
	directory     *directory
	books         *journal.Journal
	ledger        *report.Ledger
	tunnels       *tunnels
	paths         *pathmtu.Prober
	listed        chan struct{} // closed when the API server has told all

	mu     sync.Mutex // guards all below
	addrs  []netip.Addr
	config bgp.Config
	closed []bgp.Session           // that somebody wants and that cannot be
	mtu    int                     // of pods, as settings say; 0: that of the uplink
	tells  bool                    // settings have the Node's condition told
	blocks map[string]netip.Prefix // in the API, by name
	pods   map[string]*event.Pod   // of this node, by namespace/name
}

// hear tells the allocator of nodes, pools and blocks.
func (l *local) hear(ev event.Event) {
	l.tunnels.hear(ev)
	switch v := ev.Value.(type) {
	case *event.Node:
		l.directory.setNode(ev.Key.Name, v)
		if v.Name == l.name {
			l.allocator.SetNode(v.UID, v.Labels)
			l.mu.Lock()
			l.addrs = v.Addrs
			l.mu.Unlock()
		}
	case *event.Pool:
		l.allocator.SetPool(ev.Key.Name, &v.Pool)
		l.directory.setPool(ev.Key.Name, v)
	case *event.Reservation:
		l.allocator.SetReservation(ev.Key.Name, v.Nets)
	case *event.Block:
		l.remember(ev.Key.Name, v.Block)
		l.allocator.SetBlock(v.Block)
		l.allocator.SetStanding(v.CIDR, v.Standing)
	case *event.Namespace:
		l.directory.setNamespace(ev.Key.Name, v)
	case *event.Pod:
		l.hearPod(ev.Key.Name, v)
	case nil:
		switch ev.Key.Kind {
		case event.PodKind:
			l.hearPod(ev.Key.Name, nil)
		case event.NodeKind:
			l.directory.setNode(ev.Key.Name, nil)
		case event.NamespaceKind:
			l.directory.setNamespace(ev.Key.Name, nil)
		case event.ReservationKind:
			l.allocator.SetReservation(ev.Key.Name, nil)
		case event.PoolKind:
			l.allocator.SetPool(ev.Key.Name, nil)
			l.directory.setPool(ev.Key.Name, nil)
		case event.BlockKind:
			l.forget(ev.Key.Name)
		}
	}
}

// hearPod remembers the pods of this node; nil: the pod is gone.
func (l *local) hearPod(name string, p *event.Pod) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.directory.setPod(name, p)
	if p == nil || p.Node != l.name {
		delete(l.pods, name)
		return
	}
	if l.pods == nil {
		l.pods = map[string]*event.Pod{}
	}
	l.pods[name] = p
}

func (l *local) remember(name string, b ipam.Block) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.blocks == nil {
		l.blocks = map[string]netip.Prefix{}
	}
	l.blocks[name] = b.CIDR
}

func (l *local) forget(name string) {
	l.mu.Lock()
	cidr, known := l.blocks[name]
	delete(l.blocks, name)
	l.mu.Unlock()
	if known {
		l.allocator.BlockGone(cidr)
	}
}

// note remembers what the engine computed and the node reports: the speaker's
// configuration, the MTU of pods, and which policies are in use.
func (l *local) note(d desired.Delta) {
	l.ledger.Note(d)
	l.tunnels.note(d)
	if d.Settings != nil {
		l.mu.Lock()
		l.mtu, l.tells = d.Settings.MTU, d.Settings.NodeCondition
		l.mu.Unlock()
	}
	if d.Closed != nil {
		l.mu.Lock()
		l.closed = *d.Closed
		l.mu.Unlock()
	}
	if d.Speaker != nil {
		l.mu.Lock()
		l.config = *d.Speaker
		l.mu.Unlock()
	}
}

// podMTU returns the MTU, in bytes, that pods' interfaces are to have: what
// settings say, or what the ways to the other nodes leave.
func (l *local) podMTU() int {
	l.mu.Lock()
	wanted := l.mtu
	l.mu.Unlock()
	if wanted != 0 {
		return wanted
	}
	return l.tunnels.podMTU()
}

// problem says why the node cannot serve pods; nil: it can.
func (l *local) problem() error {
	return errors.Join(l.board.Ready(), l.allocator.Problem(), l.books.Problem())
}

// serving returns what there is to tell Kubernetes of the network of pods, whose
// configuration for the container runtime is in dir; empty: somebody else's business.
func (l *local) serving(dir string) report.Serving {
	l.mu.Lock()
	tells := l.tells
	l.mu.Unlock()
	s := report.Serving{Silent: !tells, Problem: l.problem()}
	if dir == "" {
		return s
	}
	if _, err := os.Stat(filepath.Join(dir, conflist.Name)); err != nil {
		s.Problem = errors.Join(s.Problem, fmt.Errorf("network configuration for the container runtime: %w", err))
	} else {
		s.Configured = true
	}
	return s
}

// facts returns what there is to report now.
func (l *local) facts(ctx context.Context) report.Facts {
	l.mu.Lock()
	addrs, config, closed := l.addrs, l.config, l.closed
	l.mu.Unlock()
	snap := l.board.Snapshot()
	f := report.Facts{
		Addresses: withSubnet(addrs), ASN: config.ASN, Draining: config.Draining, Enforcement: l.board.Enforcement(), Version: l.version,
		Endpoints: snap.Endpoints, Blocks: len(l.allocator.Usage()), Problem: l.problem(),
	}
	for _, r := range snap.Reconcilers {
		f.Starting = f.Starting || !r.Synced
	}
	f.PathMTU = l.paths.Summary()
	l.tunnels.report(&f, snap)
	f.Policies, f.LeftOut = l.ledger.Policies(snap)
	f.Hosts = l.ledger.HostEndpoints(snap)
	l.board.SetPolicies(l.ledger.Count())
	if s, err := l.speaker.Sessions(ctx); err == nil {
		f.Sessions = s
	}
	f.Sessions = append(f.Sessions, closed...)
	l.board.SetSessions(f.Sessions)
	return f
}

// withSubnet gives each address the prefix length that its interface has it with.
func withSubnet(addrs []netip.Addr) []netip.Prefix {
	have, _ := net.InterfaceAddrs()
	var out []netip.Prefix
	for _, a := range addrs {
		p := netip.PrefixFrom(a, a.BitLen())
		for _, h := range have {
			if n, ok := h.(*net.IPNet); ok && n.IP.Equal(a.AsSlice()) {
				bits, _ := n.Mask.Size()
				p = netip.PrefixFrom(a, bits)
			}
		}
		out = append(out, p)
	}
	return out
}
