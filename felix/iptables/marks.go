package iptables

import (
	"fmt"
	"math/bits"
)

// marks are the bits of the packet mark that our rules use. Between one of our
// rules and the next they carry what was decided so far; what allows clears all
// but accept. Only accept crosses from table to table: what a rule before
// connection tracking or translation has let in or out is not asked again.
type marks struct {
	accept uint32 // this direction lets the packet through
	pass   uint32 // the tier was left by Pass
	block  uint32 // scratch: one OR-list of a rule has matched
	every  uint32 // scratch: all OR-lists so far have matched
}

// Bits of the packet mark that others use: to masquerade and to drop
// (kube-proxy), to masquerade (portmap).
const (
	kubeProxyMarks = 0xc000
	portmapMarks   = 0x2000
)

// newMarks takes the four lowest bits of mask.
func newMarks(mask uint32) (marks, error) {
	switch {
	case mask&kubeProxyMarks != 0:
		return marks{}, fmt.Errorf("mark bits %#x: %#x are kube-proxy's", mask, mask&kubeProxyMarks)
	case mask&portmapMarks != 0:
		return marks{}, fmt.Errorf("mark bits %#x: %#x are portmap's", mask, mask&portmapMarks)
	case bits.OnesCount32(mask) < 4:
		return marks{}, fmt.Errorf("mark bits %#x: want at least 4", mask)
	}
	next := func() uint32 {
		low := mask & -mask
		mask &^= low
		return low
	}
	return marks{accept: next(), pass: next(), block: next(), every: next()}, nil
}

// astray is set on a packet whose address leads to no pod's chain. Its bit is that
// of block, which nothing between the two looks at; where another program has set
// it, the packet is asked twice, and answers the same.
func (m marks) astray() uint32 { return m.block }

func (m marks) all() uint32 { return m.accept | m.pass | m.block | m.every }

// mark matches packets of which the bits are set, noMark packets of which they
// are clear; setMark and clearMark are targets.
func mark(bits uint32) string      { return fmt.Sprintf("-m mark --mark %#x/%#x", bits, bits) }
func noMark(bits uint32) string    { return fmt.Sprintf("-m mark --mark 0x0/%#x", bits) }
func setMark(bits uint32) string   { return fmt.Sprintf("-j MARK --set-xmark %#x/%#x", bits, bits) }
func clearMark(bits uint32) string { return fmt.Sprintf("-j MARK --set-xmark 0x0/%#x", bits) }

// only is the target that sets bit and clears our others.
func (m marks) only(bit uint32) string {
	return fmt.Sprintf("-j MARK --set-xmark %#x/%#x", bit, m.all())
}
