package agent

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/felix/kernel/tunnel"
	"github.com/koratnet/korat/felix/kernel/wireguard"
	"github.com/koratnet/korat/felix/netmon"
	"github.com/koratnet/korat/ipam"
	"github.com/koratnet/korat/ipam/assign"
	"github.com/koratnet/korat/ipam/journal"
	"github.com/koratnet/korat/policy/selector"
)

// tunnels gives the node its addresses inside of tunnels, tells who wants to know
// where the other nodes are, and says what there is to report.
type tunnels struct {
	node      string
	allocator *assign.Allocator
	books     *journal.Journal
	reaches   *netmon.Reaches
	state     func() map[desired.TunnelKind]error // of those that are wanted, as the kernel has them
	offloads  func() map[desired.TunnelKind]tunnel.Offload
	ring      *wireguard.Ring
	post      func(...event.Event)
	log       *slog.Logger
	wake      chan struct{}
	begun     chan struct{} // closed once the engine has said which tunnels it wants

	mu     sync.Mutex // guards all below
	labels selector.Labels
	pools  map[string]*event.Pool
	wanted map[desired.TunnelKind]desired.TunnelDevice
	ends   map[desired.EncryptedEnd]desired.EncryptedPeer
	period time.Duration // of turns of keys; 0: none
	hosts  bool          // what the node itself sends is to be encrypted
	// inClear is why it is not.
	inClear string
	ways    map[string]desired.PoolWays
	mtu     desired.MTU
	uplink  int // the MTU of the interface of the default route, when it was looked at last
	pods    int // the MTU that all pods have
	// told counts the Deltas; since and sends say, by pool, with which of them what
	// is sent became another, and what was sent before.
	told  uint64
	since map[string]uint64
	sends map[string]desired.Mode
}

// newTunnels posts the addresses that the node has, before the engine says anything:
// an interface that loses its last one loses its routes too.
func newTunnels(node string, allocator *assign.Allocator, books *journal.Journal, k *kernel, post func(...event.Event), log *slog.Logger) *tunnels {
	t := &tunnels{
		node: node, allocator: allocator, books: books, reaches: k.reaches, state: k.tunnelState, offloads: k.tunnels.Offloads, ring: k.ring, post: post, log: log,
		wake: make(chan struct{}, 1), begun: make(chan struct{}), pools: map[string]*event.Pool{},
		wanted: map[desired.TunnelKind]desired.TunnelDevice{}, ends: map[desired.EncryptedEnd]desired.EncryptedPeer{}, ways: map[string]desired.PoolWays{},
		since: map[string]uint64{}, sends: map[string]desired.Mode{},
	}
	for _, kind := range desired.TunnelKinds {
		if at, known := books.Find(ipam.TunnelHandle(kind.Device())); known {
			t.tell(kind, at)
		}
	}
	return t
}

func (t *tunnels) tell(kind desired.TunnelKind, at journal.Attachment) {
	if len(at.Addrs) == 1 {
		t.post(event.Set(kind.Device(), &event.TunnelAddress{Kind: kind, Addr: at.Addrs[0]}))
	}
}

// hear takes in what the API server says of nodes and pools.
func (t *tunnels) hear(ev event.Event) {
	switch ev.Key.Kind {
	case event.NodeKind:
		n, _ := ev.Value.(*event.Node)
		switch {
		case ev.Key.Name == t.node && n != nil:
			t.mu.Lock()
			t.labels = n.Labels
			t.mu.Unlock()
		case ev.Key.Name != t.node && n != nil:
			t.reaches.SetNode(ev.Key.Name, n.Addrs)
		default:
			t.reaches.SetNode(ev.Key.Name, nil)
		}
	case event.PoolKind:
		p, _ := ev.Value.(*event.Pool)
		t.mu.Lock()
		if delete(t.pools, ev.Key.Name); p != nil {
			t.pools[ev.Key.Name] = p
		}
		t.mu.Unlock()
		t.again()
	}
}

// note takes in what the engine computed.
func (t *tunnels) note(d desired.Delta) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.told++; t.told == 1 {
		close(t.begun)
	}
	for name, w := range d.Ways {
		if w == nil {
			delete(t.since, name)
			delete(t.sends, name)
		} else if was, known := t.ways[name]; !known || was.Sends != w.Sends || was.Generation != w.Generation || !slices.Equal(was.Receives, w.Receives) {
			t.since[name] = t.told
		}
	}
	fold(t.wanted, d.Tunnels)
	fold(t.ends, d.EncryptedPeers)
	if d.Settings != nil {
		t.period, t.hosts = d.Settings.KeyRotation, d.Settings.HostTraffic
	}
	fold(t.ways, d.Ways)
	if d.MTU != nil {
		t.mtu = *d.MTU
	}
	if len(d.Tunnels) > 0 {
		t.again()
	}
}

