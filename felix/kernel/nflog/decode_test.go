package nflog

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/koratnet/korat/policy"
)

func header4(protocol byte, options int, fragment uint16) []byte {
	b := make([]byte, 20+options)
	b[0], b[9] = 0x40|byte(len(b)/4), protocol
	binary.BigEndian.PutUint16(b[6:], fragment)
	copy(b[12:], []byte{10, 0, 0, 1, 10, 0, 0, 2})
	return b
}

func header6(next byte, extensions ...byte) []byte {
	b := make([]byte, 40)
	b[0], b[6], b[8], b[24], b[39] = 0x60, next, 0xfd, 0xfd, 1
	return append(b, extensions...)
}

func TestHeadersAreReadAsFarAsTheyGo(t *testing.T) {
	ports := []byte{0x30, 0x39, 0, 80, 0, 0, 0, 0}
	hop := func(next byte) []byte { return []byte{next, 0, 0, 0, 0, 0, 0, 0} }
	frag := func(next byte, offset uint16) []byte {
		return []byte{next, 0, byte(offset >> 5), byte(offset << 3), 0, 0, 0, 0}
	}
	for name, c := range map[string]struct {
		b        []byte
		protocol policy.Protocol
		port     uint16
		kind     uint8
	}{
		"TCP":                           {append(header4(6, 0, 0), ports...), policy.TCP, 80, 0},
		"UDP behind options":            {append(header4(17, 8, 0), ports...), policy.UDP, 80, 0},
		"first fragment":                {append(header4(17, 0, 0x2000), ports...), policy.UDP, 80, 0},
		"later fragment":                {append(header4(17, 0, 0x2001), ports...), policy.UDP, 0, 0},
		"ICMP":                          {append(header4(1, 0, 0), 8, 0, 0, 0), policy.ICMP, 0, 8},
		"cut in the ports":              {append(header4(6, 0, 0), 0x30, 0x39), policy.TCP, 0, 0},
		"cut in the options":            {header4(6, 12, 0)[:24], policy.TCP, 0, 0},
		"SCTP over IPv6":                {append(header6(132), ports...), policy.SCTP, 80, 0},
		"IPv6 with a hop-by-hop header": {append(header6(0, hop(6)...), ports...), policy.TCP, 80, 0},
		"IPv6 with two":                 {append(header6(0, append(hop(60), hop(58)...)...), 128, 0, 0, 0), policy.ICMPv6, 0, 128},
		"IPv6, first fragment":          {append(header6(44, frag(17, 0)...), ports...), policy.UDP, 80, 0},
		"IPv6, later fragment":          {append(header6(44, frag(17, 8)...), ports...), policy.UDP, 0, 0},
		"IPv6, extensions without end":  {header6(0, hop(0)...), 0, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var p Packet
			p.read(c.b)
			if !p.Src.IsValid() || !p.Dst.IsValid() || p.Protocol != c.protocol || p.DstPort != c.port || p.Type != c.kind {
				t.Errorf("got %+v", p)
			}
		})
	}
}

func TestTooShortIsNoPacket(t *testing.T) {
	for _, b := range [][]byte{nil, {}, {0x45}, header4(6, 0, 0)[:19], header6(6)[:39], {0x20, 1, 2}} {
		var p Packet
		if p.read(b); p.Src != (netip.Addr{}) {
			t.Errorf("%x is %+v", b, p)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(header4(6, 0, 0))
	f.Add(header6(0, 44, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		var p Packet
		p.read(b)
		decode(b)
		for range messages(b) {
		}
		if !p.Protocol.HasPorts() && p.SrcPort|p.DstPort != 0 || !p.Protocol.HasMessages() && p.Type|p.Code != 0 {
			t.Errorf("%+v", p)
		}
	})
}
