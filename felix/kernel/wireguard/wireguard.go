package wireguard

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/koratnet/korat/felix/delta"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/nlsock"
	"github.com/koratnet/korat/felix/kernel/owned"
	"github.com/koratnet/korat/policy/ir"
)

// Config is what a Reconciler needs to be told.
type Config struct {
	Ring *Ring
	// RunDir is the agent's run directory, which processes in user space live in.
	RunDir string
	// Version is this program's. A process of another one is replaced.
	Version string
	// Command is the name and the arguments with which this very program becomes a
	// process in user space; flags are added.
	Command []string
}

// Reconciler is an apply.Reconciler and a LinkWatcher.
type Reconciler struct {
	cfg      Config
	handle   *netlink.Handle
	conn     *nlsock.Conn
	client   *wgctrl.Client // nil until the kernel has had an interface of ours
	ends     map[desired.TunnelKind]*end
	nodes    *delta.Tracker[node, way] // whose way leads into which tunnel
	moved    bool                      // what nodes is to hold may be another
	unread   bool                      // what it has may be another
	complete bool
	closed   map[ir.Member]struct{} // pools that require encryption

	mu       sync.Mutex // guards state and controls
	state    map[desired.TunnelKind]error
	controls map[desired.TunnelKind]control
}

// end is this node's end of one tunnel.
type end struct {
	kind    desired.TunnelKind
	want    *desired.TunnelDevice // nil: none
	unsure  bool                  // all of it is to be looked at
	link    netlink.Link
	control control
	peers   *delta.Tracker[desired.Key, desired.EncryptedPeer]
	owner   map[netip.Prefix]desired.Key // whose each prefix is in the interface
}

// New returns a Reconciler for the network namespace of the calling thread, in which
// Apply is to be called as well.
func New(c Config) (*Reconciler, error) {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("wireguard: %w", err)
	}
	conn, err := nlsock.Open(unix.NETLINK_ROUTE)
	if err != nil {
		handle.Close()
		return nil, fmt.Errorf("wireguard: %w", err)
	}
	r := &Reconciler{
		cfg: c, handle: handle, conn: conn, ends: map[desired.TunnelKind]*end{}, closed: map[ir.Member]struct{}{},
		state: map[desired.TunnelKind]error{}, controls: map[desired.TunnelKind]control{},
	}
	r.nodes = delta.New[node](func(a, b way) bool { return a == b })
	r.nodes.AllowRemoval(r.mayGo)
	for _, kind := range desired.TunnelKinds {
		if kind.Encapsulation() != desired.WireGuard {
			continue
		}
		peers := delta.New[desired.Key](same)
		peers.AllowRemoval(func(desired.Key, desired.EncryptedPeer) bool { return r.complete })
		r.ends[kind] = &end{kind: kind, peers: peers}
	}
	return r, nil
}

// same reports whether the peers are as good as equal to an interface.
func same(a, b desired.EncryptedPeer) bool {
	return a.Endpoint == b.Endpoint && slices.Equal(a.Prefixes, b.Prefixes)
}

// Close closes the netlink sockets. Tunnels go on.
func (r *Reconciler) Close() error {
	r.handle.Close()
	if r.client == nil {
		return r.conn.Close()
	}
	return errors.Join(r.conn.Close(), r.client.Close())
}

// Port is the sender of our own route notifications; see netmon.
func (r *Reconciler) Port() uint32 { return r.conn.Port() }

// Name implements apply.Reconciler.
func (*Reconciler) Name() string { return "wireguard" }

// Want implements apply.Reconciler.
func (r *Reconciler) Want(d desired.Delta) {
	if d.Complete && !r.complete {
		r.complete = true
		r.lookAtAll()
	}
	for kind, t := range d.Tunnels {
		if e := r.ends[kind]; e != nil {
			e.want, e.unsure, r.moved = t, true, true
		}
	}
	for at, p := range d.EncryptedPeers {
		e := r.ends[at.Kind]
		if r.moved = true; p == nil {
			e.peers.Unwant(at.Key)
		} else {
			e.peers.Want(at.Key, *p)
		}
	}
	if c := d.Sets[desired.EncryptedSet]; c != nil {
		c.Apply(r.closed)
	}
}

// LinkChanged implements apply.LinkWatcher. An interface whose process ended loses
// its carrier.
func (r *Reconciler) LinkChanged(name string) {
	if kind, tunnel := desired.TunnelOfDevice(name); tunnel && r.ends[kind] != nil {
		r.ends[kind].unsure = true
	}
}

// Resync implements apply.Reconciler: the next Apply looks at everything.
func (r *Reconciler) Resync(context.Context) error {
	r.lookAtAll()
	return nil
}

