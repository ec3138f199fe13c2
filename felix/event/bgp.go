package event

import (
	"net/netip"
	"time"

	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/policy/selector"
)

// NodeNetwork is what the NodeNetwork object says of a node.
type NodeNetwork struct {
	Name string
	ASN  uint32 // 0: the cluster's default
	// Group is the cluster id of the automatic reflectors that the node belongs
	// to, invalid: to none yet. Reflector: it is one of them.
	Group     netip.Addr
	Reflector bool
	// WireGuard are the ends of tunnels that its agent has told of.
	WireGuard []WireGuardEnd
}

// Peer is a BGPPeer object.
type Peer struct {
	Name   string
	Labels selector.Labels    // its own, and its name as a label
	Nodes  *selector.Selector // over Node labels; nil selects all
	// Others are the nodes that are the peer, when Session has neither address nor
	// interface; nil selects all.
	Others *selector.Selector
	// Session is what all nodes have in common of their sessions: nothing of one
	// node, and neither Name, Password, Import, Export nor Advertisements.
	Session bgp.Peer
	// FromNode: sessions come from the node's address. Else the kernel chooses.
	FromNode bool
	Password *SecretKey // nil: none
	Filters  []string   // names
	// Gateway is what leads to Session.Addr; invalid: nothing that Korat knows of.
	Gateway netip.Addr
}

// SecretKey is a value of a Secret.
type SecretKey struct{ Secret, Key string }

// Secret is a Secret of the agents' namespace that some Peer or BGP names.
type Secret struct {
	Name   string
	Values map[string]bgp.Password // by key
}

// Filter is a BGPFilter object.
type Filter struct {
	bgp.Filter
	// Problem is what of the object means nothing; a filter that has one lets
	// nothing pass. Empty: none.
	Problem string
}

// Advertisement is a BGPAdvertisement object.
type Advertisement struct {
	Name       string
	Nodes      *selector.Selector // that announce, over Node labels; nil selects all
	Peers      *selector.Selector // that are told, over Labels of Peers; nil selects all
	Pools      []string           // names
	PoolRoutes bgp.Advertise      // of these: bgp.Blocks, bgp.Hosts or both
	Prefixes   []netip.Prefix
	Services   *AdvertisedServices // nil: none
	bgp.Attributes
}

// AdvertisedServices are services whose addresses an Advertisement is about.
type AdvertisedServices struct {
	Labels                                   *selector.Selector // of Services; nil selects all
	ClusterIPs, ExternalIPs, LoadBalancerIPs bool
	Length4, Length6                         int // of the prefixes that are announced
}

// BGP is the cluster-wide BGPConfiguration "default". While it is unknown the
// defaults of api/v1 hold; felix/watch posts them.
type BGP struct {
	ASN         uint32
	Mesh        bool // iBGP between all nodes of one AS
	ListenPort  uint16
	RestartTime time.Duration
	LongLived   time.Duration
	Password    *SecretKey // of sessions between nodes; nil: none
	Reflectors  *Reflectors
	// DrainCordoned: an unschedulable node drains.
	DrainCordoned bool
	Services      ServiceRanges
	// Learn are ranges beside pools and Services of which routes are taken from
	// neighbours: of prefixes inside of them. 0.0.0.0/0 and ::/0 let in those
	// prefixes alone, default routes.
	Learn []netip.Prefix
	// RouteTable and RouteMetric are those of routes in the kernel; 0: the main
	// table, and what the kernel makes of no metric.
	RouteTable, RouteMetric uint32
}

// Reflectors says which nodes are route reflectors.
type Reflectors struct {
	// Automatic: those whose NodeNetwork says so. Else those that Nodes selects,
	// nil selects all, and ClusterID is theirs.
	Automatic bool
	Nodes     *selector.Selector
	ClusterID netip.Addr
}

func (*NodeNetwork) kind() Kind   { return NodeNetworkKind }
func (*Peer) kind() Kind          { return PeerKind }
func (*BGP) kind() Kind           { return BGPKind }
func (*Secret) kind() Kind        { return SecretKind }
func (*Filter) kind() Kind        { return FilterKind }
func (*Advertisement) kind() Kind { return AdvertisementKind }
