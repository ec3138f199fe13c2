package iptables

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/policy"
)

// packet is a packet that begins a connection. src distinguishes connections: it
// is the source port, or the identifier of an echo request.
type packet struct {
	from, to netip.Addr
	proto    policy.Protocol
	src, dst uint16
	kind     uint8 // of an ICMP message: its type, zero for an echo request
	code     uint8 // of an ICMP message
}

// message returns the type of an ICMP message.
func (p packet) message() uint8 {
	switch {
	case p.kind != 0:
		return p.kind
	case p.proto == policy.ICMPv6:
		return echoRequest6
	}
	return echoRequest
}

func (p packet) String() string {
	return fmt.Sprintf("%s %s:%d -> %s:%d", p.proto, p.from, p.src, p.to, p.dst)
}

// key is what the receiver sees of a packet and what identifies it.
type key struct {
	from  netip.Addr
	proto policy.Protocol
	src   uint16
}

func (p packet) key() key { return key{p.from, p.proto, p.src} }

const echoRequest, timestampRequest, echoRequest6 = 8, 13, 128

// transport returns the packet without its IP header.
func (p packet) transport() []byte {
	b := make([]byte, 8, 40)
	binary.BigEndian.PutUint16(b[0:], p.src)
	binary.BigEndian.PutUint16(b[2:], p.dst)
	switch p.proto {
	case policy.UDP:
		b[5] = 8 // length
		binary.BigEndian.PutUint16(b[6:], p.checksum(b))
	case policy.TCP:
		b = b[:20]
		b[12], b[13], b[14] = 5<<4, 2, 16 // header length, SYN, window
		binary.BigEndian.PutUint16(b[16:], p.checksum(b))
	case policy.SCTP:
		b = b[:32] // an INIT chunk of 20 bytes
		b[12], b[15], b[19], b[23], b[25], b[27] = 1, 20, 1, 0xff, 1, 1
		binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	case policy.ICMP, policy.ICMPv6:
		b = b[:20] // as long as a timestamp request has to be
		b[0], b[1], b[2], b[3] = p.message(), p.code, 0, 0
		binary.BigEndian.PutUint16(b[4:], p.src)
		binary.BigEndian.PutUint16(b[2:], p.checksum(b))
	}
	return b
}

// checksum is the Internet checksum of b with the pseudo header that the protocol wants.
func (p packet) checksum(b []byte) uint16 {
	sum := uint32(0)
	add := func(b []byte) {
		for i := 0; i < len(b); i += 2 {
			sum += uint32(b[i])<<8 | uint32(b[i+1])
		}
	}
	add(b)
	if p.proto != policy.ICMP {
		add(p.from.AsSlice())
		add(p.to.AsSlice())
		sum += uint32(p.proto) + uint32(len(b))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// wrap puts an IP header in front of payload.
func wrap(from, to netip.Addr, proto policy.Protocol, payload []byte) []byte {
	if from.Is6() {
		h := make([]byte, 40)
		h[0] = 6 << 4
		binary.BigEndian.PutUint16(h[4:], uint16(len(payload)))
		h[6], h[7] = byte(proto), 255
		copy(h[8:], from.AsSlice())
		copy(h[24:], to.AsSlice())
		return append(h, payload...)
	}
	h := make([]byte, 20)
	h[0], h[8], h[9] = 4<<4|5, 64, byte(proto) // the kernel fills in length and checksum
	copy(h[12:], from.AsSlice())
	copy(h[16:], to.AsSlice())
	return append(h, payload...)
}

// wire sends whole packets from a namespace, with any source, and sees what is
// delivered to it after its own rules.
type wire struct {
	t    testing.TB
	send map[bool]int                     // by Is6
	recv map[bool]map[policy.Protocol]int // by Is6
}

var wireProtocols = []policy.Protocol{policy.TCP, policy.UDP, policy.SCTP, policy.ICMP, policy.ICMPv6, 4}

func newWire(t testing.TB, ns *kerneltest.Namespace) *wire {
	t.Helper()
	w := &wire{t: t, send: map[bool]int{}, recv: map[bool]map[policy.Protocol]int{false: {}, true: {}}}
	open := func(family, flags, proto int) int {
		fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC|flags, proto)
		if err != nil {
			t.Fatalf("raw socket: %v", err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		return fd
	}
	ns.Do(func() {
		for is6, family := range map[bool]int{false: unix.AF_INET, true: unix.AF_INET6} {
			w.send[is6] = open(family, 0, unix.IPPROTO_RAW)
			for _, p := range wireProtocols {
				w.recv[is6][p] = open(family, unix.SOCK_NONBLOCK, int(p))
			}
		}
	})
	return w
}

func (w *wire) transmit(p packet) { w.raw(p.from, p.to, p.proto, p.transport()) }

func (w *wire) raw(from, to netip.Addr, proto policy.Protocol, payload []byte) {
	w.t.Helper()
	var addr unix.Sockaddr = &unix.SockaddrInet6{Addr: to.As16()}
	if to.Is4() {
		addr = &unix.SockaddrInet4{Addr: to.As4()}
	}
	// A refusal by the sender's own kernel is a packet that was not delivered.
	if err := unix.Sendto(w.send[to.Is6()], wrap(from, to, proto, payload), 0, addr); err != nil {
		w.t.Logf("send to %s: %v", to, err)
	}
}

// drain returns what has been delivered since the last time.
func (w *wire) drain() map[key]bool {
	w.t.Helper()
	got := map[key]bool{}
	buf := make([]byte, 2048)
	for is6, socks := range w.recv {
		for proto, fd := range socks {
			for {
				n, from, err := unix.Recvfrom(fd, buf, 0)
				if err != nil {
					break // empty
				}
				if k, ok := received(buf[:n], from, is6, proto); ok {
					got[k] = true
				}
			}
		}
	}
	return got
}

func received(b []byte, from unix.Sockaddr, is6 bool, proto policy.Protocol) (key, bool) {
	k := key{proto: proto}
	switch a := from.(type) {
	case *unix.SockaddrInet4:
		k.from = netip.AddrFrom4(a.Addr)
	case *unix.SockaddrInet6:
		k.from = netip.AddrFrom16(a.Addr)
	}
	if !is6 { // the kernel hands out the header of IPv4 only
		b = b[int(b[0]&0xf)*4:]
	}
	at := 0
	switch {
	case len(b) < 8, proto == policy.TCP && b[13] != 2:
		return k, false
	case proto == policy.ICMP && b[0] != echoRequest && b[0] != timestampRequest:
		return k, false
	case proto == policy.ICMPv6 && b[0] != echoRequest6:
		k.src = uint16(b[0]) // all other messages are known by their type
		return k, true
	case proto == policy.ICMP || proto == policy.ICMPv6:
		at = 4
	}
	k.src = binary.BigEndian.Uint16(b[at:])
	return k, true
}
