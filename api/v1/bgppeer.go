package v1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// BGPPeer is a BGP speaker that nodes talk to, together with these nodes. It is
// outside the cluster, such as the router of a rack (address or interface), or
// it is other nodes (peerSelector). Each selected node holds a session with it. A
// node of the same AS speaks iBGP, any other eBGP.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,path=bgppeers,singular=bgppeer,shortName=bgpp,categories=korat
// +kubebuilder:printcolumn:name="Address",type=string,JSONPath=`.spec.address`
// +kubebuilder:printcolumn:name="AS",type=integer,JSONPath=`.spec.asNumber`
// +kubebuilder:printcolumn:name="Nodes",type=string,JSONPath=`.spec.nodeSelector`,description="Selector of the nodes that talk to the peer, empty for all."
// +kubebuilder:printcolumn:name="Advertise",type=string,JSONPath=`.spec.advertise`
// +kubebuilder:printcolumn:name="Established",type=string,JSONPath=`.status.sessions`,description="Sessions established / wanted."
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`,priority=1
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Established")].reason`,priority=1
// +kubebuilder:printcolumn:name="Port",type=integer,JSONPath=`.spec.port`,priority=1
// +kubebuilder:printcolumn:name="Hold",type=string,JSONPath=`.spec.holdTime`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type BGPPeer struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is who the peer is and who talks to it about what.
	Spec BGPPeerSpec `json:"spec"`

	// Status is how many sessions with the peer are up, written by the
	// controller.
	// +optional
	Status BGPPeerStatus `json:"status,omitempty"`
}

