package dataplanetest

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/koratnet/korat/policy"
)

// fragment is a part of what follows the IP header of a packet.
type fragment struct {
	offset int // in bytes, a multiple of 8
	more   bool
	body   []byte
}

// cut cuts b into fragments of so many bytes.
func cut(b []byte, size int) []fragment {
	var out []fragment
	for at := 0; at < len(b); at += size {
		end := min(at+size, len(b))
		out = append(out, fragment{at, end < len(b), b[at:end]})
	}
	return out
}

// send sends fragments of the packet s, all with the same identification.
func (s shot) send(list []fragment) {
	for _, f := range list {
		field := uint16(f.offset / 8)
		if s.Src.Is6() {
			h := []byte{byte(s.Protocol), 0, 0, 0}
			field <<= 3
			if f.more {
				field |= 1
			}
			binary.BigEndian.PutUint16(h[2:], field)
			h = binary.BigEndian.AppendUint32(h, s.id)
			s.from.whole(s.Dst, wrap(s.Src, s.Dst, 44, append(h, f.body...)))
			continue
		}
		if f.more {
			field |= 1 << 13
		}
		b := wrap(s.Src, s.Dst, s.Protocol, f.body)
		binary.BigEndian.PutUint16(b[4:], uint16(s.id))
		binary.BigEndian.PutUint16(b[6:], field)
		b[10], b[11] = 0, 0 // the kernel fills it in
		s.from.whole(s.Dst, b)
	}
}

// fragments: b takes in port 80 only, however a packet is cut, and of c nothing
// gets out but to port 80.
func (w *world) fragments() {
	d := w.open()
	w.close(d, "b", policy.Ingress, port(policy.UDP, 80), port(policy.TCP, 80))
	w.close(d, "c", policy.Egress, port(policy.UDP, 80), port(policy.TCP, 80))
	w.apply(d)
	for _, is6 := range bothFamilies {
		for _, way := range [][2]string{{"out0", "b"}, {"a", "b"}, {"rem1", "b"}, {"c", "out0"}, {"c", "host"}, {"c", "b"}} {
			for _, proto := range []policy.Protocol{policy.UDP, policy.TCP} {
				w.fragmented(way[0], way[1], is6, proto)
			}
		}
	}
}

func (w *world) fragmented(from, to string, is6 bool, proto policy.Protocol) {
	w.t.Helper()
	seen := func(dst uint16, what string, arrange func([]byte) []fragment) (arrived bool) {
		s := w.shot(from, to, is6, proto, dst)
		s.send(arrange(s.transport()))
		w.clock.settle()
		for _, b := range w.packets(s.to, s.Src) {
			if proto, body := upper(b); proto == s.Protocol && len(body) >= 4 {
				arrived = true
				if got := binary.BigEndian.Uint16(body[2:]); got != 80 {
					w.t.Errorf("%s, %s: arrived with port %d", s, what, got)
				}
			}
		}
		return arrived
	}
	whole := func(size int) func([]byte) []fragment {
		return func(b []byte) []fragment { return cut(b, size) }
	}
	for _, size := range []int{8, 16, 24} {
		// IPv6 wants the whole header of TCP in the first fragment.
		tiny := is6 && proto == policy.TCP && size < 20
		if !seen(80, "in fragments", whole(size)) && !tiny {
			w.t.Errorf("%s -> %s, %s (IPv6 %v): fragments of %d bytes of an allowed packet got lost", from, to, proto, is6, size)
		}
		seen(22, "in fragments", whole(size))
	}
	seen(22, "later fragments alone", func(b []byte) []fragment { return cut(b, 8)[1:] })
	seen(22, "first fragment alone", func(b []byte) []fragment { return cut(b, 8)[:1] })
	seen(22, "in the wrong order", func(b []byte) []fragment {
		f := cut(b, 8)
		slices.Reverse(f)
		return f
	})
	// A part that says port 80, and one over it that says another.
	overlap := func(swapped bool) func([]byte) []fragment {
		return func(b []byte) []fragment {
			good := slices.Clone(b)
			binary.BigEndian.PutUint16(good[2:], 80)
			list := []fragment{{0, true, good[:8]}, {0, true, b[:8]}, {8, false, b[8:]}}
			if swapped {
				list[0], list[1] = list[1], list[0]
			}
			return list
		}
	}
	seen(22, "overlapping", overlap(false))
	seen(22, "overlapping", overlap(true))
}

// packets returns what has arrived from an address at a site, from the IP header on.
func (w *world) packets(at *site, from netip.Addr) [][]byte {
	w.t.Helper()
	var out [][]byte
	for _, wire := range w.wires {
		wire.drain(func(b []byte) {
			if src, ok := source(b); ok && wire == at.wire && src == from {
				out = append(out, slices.Clone(b))
			}
		})
	}
	return out
}

// source returns where a packet says to be from.
func source(b []byte) (netip.Addr, bool) {
	switch {
	case len(b) >= 40 && b[0]>>4 == 6:
		return netip.AddrFrom16([16]byte(b[8:])), true
	case len(b) >= 20 && b[0]>>4 == 4:
		return netip.AddrFrom4([4]byte(b[12:])), true
	}
	return netip.Addr{}, false
}

// upper returns the protocol of a packet that is no later fragment and what
// follows its headers.
func upper(b []byte) (policy.Protocol, []byte) {
	if b[0]>>4 == 4 {
		if b[6]&0x1f|b[7] != 0 {
			return 0, nil
		}
		return policy.Protocol(b[9]), b[int(b[0]&0xf)*4:]
	}
	next, b := b[6], b[40:]
	for len(b) >= 8 {
		switch next {
		case 44:
			if b[2]|b[3]&0xf8 != 0 {
				return 0, nil
			}
			next, b = b[0], b[8:]
		case 0, 43, 60:
			next, b = b[0], b[min(len(b), 8+8*int(b[1])):]
		default:
			return policy.Protocol(next), b
		}
	}
	return policy.Protocol(next), b
}

// extensionHeaders hide neither ports nor tunnels.
func (w *world) extensionHeaders() {
	d := w.open()
	w.close(d, "b", policy.Ingress, port(policy.UDP, 80), port(policy.TCP, 80))
	w.apply(d)
	options := []byte{0, 0, 1, 4, 0, 0, 0, 0} // padding
	for _, header := range []byte{0, 60} {    // hop-by-hop, destination
		for _, from := range []string{"out0", "a"} {
			for _, c := range []struct {
				proto policy.Protocol
				port  uint16
				want  bool
			}{{policy.UDP, 80, true}, {policy.UDP, 22, false}, {policy.TCP, 80, true}, {policy.TCP, 22, false}, {policy.ICMPv6, 0, false}, {ipInIP, 0, false}} {
				s := w.shot(from, "b", true, c.proto, c.port)
				options[0] = byte(c.proto)
				s.from.raw(s.Src, s.Dst, policy.Protocol(header), append(slices.Clone(options), s.transport()...))
				w.clock.settle()
				arrived := slices.ContainsFunc(w.packets(s.to, s.Src), func(b []byte) bool {
					proto, _ := upper(b)
					return proto == c.proto
				})
				if arrived != c.want {
					w.t.Errorf("%s behind header %d: arrived: %v, want %v", s, header, arrived, c.want)
				}
			}
		}
	}
}
