// Package bgp is the vocabulary of what Korat says to and hears from BGP
// neighbours. It knows no speaker: bgp/gobgp implements one, bgp/reconcile
// keeps it as desired, felix/calc computes what is desired.
package bgp

import (
	"cmp"
	"net/netip"
	"reflect"
	"time"
)

// Advertise is the set of path kinds that a peer is told.
type Advertise uint8

// The kinds of path that a node originates.
const (
	// Blocks are aggregates: the address blocks that the node owns.
	Blocks Advertise = 1 << iota
	// Hosts are the /32 and /128 of each local pod.
	Hosts
	// Services are addresses and ranges of services that the node serves.
	Services
	// Prefixes are those that a BGPAdvertisement names.
	Prefixes
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
	// LongLived is how long peers keep our paths, less preferred, after the
	// restart time is over (RFC 9494), whole seconds. 0: not asked for.
	LongLived time.Duration
	// ClusterID is valid if the node reflects routes to those Peers that are
	// ReflectorClients (RFC 4456).
	ClusterID netip.Addr
	// Draining: traffic is to leave this node. All that is told carries the
	// community GRACEFUL_SHUTDOWN and the lowest local preference (RFC 8326).
	Draining       bool
	Filters        []Filter        // sorted by Name; those that Peers name
	Advertisements []Advertisement // sorted by Name; those that Peers name
	Peers          []Peer          // sorted by Addr and Interface, each pair once
}

// Equal reports whether c and o configure the same speaker.
func (c Config) Equal(o Config) bool { return reflect.DeepEqual(c, o) }

// Peer is one neighbour.
type Peer struct {
	// Name is what the user knows the peer by: "bgppeer/NAME" or, in the
	// mesh, "nodenetwork/NAME".
	Name string
	Addr netip.Addr
	// Interface makes the peer unnumbered: the router that advertises itself on
	// this link is called (RFC 4861, RFC 8950). Addr is the zero Addr then.
	Interface string
	Port      uint16
	ASN       uint32     // equal to Config.ASN: an iBGP session. 0: whatever AS but ours an unnumbered neighbour says
	LocalASN  uint32     // the AS that we call ourselves to this peer, 0: Config.ASN
	LocalAddr netip.Addr // source of the session, and next hop of what we originate. Zero: the kernel's choice
	// NextHop6 and NextHop4 are the next hops for paths of the family that is not
	// the session's; a valid NextHop4 or NextHop6 is this node's address of that family.
	NextHop4, NextHop6 netip.Addr
	Hold, Keepalive    time.Duration
	// RestartTime and LongLived replace Config's for this peer, 0: no difference.
	RestartTime, LongLived time.Duration
	Advertise              Advertise
	// Advertisements are names in Config.Advertisements, sorted: the peer is told
	// the paths that belong to them.
	Advertisements []string
	// Import and Export are names in Config.Filters, asked in order.
	Import, Export []string
	// Families that the session carries, 0: that of its addresses.
	Families Families
	Password Password // of RFC 2385, empty: none
	// TTL is the time to live of what we send, for eBGP over routers. 0: found out.
	TTL uint8
	// GTSM is the number of hops that the peer may be away: what arrives with a
	// lower TTL than 256-GTSM is dropped (RFC 5082). 0: not asked for.
	GTSM uint8
	// AllowOwnAS is how often our AS may occur in a path from the peer.
	AllowOwnAS uint8
	// MaxPrefixes ends the session when the peer announces more a family. 0: no limit.
	MaxPrefixes uint32
	NextHop     NextHop
	// ReflectorClient: the peer is told what others said, as Config.ClusterID says.
	ReflectorClient bool
	// ReplaceAS puts our AS in the place of the peer's own in what it is told, for
	// racks that share an AS number. RemovePrivateAS takes private ones out.
	ReplaceAS, RemovePrivateAS bool
	// AddPaths: tell several paths a prefix (RFC 7911), where the peer takes them. Only
	// a reflector has several. What the peer tells is taken without it too.
	AddPaths bool
	// OnePath: RFC 7911 is not offered, and the session carries one path a prefix in
	// both directions, whatever AddPaths says.
	OnePath bool
	BFD     BFD
	// Passive waits for the neighbour's connection. Of two nodes of the mesh the
	// one with the higher address is passive, so that one session is tried, not two.
	Passive bool
}

// Families is a set of address families.
type Families uint8

// The families that a session can carry.
const (
	IPv4 Families = 1 << iota
	IPv6
)

// NextHop is what a peer is told as the next hop of paths that others said:
// of a reflector's, since a node originates all else.
type NextHop uint8

const (
	// NextHopAuto keeps it to iBGP peers and sets our own to eBGP peers (RFC 4271).
	NextHopAuto NextHop = iota
	// NextHopSelf is always our own.
	NextHopSelf
	// NextHopKeep is always the one we learned.
	NextHopKeep
)

// Password is a secret that does not print.
type Password string

// String hides the password from logs.
func (p Password) String() string {
	if p == "" {
		return ""
	}
	return "(hidden)"
}

// GoString hides the password from logs.
func (p Password) GoString() string { return p.String() }

