package dataplanetest

import (
	"encoding/binary"

	"github.com/koratnet/korat/policy"
)

// clamped: where that is asked for, no end of a TCP connection of a pod is told of
// segments that are larger than the way takes, and otherwise nothing is touched.
func (w *world) clamped() {
	const asked, mtu = 1460, 1400
	w.node.Run("ip", "link", "set", "eth0", "mtu", "1400")
	for _, clamp := range []bool{false, true, false} {
		d := w.open()
		d.Settings.ClampMSS = clamp
		w.apply(d)
		for _, is6 := range bothFamilies {
			want := asked
			if clamp {
				want = map[bool]int{false: mtu - 40, true: mtu - 60}[is6]
			}
			for _, way := range [][2]string{{"a", "out0"}, {"out0", "a"}} {
				if got := w.segment(way[0], way[1], is6, asked); got != want {
					w.t.Errorf("clamping is %v: from %s to %s of IPv6 %v: segments of %d bytes, want %d", clamp, way[0], way[1], is6, got, want)
				}
			}
			if got := w.segment("a", "b", is6, 1000); got != 1000 {
				w.t.Errorf("clamping is %v: segments of 1000 bytes became %d", clamp, got)
			}
		}
	}
}

// segment begins a TCP connection and returns the largest segment of which the other
// end is told, 0 when nothing arrives.
func (w *world) segment(from, to string, is6 bool, size uint16) int {
	w.t.Helper()
	s := w.shot(from, to, is6, policy.TCP, 80)
	b := append(s.transport()[:20], 2, 4, byte(size>>8), byte(size))
	b[12], b[16], b[17] = 6<<4, 0, 0
	binary.BigEndian.PutUint16(b[16:], checksum(s.Packet, b))
	s.from.raw(s.Src, s.Dst, policy.TCP, b)
	w.clock.settle()
	for _, p := range w.packets(s.to, s.Src) {
		if proto, b := upper(p); proto == policy.TCP && len(b) >= 24 && b[20] == 2 {
			return int(binary.BigEndian.Uint16(b[22:]))
		}
	}
	return 0
}
