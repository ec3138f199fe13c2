package v1

import (
	"net/netip"
	"time"
)

// The defaults of the API, each written here once. Where the schema can hold a
// default (a constant that does not depend on another field) it repeats the
// number, and a test compares the two.
const (
	// DefaultASNumber is the AS number of a node for which neither its
	// NodeNetwork nor the BGPConfiguration names one. It is the first number
	// of the 16-bit private range (RFC 6996).
	DefaultASNumber ASNumber = 64512

	// DefaultBlockSizeV4 is the prefix length of an IPv4 pool's blocks: 64
	// addresses, about what one node needs.
	DefaultBlockSizeV4 = 26

	// DefaultBlockSizeV6 is the prefix length of an IPv6 pool's blocks: 64
	// addresses as well, so that a dual-stack node claims in step.
	DefaultBlockSizeV6 = 122

	// DefaultBGPPort is the TCP port on which nodes listen and on which peers
	// are called.
	DefaultBGPPort = 179

	// DefaultRouteTable is the routing table of nodes' routes: the main one.
	DefaultRouteTable = 254

	// DefaultHoldTime is how long a session survives without a message from
	// its peer.
	DefaultHoldTime = 90 * time.Second

	// DefaultBFDInterval is the shortest time between BFD packets, and
	// DefaultBFDMultiplier how many may be lost: a dead peer is known after 0.9 s.
	DefaultBFDInterval   = 300 * time.Millisecond
	DefaultBFDMultiplier = 3

	// DefaultCooldown is how long a freed address rests: longer than the SYN-SENT
	// and the unreplied UDP timeouts of conntrack.
	DefaultCooldown = 30 * time.Second

	// PoolFinalizer holds an IPPool that is deleted until no block of it is left.
	PoolFinalizer = "korat.dev/addresses"

	// DefaultRestartTime is how long peers keep a node's routes while its
	// agent restarts.
	DefaultRestartTime = 120 * time.Second

	// DefaultClusterID is the cluster id of reflectors that name none. It is of a
	// range that is nobody's (RFC 1112), so that it is no node's router id.
	DefaultClusterID = "244.0.0.1"

	// DrainAnnotation on a Node, with the value "true", leads traffic away from it.
	DrainAnnotation = "korat.dev/drain"

	// BGPConfigurationName is the only name a BGPConfiguration may have.
	BGPConfigurationName = "default"

	// FirstNodeConfigurationName is that of the NodeConfiguration whose fields
	// every other overrides.
	FirstNodeConfigurationName = "default"
)

// DefaultBlockSize is the prefix length of the blocks of a pool that names
// none: DefaultBlockSizeV4 or DefaultBlockSizeV6, by the pool's family.
func DefaultBlockSize(pool netip.Prefix) int {
	if pool.Addr().Is4() {
		return DefaultBlockSizeV4
	}
	return DefaultBlockSizeV6
}