// MarshalText hides the password from structured logs and from status.
func (p Password) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// BFD asks for a BFD session beside the BGP session (RFC 5880, 5881, 5883). The
// zero BFD asks for none.
type BFD struct {
	Enabled bool
	// Transmit and Receive are the shortest intervals between packets that we
	// send and accept; Multiplier is how many may be lost.
	Transmit, Receive time.Duration
	Multiplier        uint8
	// Multihop: the peer is not on the link (port 4784), and MinTTL is the least
	// time to live of its packets. On the link it is 255.
	Multihop bool
	MinTTL   uint8
}

// Advertisement is what paths that belong to it are told with.
type Advertisement struct {
	Name string // of the BGPAdvertisement
	Attributes
}

// Attributes are added to a path when it is told.
type Attributes struct {
	Communities      []Community
	LargeCommunities []LargeCommunity
	LocalPref        *uint32 // to iBGP peers; nil: 100
	MED              *uint32 // nil: none
}

// Community is one of RFC 1997: AS in the upper half, value in the lower.
type Community uint32

// LargeCommunity is one of RFC 8092.
type LargeCommunity struct{ Global, Local1, Local2 uint32 }

// GracefulShutdown is the community of RFC 8326.
const GracefulShutdown Community = 65535 << 16

// Filter decides what is taken from a peer and what it is told, beyond what
// Korat itself demands. The first rule that matches decides; where no rule of
// any filter matches, a path is treated as without filters.
type Filter struct {
	Name           string // of the BGPFilter
	Import, Export []FilterRule
}

// FilterRule matches when all of its conditions do; an empty one always does.
type FilterRule struct {
	Families Families // 0: both
	// Prefixes: the path's prefix is one of these. NotPrefixes: is none of these.
	Prefixes, NotPrefixes []PrefixRange
	Source                Source
	// Interfaces are patterns with * of the links that the next hop is on.
	Interfaces       []string
	PeerType         PeerType
	Communities      []Community      // all of them
	LargeCommunities []LargeCommunity // all of them
	ASPath           []uint32         // the AS path begins so
	Accept           bool             // false: reject
	Set              Operations       // of what is accepted
}

// PrefixRange is the prefixes inside Prefix whose length is in [Min, Max].
type PrefixRange struct {
	Prefix   netip.Prefix
	Min, Max uint8
}

// Source is who said a path first.
type Source uint8

// The sources of paths.
const (
	SourceAny     Source = iota
	SourceOwn            // this node originates it
	SourceLearned        // a neighbour said it
)

// PeerType is the kind of session.
type PeerType uint8

// The kinds of session.
const (
	PeerAny PeerType = iota
	PeerInternal
	PeerExternal
)

// Operations change a path that a filter accepts.
type Operations struct {
	AddCommunities, RemoveCommunities           []Community
	AddLargeCommunities, RemoveLargeCommunities []LargeCommunity
	// Prepend are AS numbers, the first is leftmost. What another AS is told always
	// begins with our own AS: it is put before them if they do not begin with it.
	Prepend        []uint32
	LocalPref, MED *uint32 // a LocalPref of 0 may be told as 1
}

// Path is one prefix that this node originates.
type Path struct {
	Prefix netip.Prefix
	Kind   Advertise // exactly one
	// Advertisement is the name of the one that the path belongs to: peers that
	// name it are told, whatever kinds they are told otherwise. Empty: none, peers
	// are told by kind.
	Advertisement string
}

// Learned is what the neighbours now say about one prefix: the best paths,
// several where they are equal. No NextHops means the prefix was withdrawn.
type Learned struct {
	Prefix netip.Prefix
	// NextHops are sorted, each once. Of the other family where RFC 8950 is
	// spoken; a link-local one has its interface as zone.
	NextHops []netip.Addr
	// Weights are those of NextHops, 1 to 255, nil: all equal.
	Weights []uint8
}

// Route is a path as a neighbour told it or was told it, for people.
type Route struct {
	Peer             string // Peer.Name, empty: this node originates it
	Told             bool   // false: by the neighbour, true: to the neighbour
	Prefix           netip.Prefix
	NextHop          netip.Addr
	ASPath           []uint32
	Communities      []Community
	LargeCommunities []LargeCommunity
	LocalPref, MED   *uint32
	Best             bool   // in use, beside others that are equal
	Stale            bool   // kept over the neighbour's restart
	Rejected         string // why it is not used or told, such as "filter no-default rule 2"
}

// Routes asks for some of the paths. The zero Routes asks for all.
type Routes struct {
	Peer   string       // Peer.Name, empty: of all
	Prefix netip.Prefix // and all inside it; zero: all
}

// Wants reports whether r is asked for.
func (q Routes) Wants(r Route) bool {
	return (q.Peer == "" || q.Peer == r.Peer) && q.Within(r.Prefix)
}

// Within reports whether paths to p are asked for.
func (q Routes) Within(p netip.Prefix) bool {
	return !q.Prefix.IsValid() || q.Prefix.Bits() <= p.Bits() && q.Prefix.Contains(p.Addr())
}

// Compare orders routes by prefix, then what is said before what is told, then by
// peer and next hop.
func (r Route) Compare(o Route) int {
	told := func(r Route) int {
		if r.Told {
			return 1
		}
		return 0
	}
	return cmp.Or(
		r.Prefix.Compare(o.Prefix), cmp.Compare(told(r), told(o)),
		cmp.Compare(r.Peer, o.Peer), r.NextHop.Compare(o.NextHop),
	)
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
	Accepted    int    // prefixes of Received that the filters let in
	BFD         string // RFC 5880 state of its BFD session: Down, Init, Up, AdminDown; empty: none
}
