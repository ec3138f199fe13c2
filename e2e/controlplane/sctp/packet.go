package sctp

import (
	"encoding/binary"
	"hash/crc32"
)

// kind is what a chunk means (RFC 9260, section 3.2).
type kind byte

const (
	data             kind = 0
	initiate         kind = 1
	initiateAck      kind = 2
	selectiveAck     kind = 3
	heartbeat        kind = 4
	heartbeatAck     kind = 5
	abort            kind = 6
	shutdown         kind = 7
	shutdownAck      kind = 8
	cookieEcho       kind = 10
	cookieAck        kind = 11
	shutdownComplete kind = 14
)

// whole says of a data chunk that it is a message's first and last.
const whole = 3

type chunk struct {
	kind  kind
	flags byte
	body  []byte
}

// packet has the ports as its receiver sees them: from is the sender's.
type packet struct {
	from, to uint16
	tag      uint32
	chunks   []chunk
}

const (
	headerSize = 12
	checksumAt = 8
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (p packet) marshal() []byte {
	b := binary.BigEndian.AppendUint16(nil, p.from)
	b = binary.BigEndian.AppendUint16(b, p.to)
	b = binary.BigEndian.AppendUint32(b, p.tag)
	b = append(b, 0, 0, 0, 0)
	for _, c := range p.chunks {
		b = append(b, byte(c.kind), c.flags)
		b = appendPadded(binary.BigEndian.AppendUint16(b, uint16(4+len(c.body))), c.body)
	}
	// The one field of the protocol that is little-endian.
	binary.LittleEndian.PutUint32(b[checksumAt:], crc32.Checksum(b, castagnoli))
	return b
}

// appendPadded fills up to a multiple of four, which no length counts.
func appendPadded(b, body []byte) []byte {
	b = append(b, body...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// parse takes its own copy of b. It is false for what is no packet or is damaged.
func parse(b []byte) (packet, bool) {
	if len(b) < headerSize {
		return packet{}, false
	}
	b = append([]byte(nil), b...)
	sum := binary.LittleEndian.Uint32(b[checksumAt:])
	clear(b[checksumAt:headerSize])
	if crc32.Checksum(b, castagnoli) != sum {
		return packet{}, false
	}
	p := packet{
		from: binary.BigEndian.Uint16(b), to: binary.BigEndian.Uint16(b[2:]),
		tag: binary.BigEndian.Uint32(b[4:]),
	}
	for rest := b[headerSize:]; len(rest) > 0; {
		head, body, next, ok := split(rest)
		if !ok {
			return packet{}, false
		}
		p.chunks = append(p.chunks, chunk{kind: kind(head[0]), flags: head[1], body: body})
		rest = next
	}
	return p, true
}

// split takes the first chunk or parameter off: both have two bytes, their length
// with these four, and a body.
func split(b []byte) (head, body, rest []byte, ok bool) {
	if len(b) < 4 {
		return nil, nil, nil, false
	}
	n := int(binary.BigEndian.Uint16(b[2:]))
	if n < 4 || n > len(b) {
		return nil, nil, nil, false
	}
	return b[:2], b[4:n], b[min((n+3)&^3, len(b)):], true
}

// greeting is the body of INIT and INIT ACK: the sender's tag, its window, one
// stream each way, and its first sequence number.
type greeting struct{ tag, first uint32 }

const (
	greetingSize = 16
	window       = 1 << 16
	cookieParam  = 7
)

func (g greeting) marshal(cookie []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, g.tag)
	b = binary.BigEndian.AppendUint32(b, window)
	b = append(b, 0, 1, 0, 1)
	b = binary.BigEndian.AppendUint32(b, g.first)
	if cookie == nil {
		return b
	}
	b = append(b, 0, cookieParam)
	return appendPadded(binary.BigEndian.AppendUint16(b, uint16(4+len(cookie))), cookie)
}

func parseGreeting(b []byte) (g greeting, cookie []byte, ok bool) {
	if len(b) < greetingSize {
		return g, nil, false
	}
	g = greeting{tag: binary.BigEndian.Uint32(b), first: binary.BigEndian.Uint32(b[12:])}
	for rest := b[greetingSize:]; len(rest) > 0; {
		head, body, next, ok := split(rest)
		if !ok {
			break
		}
		if head[0] == 0 && head[1] == cookieParam {
			cookie = body
		}
		rest = next
	}
	return g, cookie, true
}

// state is what a listener puts into a cookie, so that it has nothing to remember
// of a client that has not come back with it.
type state struct{ client, server greeting }

const stateSize = 16

func (s state) marshal() []byte {
	var b []byte
	for _, v := range []uint32{s.client.tag, s.client.first, s.server.tag, s.server.first} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return b
}

func parseState(b []byte) (state, bool) {
	if len(b) != stateSize {
		return state{}, false
	}
	at := func(i int) uint32 { return binary.BigEndian.Uint32(b[i:]) }
	return state{client: greeting{at(0), at(4)}, server: greeting{at(8), at(12)}}, true
}