// BGPPeerSpec is who a peer is, which nodes talk to it and what they announce.
//
// +kubebuilder:validation:XValidation:rule=`[has(self.address), has(self.interface), has(self.peerSelector)].exists_one(x, x)`,message="expected one of address, interface and peerSelector"
// +kubebuilder:validation:XValidation:rule=`!has(self.address) || has(self.asNumber)`,message="asNumber is not set, expected the AS of the peer at address"
// +kubebuilder:validation:XValidation:rule=`!has(self.peerSelector) || !has(self.asNumber)`,message="asNumber is set, expected none with peerSelector: nodes have their own",fieldPath=".asNumber"
// +kubebuilder:validation:XValidation:rule=`!has(self.ttl) || !has(self.ttlSecurity)`,message="both ttl and ttlSecurity are set, expected one: packets of ttlSecurity have a TTL of 255",fieldPath=".ttl"
// +kubebuilder:validation:XValidation:rule=`!has(self.reachableBy) || has(self.address)`,message="reachableBy is set without address, expected both",fieldPath=".reachableBy"
// +kubebuilder:validation:XValidation:rule=`!has(self.reachableBy) || !has(self.address) || !isIP(self.reachableBy) || !isIP(self.address) || ip(self.reachableBy).family() == ip(self.address).family() && self.reachableBy != self.address`,messageExpression=`'"' + self.reachableBy + '" leads not to address "' + self.address + '", expected a gateway of the same family'`,fieldPath=".reachableBy"
// +kubebuilder:validation:XValidation:rule=`!has(self.addPaths) || !self.addPaths || !has(self.addPathsCapability) || self.addPathsCapability == 'Enabled'`,message="addPaths is true without the capability, expected addPathsCapability Enabled",fieldPath=".addPaths"
// +kubebuilder:validation:XValidation:rule=`!has(self.keepaliveTime) || !has(self.holdTime) || self.holdTime == duration('0s') || self.keepaliveTime < self.holdTime`,message="keepaliveTime is not less than holdTime (default 90s), expected about a third of it",fieldPath=".keepaliveTime"
// +kubebuilder:validation:XValidation:rule=`!has(self.keepaliveTime) || !has(self.holdTime) || self.holdTime != duration('0s')`,message="keepaliveTime is set, expected none, because a holdTime of 0s turns keepalives off",fieldPath=".keepaliveTime"
type BGPPeerSpec struct {
	// NodeSelector chooses the nodes that talk to this peer by their labels,
	// for example "rack == 'a'". Empty, the default, is all nodes. A selector
	// that does not parse makes the peer not Accepted, and no node talks to
	// it.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	NodeSelector string `json:"nodeSelector,omitempty"`

	// PeerSelector makes other nodes the peer: every node that NodeSelector
	// chooses has a session with every node that this chooses, by its labels, and
	// each of both does its part. "all()" is all nodes. One that does not parse
	// makes the peer not Accepted.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	PeerSelector string `json:"peerSelector,omitempty"`

	// Interface makes the peer the router that advertises itself on this
	// interface of the node (RFC 4861): no address is configured on either side,
	// and next hops of both families are its link-local address (RFC 8950).
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=15
	// +kubebuilder:validation:Pattern=`^[^\s/:*]+$`
	Interface string `json:"interface,omitempty"`

	// Address is the IP address of the peer, IPv4 or IPv6 in canonical form.
	// Loopback, link-local and multicast addresses are refused.
	// +optional
	// +kubebuilder:validation:MaxLength=39
	// +kubebuilder:validation:XValidation:rule=`isIP(self)`,message="not an IP address, expected one such as 192.168.1.1 or fd00:1::1"
	// +kubebuilder:validation:XValidation:rule=`!isIP(self) || ip.isCanonical(self)`,message="not in canonical form, expected lower case and the longest run of zero groups as ::"
	// +kubebuilder:validation:XValidation:rule=`!isIP(self) || ip(self).isGlobalUnicast()`,message="unspecified, loopback, link-local or multicast, expected an address that nodes can reach"
	Address string `json:"address,omitempty"`

	// Port is the TCP port of the peer: 1 to 65535. Default 179.
	// +optional
	// +kubebuilder:default=179
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port,omitempty"`

	// ASNumber is the AS of the peer. A session with a peer that says another
	// one does not come up. Required with address; without it at an interface,
	// any AS but the node's own is taken; none with peerSelector.
	// +optional
	ASNumber ASNumber `json:"asNumber,omitempty"`

	// LocalASNumber is the AS that nodes call themselves to this peer. Default:
	// their own.
	// +optional
	LocalASNumber ASNumber `json:"localASNumber,omitempty"`

	// Advertise says what nodes announce to the peer: Blocks, one route for each
	// block that the node owns; Hosts, one route for each pod on the node;
	// Services, addresses of services as the BGPConfiguration allows them. An
	// empty list is nothing but what BGPAdvertisements say. Default [Blocks].
	// +optional
	// +kubebuilder:default={Blocks}
	// +listType=set
	// +kubebuilder:validation:MaxItems=3
	Advertise []Advertise `json:"advertise"`

	// Filters are names of BGPFilters, asked in order about what the peer says
	// and is told. While one of them does not exist or is not Accepted, there is
	// no session. At most 16.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	Filters []string `json:"filters,omitempty"`

	// Password is that of the session (RFC 2385), from a Secret in the namespace
	// of the agents. When it changes the session begins anew, no other does. While
	// it cannot be read there is no session. Default: none.
	// +optional
	Password *SecretKey `json:"password,omitempty"`

	// Families are those of which routes are exchanged: IPv4, IPv6 or both.
	// Default: that of the session's addresses, or both at an interface.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=2
	Families []IPFamily `json:"families,omitempty"`

	// SourceAddress says where sessions come from. NodeIP, the default: from the
	// address of the node. None: from whatever the kernel chooses.
	// +optional
	// +kubebuilder:default=NodeIP
	// +kubebuilder:validation:Enum=NodeIP;None
	SourceAddress SourceAddress `json:"sourceAddress,omitempty"`

	// ReachableBy is a gateway: nodes get a route to address through it. Default:
	// none, because nodes reach the peer anyway.
	// +optional
	ReachableBy IPAddress `json:"reachableBy,omitempty"`

	// NextHop says which next hop the peer is told of routes that a node passes
	// on. Auto, the default: that of RFC 4271. Self: the node. Keep: as it was
	// learned, which a reflector needs that has eBGP peers among nodes.
	// +optional
	// +kubebuilder:default=Auto
	// +kubebuilder:validation:Enum=Auto;Self;Keep
	NextHop NextHopMode `json:"nextHop,omitempty"`

	// TTL is that of packets to the peer: 1 to 255. Default: 1 for an eBGP peer
	// on a link of the node, 64 for any other.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=255
	TTL int32 `json:"ttl,omitempty"`

	// TTLSecurity is how many hops away the peer may be, 1 to 254: what comes
	// from farther away is dropped (RFC 5082). The peer has to ask for it too.
	// Default: not asked for.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=254
	TTLSecurity int32 `json:"ttlSecurity,omitempty"`

	// AllowOwnAS is how often the node's AS may occur in the AS path of what the
	// peer says: 0 to 10. Racks that share an AS number need 1. Default 0.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=10
	AllowOwnAS int32 `json:"allowOwnAS,omitempty"`

	// ReplaceAS puts the node's AS in the place of the peer's own in what the peer
	// is told, for a peer that would refuse its own. Default false.
	// +optional
	ReplaceAS bool `json:"replaceAS,omitempty"`

	// RemovePrivateAS takes private AS numbers out of what the peer is told.
	// Default false.
	// +optional
	RemovePrivateAS bool `json:"removePrivateAS,omitempty"`

	// MaxPrefixes is how many prefixes a family the peer may announce: when there
	// are more, the session ends. 0, the default, is no limit.
	// +optional
	// +kubebuilder:validation:Minimum=0
	MaxPrefixes int32 `json:"maxPrefixes,omitempty"`

	// AddPaths: exchange several paths to a prefix, where the peer can (RFC 7911).
	// Default false.
	// +optional
	AddPaths bool `json:"addPaths,omitempty"`

	// AddPathsCapability says whether the peer is offered several paths to a prefix
	// at all (RFC 7911). Enabled, the default: what it tells is taken, and addPaths
	// says whether it is told several. Disabled: the capability is not sent, for a
	// peer that would refuse it or should tell its best path alone. When it changes
	// the session begins anew.
	// +optional
	// +kubebuilder:default=Enabled
	AddPathsCapability Switch `json:"addPathsCapability,omitempty"`

	// GracefulRestart replaces that of the BGPConfiguration for this peer.
	// +optional
	GracefulRestart *PeerGracefulRestart `json:"gracefulRestart,omitempty"`

	// BFD finds out within a second that the peer is dead (RFC 5880), where the
	// peer speaks it. Default: none.
	// +optional
	BFD *BFD `json:"bfd,omitempty"`

	// HoldTime is how long the session survives without a message from the
	// peer, in whole seconds: 0s (forever, without keepalives) or 3s to
	// 65535s. The smaller of the two sides' values counts. Default 90s.
	// +optional
	// +kubebuilder:default="90s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Format=duration
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}h)?([0-9]{1,5}m)?([0-9]{1,5}s)?$`
	// +kubebuilder:validation:MinLength=2
	// +kubebuilder:validation:MaxLength=16
	// +kubebuilder:validation:XValidation:rule=`self == duration('0s') || (self >= duration('3s') && self <= duration('65535s'))`,message="expected 0s or 3s to 65535s"
	HoldTime *metav1.Duration `json:"holdTime,omitempty"`

	// KeepaliveTime is how often the node sends a sign of life, in whole
	// seconds from 1s, less than the hold time. Default: a third of the hold
	// time agreed on. Not to be set with a hold time of 0s.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Format=duration
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}h)?([0-9]{1,5}m)?([0-9]{1,5}s)?$`
	// +kubebuilder:validation:MinLength=2
	// +kubebuilder:validation:MaxLength=16
	// +kubebuilder:validation:XValidation:rule=`self >= duration('1s')`,message="expected at least 1s"
	KeepaliveTime *metav1.Duration `json:"keepaliveTime,omitempty"`
}

