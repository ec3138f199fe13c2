// Package tunnel keeps this node's ends of tunnels as desired: the interfaces,
// their addresses, and for VXLAN what is known of the other ends, so that nothing
// is ever asked on the wire. felix/apply calls it. What leads packets into tunnels
// are routes, which felix/kernel/route keeps.
//
// Ours are the interfaces whose names desired.TunnelKind gives, with owned.Alias; all
// neighbours and forwarding entries on them are ours too. An interface of such a
// name without the alias is not touched.
//
//	route ─▶ next hop ──neighbour──▶ MAC ──forwarding entry──▶ underlay address
package tunnel

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/delta"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/nlsock"
)

// maxErrors bounds the errors that Apply joins.
const maxErrors = 10

// Reconciler is an apply.Reconciler and a LinkWatcher.
type Reconciler struct {
	handle  *netlink.Handle
	conn    *nlsock.Conn
	ethtool int // a socket

	want     map[desired.TunnelKind]desired.TunnelDevice
	peers    map[desired.TunnelKind]*delta.Tracker[key, value]
	index    map[desired.TunnelKind]int // of interfaces that are seen to be right
	unsure   map[desired.TunnelKind]struct{}
	unread   map[desired.TunnelKind]struct{} // whose entries are to be read
	complete bool
	offload  desired.TunnelOffload

	mu       sync.Mutex // guards all below
	state    map[desired.TunnelKind]error
	offloads map[desired.TunnelKind]Offload
	distrust map[desired.TunnelKind]string // why
}

// New returns a Reconciler for the network namespace of the calling thread.
func New() (*Reconciler, error) {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("tunnels: %w", err)
	}
	conn, err := nlsock.Open(unix.NETLINK_ROUTE)
	if err != nil {
		handle.Close()
		return nil, fmt.Errorf("tunnels: %w", err)
	}
	ethtool, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		handle.Close()
		return nil, fmt.Errorf("tunnels: %w", errors.Join(err, conn.Close()))
	}
	r := &Reconciler{
		handle: handle, conn: conn, ethtool: ethtool,
		want: map[desired.TunnelKind]desired.TunnelDevice{}, peers: map[desired.TunnelKind]*delta.Tracker[key, value]{},
		index: map[desired.TunnelKind]int{}, unsure: map[desired.TunnelKind]struct{}{}, unread: map[desired.TunnelKind]struct{}{},
		state: map[desired.TunnelKind]error{}, offloads: map[desired.TunnelKind]Offload{}, distrust: map[desired.TunnelKind]string{},
	}
	for _, kind := range desired.TunnelKinds {
		r.peers[kind] = delta.New[key](func(a, b value) bool { return a == b })
		r.peers[kind].AllowRemoval(func(key, value) bool { return r.complete })
	}
	return r, nil
}

// Close closes the sockets.
func (r *Reconciler) Close() error {
	r.handle.Close()
	return errors.Join(r.conn.Close(), unix.Close(r.ethtool))
}

// Name implements apply.Reconciler.
func (*Reconciler) Name() string { return "tunnel" }

// Want implements apply.Reconciler.
func (r *Reconciler) Want(d desired.Delta) {
	if d.Complete && !r.complete {
		r.complete = true
		r.lookAtAll()
	}
	if d.Settings != nil && d.Settings.TunnelOffload != r.offload {
		r.offload = d.Settings.TunnelOffload
		r.lookAtAll()
	}
	for kind, t := range d.Tunnels {
		if !ours(kind) {
			continue
		}
		if t == nil {
			delete(r.want, kind)
		} else {
			r.want[kind] = *t
		}
		r.unsure[kind] = struct{}{}
	}
	// Each end has two entries, of which either may have been another end's before.
	for end := range d.TunnelPeers {
		peers, at := r.peers[end.Kind], key{addr: end.Gateway}
		if old, known := peers.Wanted(at); known {
			peers.Unwant(at)
			peers.Unwant(key{mac: old.mac})
		}
	}
	for end, p := range d.TunnelPeers {
		if p != nil {
			r.peers[end.Kind].Want(key{addr: end.Gateway}, value{mac: p.MAC})
			r.peers[end.Kind].Want(key{mac: p.MAC}, value{underlay: p.Underlay})
		}
	}
}

// LinkChanged implements apply.LinkWatcher. The kernel forgets the neighbours of an
// interface that goes down.
func (r *Reconciler) LinkChanged(name string) {
	if kind, tunnel := desired.TunnelOfDevice(name); tunnel && ours(kind) {
		r.unsure[kind], r.unread[kind] = struct{}{}, struct{}{}
	}
}

// Resync implements apply.Reconciler: the next Apply looks at everything.
func (r *Reconciler) Resync(context.Context) error {
	r.lookAtAll()
	return nil
}

func (r *Reconciler) lookAtAll() {
	for _, kind := range desired.TunnelKinds {
		if ours(kind) {
			r.unsure[kind], r.unread[kind] = struct{}{}, struct{}{}
		}
	}
}

// ours reports whether tunnels of kind are kept here: those of WireGuard are not.
func ours(kind desired.TunnelKind) bool { return kind.Encapsulation() != desired.WireGuard }

// State returns the wanted tunnels, each with what is wrong with it, nil if the
// node receives what comes through it. It is safe for concurrent use.
func (r *Reconciler) State() map[desired.TunnelKind]error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.state)
}

// Apply implements apply.Reconciler.
func (r *Reconciler) Apply(ctx context.Context) error {
	var errs []error
	for kind := range r.unsure {
		if err := r.device(kind); err != nil {
			errs = append(errs, fmt.Errorf("interface %s: %w", kind, err))
			continue
		}
		delete(r.unsure, kind)
	}
	for kind := range r.unread {
		if err := r.readPeers(kind); err != nil {
			errs = append(errs, fmt.Errorf("neighbours of %s: %w", kind, err))
			continue
		}
		delete(r.unread, kind)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return errors.Join(append(errs, r.pushPeers())...)
}

// device makes the interface of one kind as wanted, or takes it away.
func (r *Reconciler) device(kind desired.TunnelKind) error {
	t, wanted := r.want[kind]
	var index int
	var err error
	switch {
	case wanted:
		index, err = r.setUp(t)
	case r.complete:
		err = r.takeDown(kind)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if delete(r.state, kind); wanted {
		r.state[kind] = err
	} else {
		delete(r.offloads, kind)
	}
	if err != nil || !wanted {
		delete(r.index, kind)
		return err
	}
	if r.index[kind] != index {
		r.index[kind] = index
		r.unread[kind] = struct{}{}
	}
	return nil
}
