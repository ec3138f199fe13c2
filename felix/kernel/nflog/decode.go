package nflog

import (
	"encoding/binary"
	"iter"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/kernel/nlsock"
	"github.com/koratnet/korat/policy"
)

// messages yields the messages of a datagram: kind and body.
func messages(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofNlMsghdr {
			size := int(binary.NativeEndian.Uint32(b))
			if size < unix.SizeofNlMsghdr || size > len(b) {
				return
			}
			if !yield(binary.NativeEndian.Uint16(b[4:]), b[unix.SizeofNlMsghdr:size]) {
				return
			}
			size = (size + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1)
			b = b[min(size, len(b)):]
		}
	}
}

// decode reads the attributes of a packet message.
func decode(attrs []byte) (p Packet, number uint32, numbered bool) {
	for kind, value := range nlsock.Attrs(attrs) {
		switch {
		case kind == attrPrefix:
			p.Prefix = nlsock.Text(value)
		case kind == attrPayload:
			p.read(value)
		case len(value) != 4:
		case kind == attrIn:
			p.In = int(binary.BigEndian.Uint32(value))
		case kind == attrOut:
			p.Out = int(binary.BigEndian.Uint32(value))
		case kind == attrNumber:
			number, numbered = binary.BigEndian.Uint32(value), true
		}
	}
	return p, number, numbered
}

// read decodes the beginning of an IP packet, as far as it goes: senders may
// write into it what they like.
func (p *Packet) read(b []byte) {
	if len(b) == 0 {
		return
	}
	switch b[0] >> 4 {
	case 4:
		p.read4(b)
	case 6:
		p.read6(b)
	}
}

func (p *Packet) read4(b []byte) {
	const fixed = 20
	if len(b) < fixed {
		return
	}
	p.Src, p.Dst = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	p.Protocol = policy.Protocol(b[9])
	laterFragment := binary.BigEndian.Uint16(b[6:])&0x1fff != 0
	if size := int(b[0]&0xf) * 4; size >= fixed && size <= len(b) && !laterFragment {
		p.readTransport(b[size:])
	}
}

// The extension headers of IPv6 that stand before the transport.
const (
	hopByHop    = 0
	routing     = 43
	fragment    = 44
	authentic   = 51
	destination = 60
)

func (p *Packet) read6(b []byte) {
	const fixed = 40
	if len(b) < fixed {
		return
	}
	p.Src, p.Dst = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
	next := b[6]
	for b = b[fixed:]; ; {
		size := 8
		switch next {
		default:
			p.Protocol = policy.Protocol(next)
			p.readTransport(b)
			return
		case fragment:
			if len(b) >= size && binary.BigEndian.Uint16(b[2:])&^7 != 0 { // a later one
				p.Protocol = policy.Protocol(b[0])
				return
			}
		case authentic:
			if len(b) >= 2 {
				size = (int(b[1]) + 2) * 4
			}
		case hopByHop, routing, destination:
			if len(b) >= 2 {
				size = (int(b[1]) + 1) * 8
			}
		}
		if len(b) < size {
			p.Protocol = policy.Protocol(next)
			return
		}
		next, b = b[0], b[size:]
	}
}

func (p *Packet) readTransport(b []byte) {
	if len(b) < 4 {
		return
	}
	switch {
	case p.Protocol.HasPorts():
		p.SrcPort, p.DstPort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	case p.Protocol.HasMessages():
		p.Type, p.Code = b[0], b[1]
	}
}
