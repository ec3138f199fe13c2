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

// node is a node's address in one of the tables of such.
type node struct {
	table uint32 // desired.ToNodesTable or HostTable
	addr  netip.Addr
}

// tables are those of nodes, of both families.
var tables = []uint32{desired.ToNodesTable, desired.HostTable}

// way is where the address is led.
type way struct {
	into desired.TunnelKind
	from netip.Addr // the source of what has none yet; the zero Addr: as the kernel finds it
}

// mayGo: what the node itself sends is never led into a tunnel for want of news.
func (r *Reconciler) mayGo(n node, _ way) bool { return r.complete || n.table == desired.HostTable }

// wantNodes wants the addresses of all nodes that are known, each in the tunnel that
// packets for it take.
func (r *Reconciler) wantNodes() {
	if !r.moved {
		return
	}
	r.moved = false
	wanted := map[node]way{}
	for kind, e := range r.ends {
		for _, p := range e.peers.AllWanted() {
			if !p.Endpoint.IsValid() || p.Idle {
				continue
			}
			wanted[node{desired.ToNodesTable, p.Endpoint.Addr()}] = way{into: kind}
			if p.Host && e.want != nil {
				wanted[node{desired.HostTable, p.Endpoint.Addr()}] = way{kind, e.want.Underlay}
			}
		}
	}
	for n := range r.nodes.AllWanted() {
		if _, still := wanted[n]; !still {
			r.nodes.Unwant(n)
		}
	}
	for n, w := range wanted {
		r.nodes.Want(n, w)
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
func (r *Reconciler) ways(kinds map[int]desired.TunnelKind) (map[node]way, error) {
	have := map[node]way{}
	for _, is6 := range []bool{false, true} {
		for _, table := range tables {
			h := unix.RtMsg{Family: nlsock.Family(is6), Protocol: desired.RuleProtocol}
			request := nlsock.NewRequest(unix.RTM_GETROUTE, 0, nlsock.Bytes(&h)).Uint32(unix.RTA_TABLE, table)
			of := map[node]way{}
			err := r.conn.Dump(request, func() { clear(of) }, func(message uint16, body []byte) error {
				n, w, dev, ok := nodeRoute(message, body)
				if kind, known := kinds[dev]; ok && known && n.table == table {
					w.into = kind
					of[n] = w
				}
				return nil
			})
			if err != nil && !errors.Is(err, unix.ENOENT) { // no route has made the table yet
				return nil, fmt.Errorf("read ways to nodes: %w", err)
			}
			maps.Copy(have, of)
		}
	}
	return have, nil
}

// nodeRoute reads one message of a dump. ok is false for what is not ours.
func nodeRoute(kind uint16, body []byte) (n node, w way, dev int, ok bool) {
	if kind != unix.RTM_NEWROUTE || len(body) < unix.SizeofRtMsg {
		return n, w, 0, false
	}
	for attr, value := range nlsock.Attrs(body[unix.SizeofRtMsg:]) {
		switch attr {
		case unix.RTA_DST:
			n.addr, _ = netip.AddrFromSlice(value)
		case unix.RTA_PREFSRC:
			w.from, _ = netip.AddrFromSlice(value)
		case unix.RTA_OIF:
			dev = int(binary.NativeEndian.Uint32(value))
		case unix.RTA_TABLE:
			n.table = binary.NativeEndian.Uint32(value)
		}
	}
	h := (*unix.RtMsg)(unsafe.Pointer(&body[0]))
	return n, w, dev, h.Protocol == desired.RuleProtocol && int(h.Dst_len) == n.addr.BitLen()
}

// withdraw takes away the routes to nodes that are not reached any more, and lead adds
// those that are: what is routed into a tunnel has a peer there at any time.
func (r *Reconciler) withdraw() error {
	return r.change(unix.RTM_DELROUTE, 0, unix.ESRCH, func(c delta.Change[way]) (w way, now bool) {
		return c.Have, c.Op == delta.Remove
	})
}

func (r *Reconciler) lead(ready func(desired.TunnelKind) bool) error {
	return r.change(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, unix.EEXIST, func(c delta.Change[way]) (w way, now bool) {
		return c.Want, c.Op != delta.Remove && ready(c.Want.into)
	})
}

// change sends those of what is pending that which chooses. harmless is the error that
// says that it is as it should be already.
func (r *Reconciler) change(kind, flags uint16, harmless error, which func(delta.Change[way]) (w way, now bool)) error {
	var nodes []node
	var requests []*nlsock.Request
	for n, c := range r.nodes.Pending() {
		w, now := which(c)
		if !now {
			continue
		}
		nodes = append(nodes, n)
		requests = append(requests, n.request(kind, flags, w, r.ends[w.into].link.Attrs().Index))
	}
	var failed error // the last: all fail for the same reason
	err := r.conn.Batch(requests, func(i int, err error) {
		if err != nil && !errors.Is(err, harmless) {
			failed = fmt.Errorf("way to node %s: %w", nodes[i].addr, err)
			return
		}
		r.nodes.Done(nodes[i])
	})
	return errors.Join(err, failed)
}

// request asks for the route to n by w, into the interface dev, or to take it away.
func (n node) request(kind, flags uint16, w way, dev int) *nlsock.Request {
	h := unix.RtMsg{Family: nlsock.Family(n.addr.Is6()), Dst_len: uint8(n.addr.BitLen()), Protocol: desired.RuleProtocol, Type: unix.RTN_UNICAST}
	if n.addr.Is4() {
		h.Scope = unix.RT_SCOPE_LINK
	}
	q := nlsock.NewRequest(kind, flags, nlsock.Bytes(&h)).
		Uint32(unix.RTA_TABLE, n.table).Attr(unix.RTA_DST, n.addr.AsSlice()).Uint32(unix.RTA_OIF, uint32(dev))
	if w.from.IsValid() {
		q.Attr(unix.RTA_PREFSRC, w.from.AsSlice())
	}
	return q
}
