package route

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/nlsock"
)

// metric6 is what the kernel makes of no metric in IPv6 (IP6_RT_PRIO_USER).
const metric6 = 1024

// key is what the kernel tells routes apart by.
type key struct {
	prefix netip.Prefix
	place
}

// place is where routes are: in which table, with which metric.
type place struct{ table, metric uint32 }

// key returns the key of our route to prefix, while p is where ours belong. A default
// route stays in the main table: another one, which is asked before, would hide all
// that is there, the node's own links first.
func (p place) key(prefix netip.Prefix) key {
	if prefix.Bits() == 0 {
		p.table = unix.RT_TABLE_MAIN
	}
	if p.metric == 0 && prefix.Addr().Is6() {
		p.metric = metric6
	}
	return key{prefix, p}
}

// entry is a route as the kernel holds it.
type entry struct {
	kind  uint8        // RTN_UNICAST or RTN_UNREACHABLE; anything else is a stray
	scope uint8        // always 0 in IPv6
	dev   string       // without hops, or of the tunnel to them: else the kernel finds it
	hops  []netip.Addr // sorted; link-local ones have their interface as zone
	// weights are those of hops, nil: all equal.
	weights []uint8
}

// entryOf returns the entry of a route that needs no way to its next hops: of all
// kinds but Via.
func entryOf(r *desired.Route) entry {
	switch r.Kind {
	case desired.Local:
		e := entry{kind: unix.RTN_UNICAST, dev: r.Interface}
		if r.Prefix.Addr().Is4() {
			e.scope = unix.RT_SCOPE_LINK
		}
		return e
	case desired.Unreachable, desired.Closed:
		return entry{kind: unix.RTN_UNREACHABLE}
	case desired.Tunneled:
		e := entry{kind: unix.RTN_UNICAST, dev: r.Interface, hops: r.NextHops}
		if len(e.hops) == 0 && r.Prefix.Addr().Is4() {
			e.scope = unix.RT_SCOPE_LINK
		}
		return e
	}
	panic("bug: route of unknown kind to " + r.Prefix.String())
}

func (e entry) equal(o entry) bool {
	return e.kind == o.kind && e.scope == o.scope && e.dev == o.dev && slices.Equal(e.hops, o.hops) && slices.Equal(e.weights, o.weights)
}

// local reports whether e leads to a pod.
func (e entry) local() bool { return e.dev != "" && len(e.hops) == 0 && !e.encrypted() }

// encrypted reports whether e leads into a tunnel that encrypts.
func (e entry) encrypted() bool {
	kind, tunnel := desired.TunnelOfDevice(e.dev)
	return tunnel && kind.Encapsulation() == desired.WireGuard
}

// closed takes the place of an encrypted route that the kernel does not take now.
func closed() entry { return entry{kind: unix.RTN_UNREACHABLE} }

// addition makes the request that puts a route into the kernel. index returns that
// of an interface. Next hops behind a tunnel are of no subnet of its interface, and
// yet on its link.
func addition(k key, e entry, index func(name string) (int, error), flags uint16) (*nlsock.Request, error) {
	h := headerOf(k, e.kind, e.scope)
	dev, err := optional(e.dev, index)
	if err != nil {
		return nil, err
	}
	onLink := len(e.hops) > 0 && dev != 0
	if onLink && len(e.hops) == 1 {
		h.Flags |= unix.RTNH_F_ONLINK
	}
	r := nlsock.NewRequest(unix.RTM_NEWROUTE, flags, nlsock.Bytes(&h))
	target(r, k)
	var errs []error
	hop := func(i int) (gateway netip.Addr, at int) {
		if at = dev; at == 0 {
			at, err = optional(e.hops[i].Zone(), index)
			errs = append(errs, err)
		}
		return e.hops[i], at
	}
	switch len(e.hops) {
	case 0:
	case 1:
		gateway, at := hop(0)
		if toward(r, k, gateway); at != 0 {
			r.Uint32(unix.RTA_OIF, uint32(at))
		}
		return r, errors.Join(errs...)
	default:
		r.Nest(unix.RTA_MULTIPATH, func() {
			for i := range e.hops {
				gateway, at := hop(i)
				next := unix.RtNexthop{Ifindex: int32(at)}
				if e.weights != nil {
					next.Hops = e.weights[i] - 1
				}
				if onLink {
					next.Flags = unix.RTNH_F_ONLINK
				}
				r.Struct(nlsock.Bytes(&next), func() { toward(r, k, gateway) })
			}
		})
		return r, errors.Join(errs...)
	}
	if dev != 0 {
		r.Uint32(unix.RTA_OIF, uint32(dev))
	}
	return r, nil
}

func optional(name string, index func(name string) (int, error)) (int, error) {
	if name == "" {
		return 0, nil
	}
	i, err := index(name)
	if err != nil {
		return 0, fmt.Errorf("interface %s: %w", name, err)
	}
	return i, nil
}

