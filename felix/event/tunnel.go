package event

import (
	"net/netip"

	"github.com/koratnet/korat/felix/desired"
)

// PoolModes say what packets to the pods of a pool travel in.
type PoolModes struct {
	Sends desired.Mode // every node sends so
	// Wanted is the next, and Before the last: some node may send so already, or
	// still. Both are Sends while nothing changes.
	Wanted, Before desired.Mode
	Generation     int64 // of the spec that says what is Wanted
}

// Reach is how the kernel of this node reaches an address of another node: by
// its routes, without those of Korat. The name of its Key is the address's text.
type Reach struct {
	Addr      netip.Addr
	Interface string
	Gateway   netip.Addr   // the zero Addr: Addr is on the link
	Source    netip.Prefix // this node's address on that way, with the length of its prefix
	MTU       int          // of the way's first link, in bytes
}

// TunnelAddress is this node's address inside of its tunnel of a kind. The name of
// its Key is that of the interface.
type TunnelAddress struct {
	Kind desired.TunnelKind
	Addr netip.Addr
}

// TunnelKey is the public key of this node's end of a WireGuard tunnel. The name of
// its Key is that of the interface.
type TunnelKey struct{ desired.EncryptedEnd }

// Turn says which of two ends of WireGuard packets for other nodes are to take where
// nodes have two. There is one, of whatever name.
type Turn struct {
	Odd bool
	// Live are the ends of other nodes that packets reach now, as a handshake with
	// the keys that are in use has proved.
	Live map[desired.EncryptedEnd]struct{}
	// Hosts: what the node itself sends may be encrypted, because what comes back in
	// clear is taken, and the tunnels go on when the agent ends.
	Hosts bool
}

// WireGuardEnd is a node's end of a WireGuard tunnel as the node announces it.
type WireGuardEnd struct {
	desired.EncryptedEnd
	Port uint16
}

func (*Reach) kind() Kind         { return ReachKind }
func (*TunnelAddress) kind() Kind { return TunnelAddressKind }
func (*TunnelKey) kind() Kind     { return TunnelKeyKind }
func (*Turn) kind() Kind          { return TurnKind }