func fold[K comparable, V any](into map[K]V, changes map[K]*V) {
	for k, v := range changes {
		if delete(into, k); v != nil {
			into[k] = *v
		}
	}
}

func (t *tunnels) again() {
	select {
	case t.wake <- struct{}{}:
	default: // somebody will look anyway
	}
}

// lookAround posts how the kernel reaches the nodes that are known.
func (t *tunnels) lookAround() {
	if err := t.reaches.LookNow(); err != nil {
		t.log.Warn("not all ways to other nodes are known", "error", err)
	}
}

// run gives and takes back addresses until ctx ends, from when the engine has said
// what it wants. It is a goroutine of its own because the API server may be asked
// for a block.
func (t *tunnels) run(ctx context.Context) error {
	select {
	case <-t.begun:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	tick := time.NewTicker(upkeepEvery)
	defer tick.Stop()
	for {
		for _, kind := range desired.TunnelKinds {
			once, cancel := context.WithTimeout(ctx, upkeepEvery)
			err := t.keep(once, kind)
			cancel()
			if err != nil && ctx.Err() == nil {
				t.log.Warn("the node has no address inside of a tunnel", "interface", kind.Device(), "error", err)
			}
		}
		select {
		case <-tick.C:
		case <-t.wake:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// keep gives the node an address inside of the tunnel of kind, if it is wanted and
// there is none, and takes one back that is not wanted or of a pool that goes. The
// address outlives restarts: it is in the journal, as those of pods are.
func (t *tunnels) keep(ctx context.Context, kind desired.TunnelKind) error {
	h := ipam.TunnelHandle(kind.Device())
	at, known := t.books.Find(h)
	wanted := t.wants(kind)
	if known && (!wanted || t.leaving(at.Addrs)) {
		t.post(event.Gone(event.TunnelAddressKind, kind.Device()))
		rest := t.allocator.Rest(h, at.Addrs, 0)
		if err := t.books.Detach(h, rest); err != nil {
			return err
		}
		t.allocator.Release(h, at.Addrs, rest)
		known = false
	}
	if !known && wanted {
		r, ok := t.request(kind)
		if !ok {
			return nil // no pool offers one: the tunnel works without, for pods
		}
		addrs, err := t.allocator.Assign(ctx, h, r)
		if err != nil {
			return err
		}
		at = journal.Attachment{Handle: h, HostInterface: kind.Device(), Addrs: addrs}
		if _, err := t.books.Attach(at); err != nil {
			t.allocator.Undo(h, addrs)
			return err
		}
		known = true
	}
	if known {
		t.tell(kind, at)
	}
	return nil
}

// wants reports whether there is to be an address for kind: a second end of WireGuard has
// that of the first.
func (t *tunnels) wants(kind desired.TunnelKind) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, wanted := t.wanted[kind]
	return wanted && !kind.Odd()
}

// leaving reports whether the pool of addrs is being deleted.
func (t *tunnels) leaving(addrs []netip.Addr) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.pools {
		if p.Deleting && slices.ContainsFunc(addrs, p.CIDR.Contains) {
			return true
		}
	}
	return false
}

// request asks for an address of a pool whose packets travel in the same tunnel, as
// those of all do that are encrypted: answers to it then come back through it.
func (t *tunnels) request(kind desired.TunnelKind) (r ipam.Request, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var names []string
	for _, name := range slices.Sorted(maps.Keys(t.pools)) {
		p := t.pools[name]
		travels := slices.Contains([]desired.Encapsulation{desired.WireGuard, p.Modes.Sends.Encapsulation, p.Modes.Wanted.Encapsulation}, kind.Encapsulation())
		if p.CIDR.Addr().Is6() == kind.Is6() && travels && !p.Disabled && p.Allows(ipam.Tunnel) && (p.Nodes == nil || p.Nodes.Matches(t.labels)) {
			names = append(names, name)
		}
	}
	r = ipam.Request{Use: ipam.Tunnel, Families: []int{32}, Pools4: names}
	if kind.Is6() {
		r = ipam.Request{Use: ipam.Tunnel, Families: []int{128}, Pools6: names}
	}
	return r, len(names) > 0
}

// podMTU returns the MTU that pods' interfaces are to have: that of the ways to the
// other nodes, or of the uplink while there are none, less what tunnels add.
func (t *tunnels) podMTU() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return cmp.Or(t.mtu.Uplink, t.uplink) - t.mtu.Overhead
}

// alone reports whether no other node is known that gives pods their MTU.
func (t *tunnels) alone() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mtu.Uplink == 0
}

// fallBack says the MTU of the uplink, which pods get while the node is alone.
func (t *tunnels) fallBack(uplink int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.uplink = uplink
}

// followed says that all pods have this MTU.
func (t *tunnels) followed(mtu int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pods = mtu
}
