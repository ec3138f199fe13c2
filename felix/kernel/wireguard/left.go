package wireguard

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/owned"
)

// Left is what the agent before has left.
type Left struct {
	Odd  bool                              // packets for most nodes take second ends
	Live map[desired.EncryptedEnd]struct{} // other nodes' ends that packets reach
	// Hosts: what the node itself sends to some of them is led into tunnels.
	Hosts bool
}

// Look reads what is left, and takes away the ways of what the node itself sends
// into tunnels that are not proved to work: the node may need another way to hear from
// the API server at all. It is for the time before the first Apply, asks nobody to do
// anything else, and starts no process. What cannot be read is not proved.
func Look(c Config, now time.Time) (left Left, err error) {
	r, err := New(c)
	if err != nil {
		return left, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	kinds, seen := map[int]desired.TunnelKind{}, map[desired.TunnelKind]Status{}
	var unread []error
	for kind := range r.ends {
		link, err := owned.Find(r.handle, kind.Device())
		if err != nil || link == nil {
			continue // what is not ours has no ways of ours
		}
		kinds[link.Attrs().Index] = kind
		if seen[kind], err = r.look(kind, link.Type()); err != nil {
			unread = append(unread, err)
		}
	}
	type end struct {
		kind desired.TunnelKind
		addr netip.Addr
	}
	proved := map[end]bool{}
	left.Live = live(now, seen)
	for e := range left.Live {
		proved[end{e.Kind, seen[e.Kind].Peers[e.Key].Endpoint.Addr()}] = true
	}
	have, err := r.ways(kinds)
	if err != nil {
		return left, errors.Join(append(unread, err)...)
	}
	odd, even := 0, 0
	stale := map[node]way{}
	for n, w := range have {
		switch {
		case n.table == desired.HostTable && !proved[end{w.into, n.addr}]:
			stale[n] = w
		case n.table == desired.HostTable:
			left.Hosts = true
		case w.into.Odd():
			odd++
		default:
			even++
		}
	}
	left.Odd = odd > even
	return left, errors.Join(append(unread, r.abandon(stale, kinds))...)
}

// look reads what is to be seen of a tunnel that no Apply has found yet.
func (r *Reconciler) look(kind desired.TunnelKind, of string) (Status, error) {
	var c control = process{socket: socketOf(r.cfg.RunDir, kind.Device()), version: r.cfg.Version, greeting: glance}
	if of == "wireguard" {
		var err error
		if c, err = r.kernel(kind.Device()); err != nil {
			return Status{}, err
		}
	}
	s, err := statusOf(c)
	if err != nil {
		return Status{}, fmt.Errorf("read interface %s: %w", kind, err)
	}
	return s, nil
}

// abandon takes these ways away.
func (r *Reconciler) abandon(stale map[node]way, kinds map[int]desired.TunnelKind) error {
	var errs []error
	for dev, kind := range kinds {
		for n, w := range stale {
			if w.into != kind {
				continue
			}
			if err := r.conn.Do(n.request(unix.RTM_DELROUTE, 0, w, dev)); err != nil && !errors.Is(err, unix.ESRCH) {
				errs = append(errs, fmt.Errorf("way to node %s: %w", n.addr, err))
			}
		}
	}
	return errors.Join(errs...)
}
