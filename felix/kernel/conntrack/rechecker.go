package conntrack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/nlsock"
)

// pickUp says whether the kernel takes a packet from the middle of a TCP
// connection that it does not know as a new connection. While it does, a
// connection cannot be cut: the server's next packet would open it anew, the
// other way round, and policy mostly lets a server talk. When it does not, the
// packet belongs to nothing, and is denied as such.
const pickUp = "/proc/sys/net/netfilter/nf_conntrack_tcp_loose"

// Rechecker is the apply.Reconciler that cuts connections which policy denies. It
// stands last. While Settings.Recheck is off it remembers nothing; when it is
// switched on it has to be told everything in the same Delta.
type Rechecker struct {
	table  *table
	links  *netlink.Handle
	log    *slog.Logger
	world  *world // nil: switched off
	closed map[string]error
	// complete: before, endpoints that run may be unknown yet to half of the sources.
	complete bool
	pickUp   string // what the kernel has to be told: "0", "1" or "" for nothing
}

// NewRechecker returns the Rechecker of the network namespace of the calling thread.
func NewRechecker(log *slog.Logger) (*Rechecker, error) {
	t, err := open()
	if err != nil {
		return nil, err
	}
	links, err := netlink.NewHandle()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("conntrack: %w", err), t.conn.Close())
	}
	return &Rechecker{table: t, links: links, log: log}, nil
}

// Close closes the netlink sockets.
func (r *Rechecker) Close() error {
	r.links.Close()
	return r.table.conn.Close()
}

// Name implements apply.Reconciler.
func (r *Rechecker) Name() string { return "conntrack-recheck" }

// Want implements apply.Reconciler.
func (r *Rechecker) Want(d desired.Delta) {
	r.complete = r.complete || d.Complete
	if d.Settings != nil && d.Settings.Recheck != (r.world != nil) {
		if d.Settings.Recheck {
			r.world, r.pickUp = newWorld(), "0"
		} else {
			r.world, r.pickUp = nil, "1" // the kernel's default
		}
	}
	if r.world != nil {
		r.world.want(d)
	}
}

// Withhold implements apply.Withholder: connections of endpoints whose new rules
// are not in force would come back by the old ones, so these wait.
func (r *Rechecker) Withhold(closed map[string]error) { r.closed = closed }

// Resync implements apply.Reconciler. Entries come and go by themselves; that the
// kernel picks up nothing is said again, if it is to be so.
func (r *Rechecker) Resync(context.Context) error {
	if r.world != nil {
		r.pickUp = "0"
	}
	return nil
}

// Apply implements apply.Reconciler. What fails is tried again as a whole.
func (r *Rechecker) Apply(context.Context) error {
	if err := r.setPickUp(); err != nil {
		return err
	}
	if r.world == nil || r.world.doubt.empty() || !r.complete {
		return nil
	}
	if err := r.recheck(r.world.addrs()); err != nil {
		return err
	}
	later := newDoubt()
	for iface := range r.closed {
		if _, here := r.world.endpoints[iface]; here {
			later.endpoints[iface] = struct{}{}
		}
	}
	r.world.doubt = later
	return nil
}

// recheck deletes the entries that are in doubt, in force and denied. Each has one
// of addrs.
func (r *Rechecker) recheck(addrs map[netip.Addr]struct{}) error {
	if len(addrs) == 0 {
		return nil
	}
	own, err := r.ownAddrs()
	if err != nil {
		return err
	}
	judge := r.world.judge(own)
	cut, err := r.table.purge(addrs, func(e *entry) bool {
		return r.world.concerns(e) && !r.waits(e) && judge.denies(e)
	})
	if cut > 0 {
		r.log.Info("cut connections that policy denies now", "connections", cut)
	}
	return err
}

// waits reports whether one of e's ends is not enforced yet.
func (r *Rechecker) waits(e *entry) bool {
	for _, a := range []netip.Addr{e.orig.src, e.reply.src} {
		if local := r.world.at[a]; local != nil && r.closed[local.Interface] != nil {
			return true
		}
	}
	return false
}

func (r *Rechecker) setPickUp() error {
	if r.pickUp == "" {
		return nil
	}
	if err := os.WriteFile(pickUp, []byte(r.pickUp), 0o644); err != nil && !errors.Is(err, fs.ErrNotExist) { // absent: no connections
		return fmt.Errorf("conntrack: %w", err)
	}
	r.pickUp = ""
	return nil
}

// ownAddrs returns the addresses of the node. Pods are reached from all of them.
func (r *Rechecker) ownAddrs() (map[netip.Addr]struct{}, error) {
	list, err := nlsock.Retry(func() ([]netlink.Addr, error) { return r.links.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("addresses of the node: %w", err)
	}
	own := map[netip.Addr]struct{}{}
	for _, a := range list {
		if addr, ok := netip.AddrFromSlice(a.IP); ok {
			own[addr.Unmap()] = struct{}{}
		}
	}
	return own, nil
}
