// Package event holds the typed inputs of the engine: everything a node can
// learn from the API server, the CNI plugin and its BGP neighbours, as plain
// values. The letterboxes (felix/watch, felix/cniserver, bgp/reconcile) make
// them, felix/event/mailbox keeps the last one per key, felix/calc consumes them.
package event

import (
	"net/netip"
	"time"

	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/ipam"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
	"github.com/koratnet/korat/policy/selector"
)

// Kind is the type of thing that an event is about.
type Kind uint8

// The kinds. Names of keys: namespace/name for namespaced objects, name for
// cluster-wide ones, the prefix's text for LearnedKind, the host interface for
// EndpointKind and LocalInterfaceKind, policy.Key.String() for PolicyKind. NetworkSetKind has both
// namespaced and global sets.
const (
	PodKind Kind = iota
	NamespaceKind
	PolicyKind
	PoolKind
	BlockKind
	NodeKind
	NodeNetworkKind
	PeerKind
	BGPKind
	EndpointKind
	LearnedKind
	TierKind
	NetworkSetKind
	ServiceAccountKind
	EndpointSliceKind
	HostEndpointKind
	NodeConfigurationKind
	LocalInterfaceKind
	ProxyKind
	ReservationKind
	ServiceKind
	ReachKind
	TunnelAddressKind
	SecretKind
	FilterKind
	AdvertisementKind
	TunnelKeyKind
	TurnKind
)

// Key identifies a thing. A later event replaces an earlier one of the same Key.
type Key struct {
	Kind Kind
	Name string
}

// Value is the state of a thing: exactly one of the types of this package that
// are named after a Kind, by pointer, never changed after it was posted.
type Value interface{ kind() Kind }

// Event says that the thing Key now is Value, or is gone when Value is nil.
type Event struct {
	Key   Key
	Value Value
}

// Set makes the event that name now is v.
func Set(name string, v Value) Event { return Event{Key{v.kind(), name}, v} }

// Gone makes the event that the thing of kind k and name is no more.
func Gone(k Kind, name string) Event { return Event{Key: Key{k, name}} }

// Source is where events come from; each says once when it has told everything
// that it knew at its start. Nothing is removed from the kernel before that.
type Source uint8

// API is the API server (all watched kinds have been listed). CNI is the
// journal of local endpoints. Neighbours are the BGP peers: every one sent
// End-of-RIB or the restart timer ran out.
const (
	API Source = 1 << iota
	CNI
	Neighbours
)

// Pod is a pod as the API server knows it. Pods on the host network and pods
// that have finished are no endpoints: no Pod event is made for them.
type Pod struct {
	Namespace, Name string
	Node            string
	Addrs           []netip.Addr // status.podIPs, as far as known
	Labels          selector.Labels
	UID             UID    // as the CNI plugin is told it
	Account         string // name of its service account; empty if none is known
	Ports           []policy.NamedPort
	// Annotations are those of Korat, by their whole names. The engine does not
	// look at them.
	Annotations map[string]string
	Floating    *Floating // nil: it asks for none, as most
}

// Floating is what a pod asks for in its annotation of that name.
type Floating struct {
	Addrs   []netip.Addr // ascending
	Created int64        // when the pod was, in seconds since 1970: the older of two has the address
}

// Namespace is a namespace with its labels.
type Namespace struct {
	Name        string
	Labels      selector.Labels
	Annotations map[string]string // as a Pod's
}

// ServiceAccount is a service account with its labels.
type ServiceAccount struct {
	Namespace, Name string
	Labels          selector.Labels
}

// NetworkSet is a network set, of a namespace or global.
type NetworkSet struct{ policy.NetworkSet }

// EndpointSlice is a part of the endpoints of a service, ready or not: each of
// the addresses serves each of the ports.
type EndpointSlice struct {
	Service policy.ServiceName
	Addrs   []netip.Addr
	Ports   []policy.NamedPort
	// Backends are sorted by node, each node once.
	Backends []Backend
}

// HostEndpoint is a host endpoint of any node.
type HostEndpoint struct{ policy.HostEndpoint }

// Tier is a tier of policies.
type Tier struct{ policy.Tier }

// Policy is a converted policy.
type Policy struct{ *policy.Policy }

// Pool is an IP pool.
type Pool struct {
	ipam.Pool
	Masquerade bool // its pods hide behind their node when they leave the cluster
	Modes      PoolModes
	Encrypted  bool // packets to and from its pods never travel in clear
	Deleting   bool // it goes when nobody has an address of it any more
	Silent     bool // nodes alone are told of it, and peers that an Advertisement names
}

