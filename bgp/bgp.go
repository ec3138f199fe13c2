// Package bgp is the vocabulary of what Korat says to and hears from BGP
// neighbours. It knows no speaker: bgp/gobgp implements one, bgp/reconcile
// keeps it as desired, felix/calc computes what is desired.
package bgp

import (
	"net/netip"
	"slices"
	"time"
)

// Advertise is the set of path kinds that a peer is told.
type Advertise uint8

// Blocks are aggregates: the address blocks that the node owns. Hosts are the
// /32 and /128 of each local pod.
const (
	Blocks Advertise = 1 << iota
	Hosts
)

// MeshHold and MeshKeepalive are the timers of sessions between nodes.
const (
	MeshHold      = 90 * time.Second
	MeshKeepalive = 30 * time.Second
)

// Config is all that the local speaker needs to know, complete: a peer that is
// not in Peers has no session. The zero Config means "do not speak BGP".
type Config struct {
	ASN         uint32
	RouterID    netip.Addr // IPv4, unique in the AS (RFC 6286)
	ListenPort  uint16
	RestartTime time.Duration // graceful restart time told to peers (RFC 4724), whole seconds
	Peers       []Peer        // sorted by Addr, each address once
}

// Equal reports whether a and b configure the same speaker.
func (c Config) Equal(o Config) bool {
	return c.ASN == o.ASN && c.RouterID == o.RouterID && c.ListenPort == o.ListenPort &&
		c.RestartTime == o.RestartTime && slices.Equal(c.Peers, o.Peers)
}

// Peer is one neighbour.
type Peer struct {
	// Name is what the user knows the peer by: "bgppeer/NAME" or, in the
	// mesh, "nodenetwork/NAME".
	Name      string
	Addr      netip.Addr
	Port      uint16
	ASN       uint32     // equal to Config.ASN: an iBGP session
	LocalAddr netip.Addr // source of the session, and next hop of what we originate
	Hold      time.Duration
	Keepalive time.Duration
	Advertise Advertise
	// Passive waits for the neighbour's connection. Of two nodes of the mesh the
	// one with the higher address is passive, so that one session is tried, not two.
	Passive bool
}

// Path is one prefix that this node originates.
type Path struct {
	Prefix netip.Prefix
	Kind   Advertise // Blocks or Hosts, exactly one
}

// Learned is what the neighbours now say about one prefix: the best paths,
// several where they are equal. No NextHops means the prefix was withdrawn.
type Learned struct {
	Prefix   netip.Prefix
	NextHops []netip.Addr // sorted, each once
	EBGP     bool         // best path came from another AS
}

// Session is the state of one peering, for people.
type Session struct {
	Peer        string // Peer.Name
	Addr        netip.Addr
	ASN         uint32
	Established bool
	State       string // RFC 4271 name: Idle, Connect, Active, OpenSent, OpenConfirm, Established
	Since       time.Time
	Received    int    // prefixes in Adj-RIB-In
	Advertised  int    // prefixes in Adj-RIB-Out
	LastError   string // in words, empty while all is well
}