// Advertise is a sort of route that nodes announce to a peer.
//
// +kubebuilder:validation:Enum=Blocks;Hosts;Services
type Advertise string

// The sorts of routes that nodes announce.
const (
	// AdvertiseBlocks: one route for each block that the node owns.
	AdvertiseBlocks Advertise = "Blocks"
	// AdvertiseHosts: one route, /32 or /128, for each pod on the node.
	AdvertiseHosts Advertise = "Hosts"
	// AdvertiseServices: addresses of services that the node serves.
	AdvertiseServices Advertise = "Services"
)

// IPFamily is IPv4 or IPv6.
//
// +kubebuilder:validation:Enum=IPv4;IPv6
type IPFamily string

// The families.
const (
	FamilyIPv4 IPFamily = "IPv4"
	FamilyIPv6 IPFamily = "IPv6"
)

// SourceAddress says where sessions come from.
type SourceAddress string

// The values of BGPPeerSpec.SourceAddress.
const (
	SourceNodeIP SourceAddress = "NodeIP"
	SourceNone   SourceAddress = "None"
)

// NextHopMode says which next hop a peer is told.
type NextHopMode string

// The values of BGPPeerSpec.NextHop.
const (
	NextHopAuto NextHopMode = "Auto"
	NextHopSelf NextHopMode = "Self"
	NextHopKeep NextHopMode = "Keep"
)