// toward adds a gateway. One of another family than the route's is told with its
// family (RFC 8950).
func toward(r *nlsock.Request, k key, gateway netip.Addr) {
	if gateway.Is4() == k.prefix.Addr().Is4() {
		r.Attr(unix.RTA_GATEWAY, gateway.AsSlice())
		return
	}
	r.Attr(unix.RTA_VIA, append(binary.NativeEndian.AppendUint16(nil, uint16(nlsock.Family(gateway.Is6()))), gateway.AsSlice()...))
}

func removal(k key, e entry) *nlsock.Request {
	h := headerOf(k, e.kind, unix.RT_SCOPE_NOWHERE)
	r := nlsock.NewRequest(unix.RTM_DELROUTE, 0, nlsock.Bytes(&h))
	target(r, k)
	return r
}

func headerOf(k key, kind, scope uint8) unix.RtMsg {
	return unix.RtMsg{
		Family: nlsock.Family(k.prefix.Addr().Is6()), Dst_len: uint8(k.prefix.Bits()),
		Protocol: desired.RouteProtocol, Scope: scope, Type: kind,
	}
}

func target(r *nlsock.Request, k key) {
	r.Attr(unix.RTA_DST, k.prefix.Addr().AsSlice())
	r.Uint32(unix.RTA_TABLE, k.table)
	if k.metric != 0 {
		r.Uint32(unix.RTA_PRIORITY, k.metric)
	}
}

// dumpRequest asks for our routes of a family in all tables, filtered by the kernel.
func dumpRequest(family uint8) *nlsock.Request {
	h := unix.RtMsg{Family: family, Protocol: desired.RouteProtocol}
	return nlsock.NewRequest(unix.RTM_GETROUTE, 0, nlsock.Bytes(&h))
}

// question asks by which route addr is reached.
func question(addr netip.Addr) *nlsock.Request {
	h := unix.RtMsg{Family: nlsock.Family(addr.Is6()), Dst_len: uint8(addr.BitLen()), Flags: unix.RTM_F_FIB_MATCH}
	if addr.Is4() {
		h.Flags |= unix.RTM_F_LOOKUP_TABLE // IPv6 always tells the table, and refuses to be asked
	}
	return nlsock.NewRequest(unix.RTM_GETROUTE, 0, nlsock.Bytes(&h)).Attr(unix.RTA_DST, addr.AsSlice())
}

// tableOf returns the table that a route was found in.
func tableOf(body []byte) (table uint32) {
	if len(body) < unix.SizeofRtMsg {
		return unix.RT_TABLE_UNSPEC
	}
	for attr, value := range nlsock.Attrs(body[unix.SizeofRtMsg:]) {
		if attr == unix.RTA_TABLE {
			table = binary.NativeEndian.Uint32(value)
		}
	}
	return table
}

// decode reads one message of a dump. ok is false for what is not ours.
func decode(kind uint16, body []byte, name func(index int) string) (k key, e entry, ok bool) {
	if kind != unix.RTM_NEWROUTE || len(body) < unix.SizeofRtMsg {
		return key{}, entry{}, false
	}
	h := (*unix.RtMsg)(unsafe.Pointer(&body[0]))
	if h.Protocol != desired.RouteProtocol || h.Flags&unix.RTM_F_CLONED != 0 {
		return key{}, entry{}, false
	}
	addr := nlsock.Unspecified(h.Family)
	e = entry{kind: h.Type, scope: h.Scope}
	for attr, value := range nlsock.Attrs(body[unix.SizeofRtMsg:]) {
		switch attr {
		case unix.RTA_DST:
			addr, _ = netip.AddrFromSlice(value)
		case unix.RTA_PRIORITY:
			k.metric = binary.NativeEndian.Uint32(value)
		}
	}
	k.prefix, k.table = netip.PrefixFrom(addr, int(h.Dst_len)), tableOf(body)
	if e.kind == unix.RTN_UNICAST { // IPv6 hangs unreachable routes on lo
		e.over(body, name)
	}
	return k, e, true
}

// over takes in the next hops of a route. Tunnels are not mixed with others.
func (e *entry) over(body []byte, name func(index int) string) {
	found, _ := legs(body, func(index int) (string, error) { return name(index), nil })
	slices.SortFunc(found, func(a, b leg) int { return a.gateway.Compare(b.gateway) })
	for _, l := range found {
		e.dev = name(l.index)
		if l.gateway.IsValid() {
			e.hops, e.weights = append(e.hops, l.gateway), append(e.weights, l.weight)
		}
	}
	e.weights = canonical(e.weights)
	if _, tunnel := desired.TunnelOfDevice(e.dev); len(e.hops) > 0 && !tunnel {
		e.dev = ""
	}
	for i, hop := range e.hops {
		if e.dev != "" { // the zone says no more than the interface
			e.hops[i] = hop.WithZone("")
		}
	}
}

// unnamed stands for an interface that went while routes were read.
func unnamed(index int) string { return "#" + strconv.Itoa(index) }
