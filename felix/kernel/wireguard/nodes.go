package wireguard

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/delta"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/nlsock"
	"github.com/koratnet/korat/felix/kernel/owned"
)

// wantNodes wants the addresses of all nodes that are known, each in the tunnel that
// packets for it take.
func (r *Reconciler) wantNodes() {
	if !r.moved {
		return
	}
	r.moved = false
	wanted := map[netip.Addr]desired.TunnelKind{}
	for kind, e := range r.ends {
		for _, p := range e.peers.AllWanted() {
			if p.Endpoint.IsValid() && !p.Idle {
				wanted[p.Endpoint.Addr()] = kind
			}
		}
	}
	for a := range r.nodes.AllWanted() {
		if _, still := wanted[a]; !still {
			r.nodes.Unwant(a)
		}
	}
	for a, kind := range wanted {
		r.nodes.Want(a, kind)
	}
}

// resyncNodes reads which addresses of nodes lead into our tunnels.
func (r *Reconciler) resyncNodes() error {
	if !r.unread {
		return nil
	}
	kinds := map[int]desired.TunnelKind{}
	for kind, e := range r.ends {
		if e.link != nil {
			kinds[e.link.Attrs().Index] = kind
		}
	}
	have, err := r.ways(kinds)
	if err != nil {
		return err
	}
	r.nodes.Resync(maps.All(have))
	r.unread = false
	return nil
}

// ways reads which addresses of nodes lead into which of our tunnels, whose interfaces'
// indices are given.
func (r *Reconciler) ways(kinds map[int]desired.TunnelKind) (map[netip.Addr]desired.TunnelKind, error) {
	have := map[netip.Addr]desired.TunnelKind{}
	for _, is6 := range []bool{false, true} {
		h := unix.RtMsg{Family: nlsock.Family(is6), Protocol: desired.RuleProtocol}
		request := nlsock.NewRequest(unix.RTM_GETROUTE, 0, nlsock.Bytes(&h)).Uint32(unix.RTA_TABLE, desired.ToNodesTable)
		of := map[netip.Addr]desired.TunnelKind{}
		err := r.conn.Dump(request, func() { clear(of) }, func(message uint16, body []byte) error {
			a, into, ok := nodeRoute(message, body)
			if kind, known := kinds[into]; ok && known {
				of[a] = kind
			}
			return nil
		})
		if err != nil && !errors.Is(err, unix.ENOENT) { // no route has made the table yet
			return nil, fmt.Errorf("read ways to nodes: %w", err)
		}
		maps.Copy(have, of)
	}
	return have, nil
}

// Odd reports whether packets for most nodes take second ends, as it was left. It is
// for the beginning, before Apply.
func (r *Reconciler) Odd() (bool, error) {
	kinds := map[int]desired.TunnelKind{}
	for kind := range r.ends {
		link, err := owned.Find(r.handle, kind.Device())
		if err == nil && link != nil {
			kinds[link.Attrs().Index] = kind
		}
	}
	have, err := r.ways(kinds)
	odd := 0
	for _, kind := range have {
		if kind.Odd() {
			odd++
		}
	}
	return odd > len(have)-odd, err
}

// nodeRoute reads one message of a dump. ok is false for what is not ours.
func nodeRoute(kind uint16, body []byte) (to netip.Addr, dev int, ok bool) {
	if kind != unix.RTM_NEWROUTE || len(body) < unix.SizeofRtMsg {
		return to, 0, false
	}
	table := uint32(0)
	for attr, value := range nlsock.Attrs(body[unix.SizeofRtMsg:]) {
		switch attr {
		case unix.RTA_DST:
			to, _ = netip.AddrFromSlice(value)
		case unix.RTA_OIF:
			dev = int(binary.NativeEndian.Uint32(value))
		case unix.RTA_TABLE:
			table = binary.NativeEndian.Uint32(value)
		}
	}
	h := (*unix.RtMsg)(unsafe.Pointer(&body[0]))
	return to, dev, table == desired.ToNodesTable && h.Protocol == desired.RuleProtocol && int(h.Dst_len) == to.BitLen()
}

// withdraw takes away the routes to nodes that are not reached any more, and lead adds
// those that are: what is routed into a tunnel has a peer there at any time.
func (r *Reconciler) withdraw() error {
	return r.change(unix.RTM_DELROUTE, 0, unix.ESRCH, func(c delta.Change[desired.TunnelKind]) (into desired.TunnelKind, now bool) {
		return c.Have, c.Op == delta.Remove
	})
}

func (r *Reconciler) lead(ready func(desired.TunnelKind) bool) error {
	return r.change(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, unix.EEXIST, func(c delta.Change[desired.TunnelKind]) (into desired.TunnelKind, now bool) {
		return c.Want, c.Op != delta.Remove && ready(c.Want)
	})
}

// change sends those of what is pending that which chooses. harmless is the error that
// says that it is as it should be already.
func (r *Reconciler) change(kind, flags uint16, harmless error, which func(delta.Change[desired.TunnelKind]) (into desired.TunnelKind, now bool)) error {
	var addrs []netip.Addr
	var requests []*nlsock.Request
	for a, c := range r.nodes.Pending() {
		into, now := which(c)
		if !now {
			continue
		}
		h := unix.RtMsg{Family: nlsock.Family(a.Is6()), Dst_len: uint8(a.BitLen()), Protocol: desired.RuleProtocol, Type: unix.RTN_UNICAST}
		if a.Is4() {
			h.Scope = unix.RT_SCOPE_LINK
		}
		addrs = append(addrs, a)
		requests = append(requests, nlsock.NewRequest(kind, flags, nlsock.Bytes(&h)).
			Uint32(unix.RTA_TABLE, desired.ToNodesTable).Attr(unix.RTA_DST, a.AsSlice()).Uint32(unix.RTA_OIF, uint32(r.ends[into].link.Attrs().Index)))
	}
	var failed error // the last: all fail for the same reason
	err := r.conn.Batch(requests, func(i int, err error) {
		if err != nil && !errors.Is(err, harmless) {
			failed = fmt.Errorf("way to node %s: %w", addrs[i], err)
			return
		}
		r.nodes.Done(addrs[i])
	})
	return errors.Join(err, failed)
}
