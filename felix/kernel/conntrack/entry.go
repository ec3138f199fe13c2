package conntrack

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/kernel/nlsock"
	"github.com/koratnet/korat/policy"
)

// The numbers of linux/netfilter/nfnetlink_conntrack.h.
const (
	getMessage    = unix.NFNL_SUBSYS_CTNETLINK<<8 | 1
	deleteMessage = unix.NFNL_SUBSYS_CTNETLINK<<8 | 2
	headerBytes   = 4 // struct nfgenmsg

	attrOrig   = 1
	attrReply  = 2
	attrStatus = 3
	attrID     = 12
	attrZone   = 18
	attrFilter = 25

	tupleIP        = 1
	tupleTransport = 2

	ip4Src, ip4Dst, ip6Src, ip6Dst = 1, 2, 3, 4

	transportNumber           = 1
	transportSrc              = 2
	transportDst              = 3
	icmpType, icmpCode        = 5, 6
	icmp6Type, icmp6Code      = 8, 9
	filterOrig, filterReply   = 1, 2
	filterBySrc, filterByDst  = 1 << 0, 1 << 1
	statusExpected            = 1 << 0 // IPS_EXPECTED: another connection announced it
	portBytes, statusWordSize = 2, 4
)

// tuple is one direction of a connection.
type tuple struct {
	src, dst         netip.Addr
	protocol         policy.Protocol
	srcPort, dstPort uint16
	kind, code       uint8 // of an ICMP message
}

// entry is a connection as the kernel tracks it. The packets that go with orig
// are answered with reply, which differs from its reverse where addresses are
// translated.
type entry struct {
	orig, reply tuple
	status      uint32
	// What names the entry to the kernel; raw is valid as long as its message.
	family uint8
	raw    []byte // the attribute of orig
	id     []byte
	zone   []byte
}

// decode reads a message about an entry; ok is false for one that is incomplete.
func decode(body []byte) (e entry, ok bool) {
	if len(body) < headerBytes {
		return entry{}, false
	}
	e.family = body[0]
	for kind, value := range nlsock.Attrs(body[headerBytes:]) {
		switch kind {
		case attrOrig:
			e.orig, e.raw = decodeTuple(value), value
		case attrReply:
			e.reply = decodeTuple(value)
		case attrStatus:
			if len(value) == statusWordSize {
				e.status = binary.BigEndian.Uint32(value)
			}
		case attrID:
			e.id = value
		case attrZone:
			e.zone = value
		}
	}
	return e, e.orig.src.IsValid() && e.orig.dst.IsValid() && e.reply.src.IsValid() && e.reply.dst.IsValid()
}

func decodeTuple(b []byte) (t tuple) {
	for kind, value := range nlsock.Attrs(b) {
		switch kind {
		case tupleIP:
			t.readIP(value)
		case tupleTransport:
			t.readTransport(value)
		}
	}
	return t
}

func (t *tuple) readIP(b []byte) {
	for kind, value := range nlsock.Attrs(b) {
		a, ok := netip.AddrFromSlice(value)
		switch {
		case !ok:
		case kind == ip4Src || kind == ip6Src:
			t.src = a
		case kind == ip4Dst || kind == ip6Dst:
			t.dst = a
		}
	}
}

func (t *tuple) readTransport(b []byte) {
	for kind, value := range nlsock.Attrs(b) {
		switch {
		case len(value) == 1 && kind == transportNumber:
			t.protocol = policy.Protocol(value[0])
		case len(value) == portBytes && kind == transportSrc:
			t.srcPort = binary.BigEndian.Uint16(value)
		case len(value) == portBytes && kind == transportDst:
			t.dstPort = binary.BigEndian.Uint16(value)
		case len(value) == 1 && (kind == icmpType || kind == icmp6Type):
			t.kind = value[0]
		case len(value) == 1 && (kind == icmpCode || kind == icmp6Code):
			t.code = value[0]
		}
	}
}

func header(family uint8) []byte { return []byte{family, unix.NFNETLINK_V0, 0, 0} }

// deletion removes e, if it is still the same one.
func deletion(e entry) *nlsock.Request {
	r := nlsock.NewRequest(deleteMessage, 0, header(e.family)).Attr(attrOrig|nlsock.NestedFlag, e.raw)
	if e.id != nil {
		r.Attr(attrID, e.id)
	}
	if e.zone != nil {
		r.Attr(attrZone, e.zone)
	}
	return r
}

// end is an end of a connection: who opened it, who answers, which is behind a
// service too, or whom it asked for.
type end uint16

const (
	origSource end = iota
	replySource
	origDestination
)

// about completes r with the filter: entries that have a at that end.
func (w end) about(r *nlsock.Request, a netip.Addr) *nlsock.Request {
	direction, kind, orig, reply := uint16(attrOrig), uint16(ip4Src), uint32(filterBySrc), uint32(0)
	if a.Is6() {
		kind = ip6Src
	}
	switch w {
	case replySource:
		direction, orig, reply = attrReply, reply, orig
	case origDestination:
		kind, orig = kind+1, filterByDst // each source stands before its destination
	}
	r.Nest(direction|nlsock.NestedFlag, func() {
		r.Nest(tupleIP|nlsock.NestedFlag, func() { r.Attr(kind, a.AsSlice()) })
	})
	return r.Nest(attrFilter|nlsock.NestedFlag, func() { r.Uint32(filterOrig, orig).Uint32(filterReply, reply) })
}

// at returns the address of e at that end.
func (w end) at(e *entry) netip.Addr {
	switch w {
	case replySource:
		return e.reply.src
	case origDestination:
		return e.orig.dst
	}
	return e.orig.src
}
