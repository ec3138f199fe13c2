package desired

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
)

// Encapsulation is what a packet travels in from node to node.
type Encapsulation uint8

// The encapsulations.
const (
	Plain     Encapsulation = iota // nothing: the packet as it is
	VXLAN                          // UDP (RFC 7348)
	IPIP                           // IP (RFC 2003)
	WireGuard                      // UDP, encrypted; no pool's mode: it takes the place of what the pool asks for
)

var encapsulations = [...]string{"None", "VXLAN", "IPIP", "WireGuard"}

// String returns the word that users know.
func (e Encapsulation) String() string { return encapsulations[e] }

// Mode is what a pool asks for.
type Mode struct {
	Encapsulation
	CrossSubnet bool // to nodes of other subnets only
}

// String returns the word that users know.
func (m Mode) String() string {
	if m.CrossSubnet {
		return m.Encapsulation.String() + "CrossSubnet"
	}
	return m.Encapsulation.String()
}

// The two numbers that all nodes of a cluster have to agree on. The port is that
// of IANA; pods cannot send to it.
const (
	VXLANPort = 4789
	VXLANID   = 4096
)

// TunnelKind is a kind of tunnel, of which a node has at most one: what is in it
// and around it is of one family.
type TunnelKind uint8

// The kinds. Where keys are renewed by the clock a node has two ends of WireGuard in
// each family, with a key each, and receives through both at any time.
const (
	VXLAN4 TunnelKind = iota
	VXLAN6
	IPIP4
	WireGuard4
	WireGuard6
	WireGuard4Odd
	WireGuard6Odd
)

// TunnelKinds are all kinds.
var TunnelKinds = [...]TunnelKind{VXLAN4, VXLAN6, IPIP4, WireGuard4, WireGuard6, WireGuard4Odd, WireGuard6Odd}

// tunnelKinds says what is to be known of each kind. The names do not begin with
// InterfacePrefix: what comes through is not a pod's.
var tunnelKinds = [...]struct {
	device   string
	e        Encapsulation
	v6       bool
	overhead int
}{
	VXLAN4: {"vxlan4-korat", VXLAN, false, 50}, // Ethernet inside of VXLAN, UDP and IPv4
	VXLAN6: {"vxlan6-korat", VXLAN, true, 70},
	IPIP4:  {"ipip-korat", IPIP, false, 20},
	// The header, the counter and the tag of WireGuard (32) inside of UDP and IP.
	WireGuard4: {"wg4-korat", WireGuard, false, 60},
	WireGuard6: {"wg6-korat", WireGuard, true, 80},
	// One name begins with the other, for rules that match both.
	WireGuard4Odd: {"wg4-korat-odd", WireGuard, false, 60},
	WireGuard6Odd: {"wg6-korat-odd", WireGuard, true, 80},
}

// TunnelOf returns the kind of tunnel for packets of a family: of WireGuard the one
// that a node has first. There is no IPIP6.
func TunnelOf(e Encapsulation, v6 bool) (TunnelKind, bool) {
	for _, k := range TunnelKinds {
		if tunnelKinds[k].e == e && tunnelKinds[k].v6 == v6 {
			return k, true
		}
	}
	return 0, false
}

// TunnelOfDevice returns the kind of tunnel whose interface has the name.
func TunnelOfDevice(name string) (TunnelKind, bool) {
	for _, k := range TunnelKinds {
		if tunnelKinds[k].device == name {
			return k, true
		}
	}
	return 0, false
}

// Device returns the name of the interface.
func (k TunnelKind) Device() string { return tunnelKinds[k].device }

// String returns the name of the interface.
func (k TunnelKind) String() string { return k.Device() }

// Encapsulation returns what packets travel in.
func (k TunnelKind) Encapsulation() Encapsulation { return tunnelKinds[k].e }

// Is6 reports whether k is of IPv6, inside and outside.
func (k TunnelKind) Is6() bool { return tunnelKinds[k].v6 }

// Odd reports whether k is the second end of WireGuard that a node has in a family.
func (k TunnelKind) Odd() bool { return k == WireGuard4Odd || k == WireGuard6Odd }

// Overhead returns how many bytes k adds to a packet.
func (k TunnelKind) Overhead() int { return tunnelKinds[k].overhead }

// MAC is a hardware address.
type MAC [6]byte

// String returns the usual notation.
func (m MAC) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// MACOf returns the hardware address of a node's end of a tunnel: a function of
// the node's name, so that every node computes it without asking, and a node that
// is set up anew has the one that others know.
func (k TunnelKind) MACOf(node string) MAC {
	sum := sha256.Sum256([]byte(k.Device() + "/" + node))
	m := MAC(sum[:6])
	m[0] = m[0]&^1 | 2 // of one station, locally administered
	return m
}

// Gateway returns the next hop of routes through k to the node whose underlay
// address and name these are. For IPv6 it is the link-local address of the other
// end: the kernel refuses a gateway that another interface leads to.
func (k TunnelKind) Gateway(underlay netip.Addr, node string) netip.Addr {
	if !k.Is6() {
		return underlay
	}
	return k.MACOf(node).LinkLocal()
}

// LinkLocal returns the address that the kernel makes of m (RFC 4291, appendix A).
func (m MAC) LinkLocal() netip.Addr {
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 8: m[0] ^ 2, 9: m[1], 10: m[2], 11: 0xff, 12: 0xfe, 13: m[3], 14: m[4], 15: m[5]})
}

// TunnelDevice is this node's end of a tunnel to all others.
type TunnelDevice struct {
	Kind     TunnelKind
	Underlay netip.Addr // the node's address around packets
	Addr     netip.Addr // the node's address inside; the zero Addr while it has none
	MAC      MAC        // of VXLAN
	Key      Key        // of WireGuard: the public half of what this end is known by
	Port     uint16     // on which WireGuard listens
	MTU      int        // of the interface; 0: not known yet, the kernel's choice
}

// TunnelEnd identifies another node's end.
type TunnelEnd struct {
	Kind    TunnelKind
	Gateway netip.Addr // the next hop of routes to it
}

// TunnelPeer is another node's end of a VXLAN tunnel.
type TunnelPeer struct {
	Underlay netip.Addr
	MAC      MAC
}

// WayReason is why a node is reached as it is.
type WayReason uint8

// The reasons.
const (
	Always        WayReason = iota // the mode says so
	SameSubnet                     // on one link, by the prefix of this node's address and by the kernel's route
	OtherSubnet                    // outside of that prefix
	BehindGateway                  // inside of it, and the kernel's route leads over a router
	NoRoute                        // no route to the node is known
	HasKey                         // it takes what is encrypted, and this node encrypts
	NoKey                          // this node encrypts, and the other takes nothing that is
)

var wayReasons = [...]string{"Always", "SameSubnet", "OtherSubnet", "BehindGateway", "Unknown", "HasKey", "NoKey"}

// String returns the word that users know.
func (r WayReason) String() string { return wayReasons[r] }

// Way is a kind of way to other nodes. WireGuard with NoKey is none: they are not
// reached, as nothing may travel in clear.
type Way struct {
	Encapsulation
	Reason WayReason
}

// PoolWays say how packets to pods of a pool travel.
type PoolWays struct {
	Sends    Mode
	Receives []Mode // each once; Sends is among them
	// Generation of the pool's spec that Receives follows.
	Generation int64
	Nodes      map[Way][]string // sorted names; never changed
}

// MTU is what there is to know of the packets that pods may send.
type MTU struct {
	Uplink   int // of the narrowest link to another node; 0: none is known
	Overhead int // what the widest encapsulation in use adds
}
