package dataplanetest

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"net/netip"

	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/eval"
)

// packet is one that a test sends. id, which it carries with it, tells it from
// all others, whatever is translated on its way.
type packet struct {
	eval.Packet
	id uint32
}

// Messages of ICMP that begin a connection.
const echoRequest, timestampRequest, echoRequest6 = 8, 13, 128

// discovery are the messages of ICMPv6 by which nodes and routers find each other.
// (A redirect is left out: connection tracking wants to know what it is about.)
var discovery = []uint8{130, 131, 132, 133, 134, 135, 136, 143}

const magic = 0x4b4f5241

// transport returns p without its IP header.
func (p packet) transport() []byte {
	b := make([]byte, 8, 48)
	binary.BigEndian.PutUint16(b[0:], p.SrcPort)
	binary.BigEndian.PutUint16(b[2:], p.DstPort)
	mark := func(at int) {
		binary.BigEndian.PutUint32(b[at:], p.id)
		binary.BigEndian.PutUint32(b[at+4:], magic)
	}
	switch p.Protocol {
	case policy.UDP:
		b = b[:16]
		mark(8)
		b[5] = 16 // length
		binary.BigEndian.PutUint16(b[6:], checksum(p.Packet, b))
	case policy.TCP:
		b = b[:28]
		mark(20)
		b[12], b[13], b[14] = 5<<4, 2, 16 // header length, SYN, window
		if p.State == eval.Established {
			b[13] = 16 // ACK
		}
		binary.BigEndian.PutUint16(b[16:], checksum(p.Packet, b))
	case policy.SCTP:
		b = b[:40] // an INIT chunk of 20 bytes, and what nobody reads
		b[12], b[15], b[23], b[25], b[27] = 1, 20, 0xff, 1, 1
		binary.BigEndian.PutUint32(b[16:], p.id)  // initiate tag
		binary.BigEndian.PutUint32(b[28:], magic) // initial sequence number
		b = b[:32]
		binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	case policy.ICMP, policy.ICMPv6:
		b = b[:20]
		b[0], b[1], b[2], b[3] = p.Type, p.Code, 0, 0
		binary.BigEndian.PutUint16(b[4:], uint16(p.id))
		binary.BigEndian.PutUint16(b[6:], 0)
		mark(8)
		binary.BigEndian.PutUint16(b[2:], checksum(p.Packet, b))
	default:
		b = b[:16]
		mark(8)
	}
	return b
}

// checksum is the Internet checksum of b with the pseudo header that the protocol wants.
func checksum(p eval.Packet, b []byte) uint16 {
	sum := uint32(0)
	add := func(b []byte) {
		for i := 0; i+1 < len(b); i += 2 {
			sum += uint32(b[i])<<8 | uint32(b[i+1])
		}
	}
	add(b)
	if p.Protocol != policy.ICMP {
		add(p.Src.AsSlice())
		add(p.Dst.AsSlice())
		sum += uint32(p.Protocol) + uint32(len(b))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// wrap puts an IP header in front of payload. The kernel fills in length and
// checksum of IPv4 where it is handed a header.
func wrap(from, to netip.Addr, proto policy.Protocol, payload []byte) []byte {
	if from.Is6() {
		h := make([]byte, 40, 40+len(payload))
		h[0] = 6 << 4
		binary.BigEndian.PutUint16(h[4:], uint16(len(payload)))
		h[6], h[7] = byte(proto), 255
		copy(h[8:], from.AsSlice())
		copy(h[24:], to.AsSlice())
		return append(h, payload...)
	}
	h := make([]byte, 20, 20+len(payload))
	h[0], h[8], h[9] = 4<<4|5, 64, byte(proto)
	binary.BigEndian.PutUint16(h[2:], uint16(20+len(payload)))
	copy(h[12:], from.AsSlice())
	copy(h[16:], to.AsSlice())
	sum := checksum(eval.Packet{Protocol: policy.ICMP}, h) // without a pseudo header
	binary.BigEndian.PutUint16(h[10:], sum)
	return append(h, payload...)
}

// arrival is what is seen of a packet where it arrives.
type arrival struct {
	id       uint32
	src, dst netip.Addr
	protocol policy.Protocol
	srcPort  uint16
	at       *wire
}

// parse reads a packet that begins with an IP header, and reports whether it is
// one of a test's.
func parse(b []byte) (arrival, bool) {
	if len(b) < 20 {
		return arrival{}, false
	}
	var a arrival
	if b[0]>>4 == 6 {
		if len(b) < 40 {
			return arrival{}, false
		}
		a.src, a.dst, a.protocol = netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:])), policy.Protocol(b[6])
		return a.transport(b[40:])
	}
	a.src, a.dst, a.protocol = netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:])), policy.Protocol(b[9])
	if header := int(b[0]&0xf) * 4; len(b) > header && b[6]&0x1f|b[7] == 0 { // a later fragment has no transport
		return a.transport(b[header:])
	}
	return a, false
}

// transport reads what follows the IP header. Replies and errors of the kernel
// carry no id where it is looked for.
func (a arrival) transport(b []byte) (arrival, bool) {
	id, mark := 8, 12
	switch a.protocol {
	case policy.TCP:
		id, mark = 20, 24
	case policy.SCTP:
		id, mark = 16, 28
	case policy.ICMP, policy.ICMPv6:
		if len(b) > 0 && (b[0] == 0 && a.protocol == policy.ICMP || b[0] == 129 && a.protocol == policy.ICMPv6) {
			return a, false // an echo reply
		}
	}
	if len(b) < mark+4 || binary.BigEndian.Uint32(b[mark:]) != magic {
		return a, false
	}
	a.id, a.srcPort = binary.BigEndian.Uint32(b[id:]), binary.BigEndian.Uint16(b)
	return a, true
}

func (p packet) String() string { return fmt.Sprintf("%s from port %d", p.Packet, p.SrcPort) }