func (r *Reconciler) lookAtAll() {
	for _, e := range r.ends {
		e.unsure = true
	}
}

// Apply implements apply.Reconciler. What is routed into a tunnel has a peer there at any
// time, and what moves from one to another has a way at any time: so all tunnels are
// told first what comes, and those that nobody wants go in the end. That this node is
// unable to encrypt is an error where some pool requires it; else State alone says so.
func (r *Reconciler) Apply(ctx context.Context) error {
	r.wantNodes()
	kinds := slices.Sorted(maps.Keys(r.ends))
	failed := map[desired.TunnelKind]error{}
	try := func(step func(*end) error) {
		for _, kind := range kinds {
			if failed[kind] == nil {
				failed[kind] = step(r.ends[kind])
			}
		}
	}
	try(func(e *end) error { return r.find(ctx, e) })
	if err := errors.Join(r.resyncNodes(), r.withdraw()); err != nil {
		try(func(*end) error { return err })
	}
	try(r.settle)
	ready := func(kind desired.TunnelKind) bool { return failed[kind] == nil && r.ends[kind].want != nil }
	if err := r.lead(ready); err != nil {
		try(func(*end) error { return err })
	}
	try(r.leave)
	var errs []error
	for _, kind := range kinds {
		e, err := r.ends[kind], failed[kind]
		r.note(e, err)
		if err != nil {
			e.unsure = true
		}
		if err != nil && (len(r.closed) > 0 || !errors.Is(err, errUnable)) {
			errs = append(errs, fmt.Errorf("interface %s: %w", kind, err))
		}
	}
	return errors.Join(errs...)
}

// settle makes e as wanted. The interface comes up with all that it is to know.
func (r *Reconciler) settle(e *end) error {
	if e.want == nil {
		return nil
	}
	if err := e.push(); err != nil {
		return err
	}
	if !e.unsure {
		return nil
	}
	e.unsure = false
	return errors.Join(owned.SetUp(r.handle, e.link), owned.SetAddr(r.handle, e.link, e.want.Addr, e.kind.Is6()))
}

// leave removes the interface of e if nobody wants it.
func (r *Reconciler) leave(e *end) error {
	if e.want != nil || !e.unsure || !r.complete {
		return nil
	}
	e.unsure = false
	return r.remove(e.kind.Device())
}

// note takes down what others may ask for.
func (r *Reconciler) note(e *end, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.state, e.kind)
	delete(r.controls, e.kind)
	if e.want != nil {
		r.state[e.kind] = err
	}
	if e.control != nil {
		r.controls[e.kind] = e.control
	}
}

// State returns the wanted tunnels, each with what is wrong with it, nil if the
// node receives what comes through it. It is safe for concurrent use.
func (r *Reconciler) State() map[desired.TunnelKind]error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.state)
}

// Status is what is to be seen of a tunnel.
type Status struct {
	Userspace bool // a process encrypts, not the kernel
	Peers     map[desired.Key]Peer
}

// Peer is what is to be seen of another node's end.
type Peer struct {
	Endpoint       netip.AddrPort // where its last packet came from, or where it is said to be
	Handshake      time.Time      // the last one; the zero Time: none yet
	Received, Sent uint64         // bytes
}

// Status reads what is to be seen of the tunnels that are there. It is safe for
// concurrent use. Of several errors none hides what else was read.
func (r *Reconciler) Status() (map[desired.TunnelKind]Status, error) {
	r.mu.Lock()
	controls := maps.Clone(r.controls)
	r.mu.Unlock()
	all := map[desired.TunnelKind]Status{}
	var errs []error
	for kind, c := range controls {
		s, err := statusOf(c)
		if err != nil {
			errs = append(errs, fmt.Errorf("read interface %s: %w", kind, err))
			continue
		}
		all[kind] = s
	}
	return all, errors.Join(errs...)
}

func statusOf(c control) (Status, error) {
	d, err := c.read()
	if err != nil {
		return Status{}, err
	}
	s := Status{Peers: map[desired.Key]Peer{}}
	_, s.Userspace = c.(process)
	for _, p := range d.Peers {
		s.Peers[desired.Key(p.PublicKey)] = seen(p)
	}
	return s, nil
}

func seen(p wgtypes.Peer) Peer {
	return Peer{Endpoint: endpoint(p), Handshake: p.LastHandshakeTime, Received: uint64(p.ReceiveBytes), Sent: uint64(p.TransmitBytes)}
}

func endpoint(p wgtypes.Peer) netip.AddrPort {
	if p.Endpoint == nil {
		return netip.AddrPort{}
	}
	at := p.Endpoint.AddrPort()
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}
