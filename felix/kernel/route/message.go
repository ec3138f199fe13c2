package route

import (
	"encoding/binary"
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

// key is what the kernel tells routes of one table apart by.
type key struct {
	prefix netip.Prefix
	metric uint32
}

// keyOf returns the key under which we keep the route to prefix.
func keyOf(prefix netip.Prefix) key {
	if prefix.Addr().Is6() {
		return key{prefix, metric6}
	}
	return key{prefix, 0}
}

// entry is a route as the kernel holds it.
type entry struct {
	kind  uint8        // RTN_UNICAST or RTN_UNREACHABLE; anything else is a stray
	scope uint8        // always 0 in IPv6
	dev   string       // without hops, or of the tunnel to them: else the kernel finds it
	hops  []netip.Addr // sorted
}

func entryOf(r *desired.Route) entry {
	switch r.Kind {
	case desired.Local:
		e := entry{kind: unix.RTN_UNICAST, dev: r.Interface}
		if r.Prefix.Addr().Is4() {
			e.scope = unix.RT_SCOPE_LINK
		}
		return e
	case desired.Unreachable:
		return entry{kind: unix.RTN_UNREACHABLE}
	case desired.Via:
		return entry{kind: unix.RTN_UNICAST, hops: r.NextHops}
	case desired.Tunneled:
		return entry{kind: unix.RTN_UNICAST, dev: r.Interface, hops: r.NextHops}
	}
	panic("bug: route of unknown kind to " + r.Prefix.String())
}

func (e entry) equal(o entry) bool {
	return e.kind == o.kind && e.scope == o.scope && e.dev == o.dev && slices.Equal(e.hops, o.hops)
}

// local reports whether e leads to a pod.
func (e entry) local() bool { return e.dev != "" && len(e.hops) == 0 }

// addition: next hops behind a tunnel are of no subnet of its interface, and yet
// on its link.
func addition(k key, e entry, index int, flags uint16) *nlsock.Request {
	h := headerOf(k, e.kind, e.scope)
	onLink := len(e.hops) > 0 && index != 0
	if onLink && len(e.hops) == 1 {
		h.Flags |= unix.RTNH_F_ONLINK
	}
	r := nlsock.NewRequest(unix.RTM_NEWROUTE, flags, bytesOf(&h))
	target(r, k)
	if len(e.hops) > 1 {
		r.Nest(unix.RTA_MULTIPATH, func() {
			for _, hop := range e.hops {
				next := unix.RtNexthop{Ifindex: int32(index)}
				if onLink {
					next.Flags = unix.RTNH_F_ONLINK
				}
				r.Struct(bytesOf(&next), func() { r.Attr(unix.RTA_GATEWAY, hop.AsSlice()) })
			}
		})
		return r
	}
	if len(e.hops) == 1 {
		r.Attr(unix.RTA_GATEWAY, e.hops[0].AsSlice())
	}
	if index != 0 {
		r.Uint32(unix.RTA_OIF, uint32(index))
	}
	return r
}

func removal(k key, e entry) *nlsock.Request {
	h := headerOf(k, e.kind, unix.RT_SCOPE_NOWHERE)
	r := nlsock.NewRequest(unix.RTM_DELROUTE, 0, bytesOf(&h))
	target(r, k)
	return r
}

func headerOf(k key, kind, scope uint8) unix.RtMsg {
	return unix.RtMsg{
		Family: family(k.prefix.Addr()), Dst_len: uint8(k.prefix.Bits()), Table: unix.RT_TABLE_MAIN,
		Protocol: desired.RouteProtocol, Scope: scope, Type: kind,
	}
}

func target(r *nlsock.Request, k key) {
	r.Attr(unix.RTA_DST, k.prefix.Addr().AsSlice())
	if k.metric != 0 {
		r.Uint32(unix.RTA_PRIORITY, k.metric)
	}
}

// dumpRequest asks for our routes of a family, filtered by the kernel.
func dumpRequest(family uint8) *nlsock.Request {
	h := unix.RtMsg{Family: family, Table: unix.RT_TABLE_MAIN, Protocol: desired.RouteProtocol}
	return nlsock.NewRequest(unix.RTM_GETROUTE, 0, bytesOf(&h))
}

// question asks by which route the address of k is reached.
func question(k key) *nlsock.Request {
	addr := k.prefix.Addr()
	h := unix.RtMsg{Family: family(addr), Dst_len: uint8(addr.BitLen()), Flags: unix.RTM_F_FIB_MATCH}
	if addr.Is4() {
		h.Flags |= unix.RTM_F_LOOKUP_TABLE // IPv6 always tells the table, and refuses to be asked
	}
	return nlsock.NewRequest(unix.RTM_GETROUTE, 0, bytesOf(&h)).Attr(unix.RTA_DST, addr.AsSlice())
}

// tableOf returns the table that a route was found in.
func tableOf(body []byte) (table uint8, ok bool) {
	if len(body) < unix.SizeofRtMsg {
		return 0, false
	}
	return (*unix.RtMsg)(unsafe.Pointer(&body[0])).Table, true
}

// decode reads one message of a dump. ok is false for what is not ours.
func decode(kind uint16, body []byte, name func(index int) string) (k key, e entry, ok bool) {
	if kind != unix.RTM_NEWROUTE || len(body) < unix.SizeofRtMsg {
		return key{}, entry{}, false
	}
	h := (*unix.RtMsg)(unsafe.Pointer(&body[0]))
	if h.Protocol != desired.RouteProtocol || h.Table != unix.RT_TABLE_MAIN || h.Flags&unix.RTM_F_CLONED != 0 {
		return key{}, entry{}, false
	}
	addr, oif := netip.IPv4Unspecified(), 0
	if h.Family == unix.AF_INET6 {
		addr = netip.IPv6Unspecified()
	}
	e = entry{kind: h.Type, scope: h.Scope}
	for attr, value := range nlsock.Attrs(body[unix.SizeofRtMsg:]) {
		switch attr {
		case unix.RTA_DST:
			addr, _ = netip.AddrFromSlice(value)
		case unix.RTA_PRIORITY:
			k.metric = binary.NativeEndian.Uint32(value)
		case unix.RTA_OIF:
			oif = int(binary.NativeEndian.Uint32(value))
		case unix.RTA_GATEWAY, unix.RTA_VIA:
			e.hops = append(e.hops, gateway(attr, value))
		case unix.RTA_MULTIPATH:
			var hops []netip.Addr
			hops, oif = multipath(value)
			e.hops = append(e.hops, hops...)
		}
	}
	k.prefix = netip.PrefixFrom(addr, int(h.Dst_len))
	slices.SortFunc(e.hops, netip.Addr.Compare)
	// IPv6 hangs unreachable routes on lo.
	if e.kind != unix.RTN_UNICAST {
		return k, e, true
	}
	e.dev = name(oif)
	if _, tunnel := desired.TunnelOfDevice(e.dev); len(e.hops) > 0 && !tunnel {
		e.dev = ""
	}
	return k, e, true
}

// multipath returns the gateways of struct rtnexthop after struct rtnexthop, and
// the interface of the last: tunnels are not mixed with others.
func multipath(b []byte) (hops []netip.Addr, oif int) {
	for len(b) >= unix.SizeofRtNexthop {
		size := int(binary.NativeEndian.Uint16(b))
		if size < unix.SizeofRtNexthop || size > len(b) {
			return hops, oif
		}
		oif = int((*unix.RtNexthop)(unsafe.Pointer(&b[0])).Ifindex)
		for attr, value := range nlsock.Attrs(b[unix.SizeofRtNexthop:size]) {
			if attr == unix.RTA_GATEWAY || attr == unix.RTA_VIA {
				hops = append(hops, gateway(attr, value))
			}
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	return hops, oif
}

// gateway reads an address; a gateway of another family than the route's comes
// with its family in front.
func gateway(attr uint16, value []byte) netip.Addr {
	if attr == unix.RTA_VIA && len(value) > 2 {
		value = value[2:]
	}
	addr, _ := netip.AddrFromSlice(value)
	return addr
}

func family(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// unnamed stands for an interface that went while routes were read.
func unnamed(index int) string { return "#" + strconv.Itoa(index) }

func bytesOf[T unix.RtMsg | unix.RtNexthop | unix.IfInfomsg](v *T) []byte {
	return slices.Clone(unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v)))
}