// PeerGracefulRestart says how long one peer keeps routes while an agent
// restarts.
type PeerGracefulRestart struct {
	// RestartTime is how long the peer keeps a node's routes after its session is
	// lost, in whole seconds from 1s to 4095s. Default: that of the
	// BGPConfiguration.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Format=duration
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}h)?([0-9]{1,5}m)?([0-9]{1,5}s)?$`
	// +kubebuilder:validation:MinLength=2
	// +kubebuilder:validation:MaxLength=16
	// +kubebuilder:validation:XValidation:rule=`self >= duration('1s') && self <= duration('4095s')`,message="expected 1s to 4095s"
	RestartTime *metav1.Duration `json:"restartTime,omitempty"`

	// LongLivedStaleTime is how long the peer keeps them after that, but prefers
	// every other (RFC 9494), in whole seconds from 1s to 4660h. Default: that of
	// the BGPConfiguration.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Format=duration
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}h)?([0-9]{1,5}m)?([0-9]{1,5}s)?$`
	// +kubebuilder:validation:MinLength=2
	// +kubebuilder:validation:MaxLength=16
	// +kubebuilder:validation:XValidation:rule=`self >= duration('1s') && self <= duration('4660h')`,message="expected 1s to 4660h"
	LongLivedStaleTime *metav1.Duration `json:"longLivedStaleTime,omitempty"`
}

// BFD asks for a session of bidirectional forwarding detection beside the BGP
// session (RFC 5880, 5881, 5883).
type BFD struct {
	// TransmitInterval is the shortest time between packets that the node sends,
	// 10ms to 60s. Default 300ms.
	// +optional
	// +kubebuilder:default="300ms"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Format=duration
	// +kubebuilder:validation:Pattern=`^[0-9]{1,5}(ms|s)$`
	// +kubebuilder:validation:MaxLength=16
	// +kubebuilder:validation:XValidation:rule=`self >= duration('10ms') && self <= duration('60s')`,message="expected 10ms to 60s"
	TransmitInterval *metav1.Duration `json:"transmitInterval,omitempty"`

	// ReceiveInterval is the shortest time between packets that the node accepts,
	// 10ms to 60s. Default 300ms.
	// +optional
	// +kubebuilder:default="300ms"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Format=duration
	// +kubebuilder:validation:Pattern=`^[0-9]{1,5}(ms|s)$`
	// +kubebuilder:validation:MaxLength=16
	// +kubebuilder:validation:XValidation:rule=`self >= duration('10ms') && self <= duration('60s')`,message="expected 10ms to 60s"
	ReceiveInterval *metav1.Duration `json:"receiveInterval,omitempty"`

	// Multiplier is how many packets may be lost before the peer is down: 2 to
	// 50. Default 3.
	// +optional
	// +kubebuilder:default=3
	// +kubebuilder:validation:Minimum=2
	// +kubebuilder:validation:Maximum=50
	Multiplier int32 `json:"multiplier,omitempty"`

	// Hops is how many hops the peer may be away: 1, the default, is on a link of
	// the node; more is a multihop session (RFC 5883).
	// +optional
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=254
	Hops int32 `json:"hops,omitempty"`
}

// BGPPeerStatus is how many sessions with a peer are up. Each node's own view
// is in the sessions of its NodeNetwork.
type BGPPeerStatus struct {
	// Conditions of the peer. Accepted: the spec is in use. Established: every
	// selected node has a session.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// Sessions is how many sessions are established out of those desired, for
	// people: "2/2".
	// +optional
	// +kubebuilder:validation:MaxLength=32
	Sessions string `json:"sessions,omitempty"`

	// Established is how many nodes have a session with the peer.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Established int32 `json:"established"`

	// Desired is how many nodes should have one.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Desired int32 `json:"desired"`
}

// BGPPeerList is a list of peers.
//
// +kubebuilder:object:root=true
type BGPPeerList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	// Items are the peers, in no particular order.
	Items []BGPPeer `json:"items"`
}
