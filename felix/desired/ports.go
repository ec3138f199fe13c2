package desired

import (
	"slices"

	"github.com/koratnet/korat/policy/ir"
)

// UDPPort returns the port to which packets of the tunnel are sent, if they travel in
// UDP.
func (d TunnelDevice) UDPPort() (port uint16, udp bool) {
	switch d.Kind.Encapsulation() {
	case VXLAN:
		return VXLANPort, true
	case WireGuard:
		return d.Port, true
	}
	return 0, false
}

// SendsFromPort reports whether packets of the tunnel also leave from its UDPPort: those
// of WireGuard do, to whichever port the other node chose. Those of VXLAN leave from
// any, so that flows differ on the wire (RFC 7348, section 5).
func (d TunnelDevice) SendsFromPort() bool { return d.Kind.Encapsulation() == WireGuard }

// UDPPorts returns which ports UDP of pods may get as source: of Ports the longest part
// in which no tunnel of the node ends, which would take the answers for its own. The
// zero range is the kernel's choice, where there are no such tunnels.
func (m Masquerade) UDPPorts(ends []TunnelDevice) ir.PortRange {
	var taken []int
	for _, d := range ends {
		if port, udp := d.UDPPort(); udp {
			taken = append(taken, int(port))
		}
	}
	if len(taken) == 0 {
		return m.Ports
	}
	first, last := int(m.Ports.First), int(m.Ports.Last)
	if m.Ports == (ir.PortRange{}) {
		first, last = 1024, 65535 // those that need no privilege
	}
	slices.Sort(taken)
	var best ir.PortRange
	longest := 0
	for _, port := range append(taken, last+1) {
		if end := min(port-1, last); end-first+1 > longest {
			longest, best = end-first+1, ir.PortRange{First: uint16(first), Last: uint16(end)}
		}
		first = max(first, port+1)
	}
	if longest == 0 { // the range is one such port: there is nothing better
		return m.Ports
	}
	return best
}