// Block is a block with its owner. The engine does not look at its standing.
type Block struct {
	ipam.Block
	Standing ipam.Standing
}

// Reservation is what an IPReservation takes from pools. The engine does not look at it.
type Reservation struct {
	Name string
	Nets []netip.Prefix
}

// Node is what the Kubernetes Node object says.
type Node struct {
	Name   string
	UID    string
	Labels selector.Labels
	Addrs  []netip.Addr // InternalIPs
	Others []netip.Addr // its further addresses, which only policies ask for
	// Draining: its annotation asks to lead traffic away from it. Cordoned: it
	// takes no new pods.
	Draining, Cordoned bool
}

// Endpoint is a pod's attachment on this node, as the CNI plugin made it.
type Endpoint struct {
	Handle    ipam.Handle
	UID       UID            // of the pod; not known of what an earlier version attached
	Interface string         // host side of the veth
	Addrs     []netip.Addr   // at most one of each family
	Sources   []netip.Prefix // from which it may send beside Addrs
	Rates     desired.Rates
	// Generation differs between two attachments that reuse Interface; felix/status
	// reports the generation that the kernel has.
	Generation uint64
}

// NodeConfiguration is what an object of that kind says of nodes. Of a field
// that is nil it says nothing.
type NodeConfiguration struct {
	Name  string
	Nodes *selector.Selector // over Node labels; nil selects all

	Backend                 *desired.Backend
	Flavour                 *desired.Flavour
	Marks                   *uint32
	PodToHost               *policy.Action
	Invalid                 *policy.Action
	Recheck                 *bool
	FailsafeIn, FailsafeOut *[]desired.Failsafe
	Masquerade              MasqueradeConfiguration
	Loops                   *policy.Action
	DropRecords             *bool
	MTU                     *int
	ClampMSS, PodTunnels    *bool
	TunnelSources           *[]netip.Prefix
	TunnelOffload           *desired.TunnelOffload
	NodeCondition           *bool
	Encryption              EncryptionConfiguration
}

// Encryption says which packets to pods of other nodes, and between pods and other
// nodes, are encrypted.
type Encryption uint8

// The modes: none but those of pools that require it, those to nodes that take
// them, or all, so that nothing travels in clear.
const (
	Disabled Encryption = iota
	Preferred
	Required
)

// EncryptionConfiguration is what a NodeConfiguration says of encryption. Of a field
// that is nil it says nothing.
type EncryptionConfiguration struct {
	Mode         *Encryption
	Port4, Port6 *uint16 // around packets of IPv4 and of IPv6
	Rotation     *time.Duration
	Odd4, Odd6   *uint16 // ports of the second ends
	Hosts        *bool   // what nodes send each other too, if Mode is not Disabled
}

// MasqueradeConfiguration is what a NodeConfiguration says of how pods leave the
// cluster. Of a field that is nil it says nothing.
type MasqueradeConfiguration struct {
	To          *[]netip.Addr // at most one of each family
	Ports       *ir.PortRange
	InsideNodes *bool           // nodes are inside the cluster
	InsideNets  *[]netip.Prefix // what else is
}

// Proxy is what kube-proxy has in the kernel of this node. It decides which
// backend desired.Auto is; the name of its Key does not matter.
type Proxy struct {
	NFTables bool // its table of nf_tables
}

// LocalInterface is a network interface of this node that is not a pod's.
type LocalInterface struct {
	Name  string
	Addrs []netip.Addr
}

// Learned is what the BGP neighbours say about a prefix.
type Learned struct{ bgp.Learned }

func (*Pod) kind() Kind               { return PodKind }
func (*Namespace) kind() Kind         { return NamespaceKind }
func (*Policy) kind() Kind            { return PolicyKind }
func (*Pool) kind() Kind              { return PoolKind }
func (*Block) kind() Kind             { return BlockKind }
func (*Reservation) kind() Kind       { return ReservationKind }
func (*Node) kind() Kind              { return NodeKind }
func (*Endpoint) kind() Kind          { return EndpointKind }
func (*Learned) kind() Kind           { return LearnedKind }
func (*Tier) kind() Kind              { return TierKind }
func (*NetworkSet) kind() Kind        { return NetworkSetKind }
func (*ServiceAccount) kind() Kind    { return ServiceAccountKind }
func (*EndpointSlice) kind() Kind     { return EndpointSliceKind }
func (*HostEndpoint) kind() Kind      { return HostEndpointKind }
func (*NodeConfiguration) kind() Kind { return NodeConfigurationKind }
func (*LocalInterface) kind() Kind    { return LocalInterfaceKind }
func (*Proxy) kind() Kind             { return ProxyKind }
