package v1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// BGPPeer is a BGP speaker outside the cluster, typically the router of a
// rack, together with the nodes that talk to it. Each selected node holds one
// session with it. A node of the same AS speaks iBGP, any other eBGP.
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

	// Address is the IP address of the peer, IPv4 or IPv6 in canonical form.
	// Loopback, link-local and multicast addresses are refused.
	// +required
	// +kubebuilder:validation:MaxLength=39
	// +kubebuilder:validation:XValidation:rule=`isIP(self)`,message="not an IP address, expected one such as 192.168.1.1 or fd00:1::1"
	// +kubebuilder:validation:XValidation:rule=`!isIP(self) || ip.isCanonical(self)`,message="not in canonical form, expected lower case and the longest run of zero groups as ::"
	// +kubebuilder:validation:XValidation:rule=`!isIP(self) || ip(self).isGlobalUnicast()`,message="unspecified, loopback, link-local or multicast, expected an address that nodes can reach"
	Address string `json:"address"`

	// Port is the TCP port of the peer: 1 to 65535. Default 179.
	// +optional
	// +kubebuilder:default=179
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port,omitempty"`

	// ASNumber is the AS of the peer. A session with a peer that says another
	// one does not come up.
	// +required
	ASNumber ASNumber `json:"asNumber"`

	// Advertise says what nodes announce to the peer: Blocks, one route for
	// each block that the node owns; Hosts, one route for each pod on the
	// node; or both. Default [Blocks].
	// +optional
	// +kubebuilder:default={Blocks}
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=2
	Advertise []Advertise `json:"advertise,omitempty"`

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
// +kubebuilder:validation:Enum=Blocks;Hosts
type Advertise string

// The sorts of routes that nodes announce.
const (
	// AdvertiseBlocks: one route for each block that the node owns.
	AdvertiseBlocks Advertise = "Blocks"
	// AdvertiseHosts: one route, /32 or /128, for each pod on the node.
	AdvertiseHosts Advertise = "Hosts"
)

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

	// Desired is how many nodes the selector chooses.
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
