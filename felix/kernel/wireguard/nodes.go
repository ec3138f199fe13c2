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
)

// wantNodes wants the addresses of all nodes that e is to know.
func (e *end) wantNodes() {
	if !e.moved {
		return
	}
	e.moved = false
	wanted := map[netip.Addr]struct{}{}
	for _, p := range e.peers.AllWanted() {
		if p.Endpoint.IsValid() {
			wanted[p.Endpoint.Addr()] = struct{}{}
		}
	}
	for a := range e.nodes.AllWanted() {
		if _, still := wanted[a]; !still {
			e.nodes.Unwant(a)
		}
	}
	for a := range wanted {
		e.nodes.Want(a, struct{}{})
	}
}

// resyncNodes reads which addresses of nodes lead into the interface of e.
func (r *Reconciler) resyncNodes(e *end) error {
	have := map[netip.Addr]struct{}{}
	dev := e.link.Attrs().Index
	h := unix.RtMsg{Family: nlsock.Family(e.kind.Is6()), Protocol: desired.RuleProtocol}
	request := nlsock.NewRequest(unix.RTM_GETROUTE, 0, nlsock.Bytes(&h)).Uint32(unix.RTA_TABLE, desired.ToNodesTable)
	err := r.conn.Dump(request, func() { clear(have) }, func(kind uint16, body []byte) error {
		if a, into, ok := nodeRoute(kind, body); ok && into == dev {
			have[a] = struct{}{}
		}
		return nil
	})
	if err != nil && !errors.Is(err, unix.ENOENT) { // no route has made the table yet
		return fmt.Errorf("read ways to nodes: %w", err)
	}
	e.nodes.Resync(maps.All(have))
	return nil
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
// those that are: what is routed into the tunnel has a peer there at any time.
func (r *Reconciler) withdraw(e *end) error {
	return r.change(e, unix.RTM_DELROUTE, 0, unix.ESRCH, delta.Remove)
}

func (r *Reconciler) lead(e *end) error {
	return r.change(e, unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, unix.EEXIST, delta.Create)
}

// change sends what is pending of one kind. harmless is the error that says that it is
// as it should be already.
func (r *Reconciler) change(e *end, kind, flags uint16, harmless error, op delta.Op) error {
	var addrs []netip.Addr
	var requests []*nlsock.Request
	for a, c := range e.nodes.Pending() {
		if c.Op != op {
			continue
		}
		h := unix.RtMsg{Family: nlsock.Family(e.kind.Is6()), Dst_len: uint8(a.BitLen()), Protocol: desired.RuleProtocol, Type: unix.RTN_UNICAST}
		if a.Is4() {
			h.Scope = unix.RT_SCOPE_LINK
		}
		addrs = append(addrs, a)
		requests = append(requests, nlsock.NewRequest(kind, flags, nlsock.Bytes(&h)).
			Uint32(unix.RTA_TABLE, desired.ToNodesTable).Attr(unix.RTA_DST, a.AsSlice()).Uint32(unix.RTA_OIF, uint32(e.link.Attrs().Index)))
	}
	var failed error // the last: all fail for the same reason
	err := r.conn.Batch(requests, func(i int, err error) {
		if err != nil && !errors.Is(err, harmless) {
			failed = fmt.Errorf("way to node %s: %w", addrs[i], err)
			return
		}
		e.nodes.Done(addrs[i])
	})
	return errors.Join(err, failed)
}
