package v1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// BGPAdvertisement says what nodes announce to some BGPPeers beside what the
// peers' own advertise says, or with other attributes: blocks of pools, addresses
// of services, plain prefixes.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,path=bgpadvertisements,singular=bgpadvertisement,shortName=bgpadv,categories=korat
// +kubebuilder:printcolumn:name="Pools",type=string,JSONPath=`.spec.pools`
// +kubebuilder:printcolumn:name="Prefixes",type=string,JSONPath=`.spec.prefixes`
// +kubebuilder:printcolumn:name="Nodes",type=string,JSONPath=`.spec.nodeSelector`,description="Selector of the nodes that announce, empty for all."
// +kubebuilder:printcolumn:name="Peers",type=integer,JSONPath=`.status.peers`,description="BGPPeers that are told."
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type BGPAdvertisement struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is what is announced to whom.
	Spec BGPAdvertisementSpec `json:"spec"`

	// Status is whether the advertisement is in use, written by the controller.
	// +optional
	Status BGPAdvertisementStatus `json:"status,omitempty"`
}

// BGPAdvertisementSpec is what is announced to whom.
//
// +kubebuilder:validation:XValidation:rule=`has(self.pools) || has(self.services) || has(self.prefixes)`,message="nothing is announced, expected pools, services or prefixes"
// +kubebuilder:validation:XValidation:rule=`!has(self.aggregationLength) || has(self.services)`,message="aggregationLength is set without services, expected both",fieldPath=".aggregationLength"
// +kubebuilder:validation:XValidation:rule=`!has(self.aggregationLengthV6) || has(self.services)`,message="aggregationLengthV6 is set without services, expected both",fieldPath=".aggregationLengthV6"
type BGPAdvertisementSpec struct {
	// Pools are names of IPPools of which nodes announce the blocks that they
	// own, or their pods. At most 64.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	Pools []string `json:"pools,omitempty"`

	// PoolRoutes says what of the pools: Blocks, Hosts or both, as a BGPPeer does.
	// Default [Blocks].
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=2
	PoolRoutes []PoolRoutes `json:"poolRoutes,omitempty"`

	// Services are those whose addresses are announced by nodes that serve them.
	// Only addresses inside of the ranges of the BGPConfiguration are.
	// +optional
	Services *AdvertisedServices `json:"services,omitempty"`

	// Prefixes are announced by every node that NodeSelector chooses. The node
	// needs to know what to do with packets for them. At most 256.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=256
	Prefixes []CIDR `json:"prefixes,omitempty"`

	// PeerSelector chooses the BGPPeers that are told, by their labels. Their name
	// is the label korat.dev/name. Empty, the default, is all BGPPeers. One that
	// does not parse makes the advertisement not Accepted, and nobody is told.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	PeerSelector string `json:"peerSelector,omitempty"`

	// NodeSelector chooses the nodes that announce, by their labels. Empty, the
	// default, is all nodes. One that does not parse makes the advertisement not
	// Accepted, and nobody is told.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	NodeSelector string `json:"nodeSelector,omitempty"`

	// Communities are those of the routes. At most 16.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=16
	Communities []Community `json:"communities,omitempty"`

	// LocalPreference of the routes, for iBGP peers: 0 to 4294967295. Default 100.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=4294967295
	LocalPreference *int64 `json:"localPreference,omitempty"`

	// MED is the multi-exit discriminator of the routes: 0 to 4294967295.
	// Default: none.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=4294967295
	MED *int64 `json:"med,omitempty"`

	// AggregationLength is the prefix length to which IPv4 addresses of services
	// are announced: 8 to 32. Default 32.
	// +optional
	// +kubebuilder:validation:Minimum=8
	// +kubebuilder:validation:Maximum=32
	AggregationLength int32 `json:"aggregationLength,omitempty"`

	// AggregationLengthV6 is the same for IPv6: 16 to 128. Default 128.
	// +optional
	// +kubebuilder:validation:Minimum=16
	// +kubebuilder:validation:Maximum=128
	AggregationLengthV6 int32 `json:"aggregationLengthV6,omitempty"`
}

// PoolRoutes is a sort of routes of a pool.
//
// +kubebuilder:validation:Enum=Blocks;Hosts
type PoolRoutes string

// The sorts of routes of a pool.
const (
	PoolBlocks PoolRoutes = "Blocks"
	PoolHosts  PoolRoutes = "Hosts"
)

// AdvertisedServices are services whose addresses are announced.
type AdvertisedServices struct {
	// Selector chooses services by their labels. Empty, the default, is all. One
	// that does not parse makes the advertisement not Accepted.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Selector string `json:"selector,omitempty"`

	// Addresses says which of their addresses: ClusterIPs, ExternalIPs and
	// LoadBalancerIPs.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=3
	Addresses []ServiceAddresses `json:"addresses"`
}

// ServiceAddresses is a kind of address of services.
//
// +kubebuilder:validation:Enum=ClusterIPs;ExternalIPs;LoadBalancerIPs
type ServiceAddresses string

// The kinds of address of services.
const (
	ServiceClusterIPs      ServiceAddresses = "ClusterIPs"
	ServiceExternalIPs     ServiceAddresses = "ExternalIPs"
	ServiceLoadBalancerIPs ServiceAddresses = "LoadBalancerIPs"
)

// PeerNameLabel is the label of a BGPPeer that holds its name, for selectors.
const PeerNameLabel = "korat.dev/name"

// BGPAdvertisementStatus says whether an advertisement is in use.
type BGPAdvertisementStatus struct {
	// Conditions of the advertisement. Accepted: nodes use it as it is written.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// Nodes is how many nodes announce.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Nodes int32 `json:"nodes"`

	// Peers is how many BGPPeers are told.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Peers int32 `json:"peers"`
}

// BGPAdvertisementList is a list of advertisements.
//
// +kubebuilder:object:root=true
type BGPAdvertisementList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	// Items are the advertisements, in no particular order.
	Items []BGPAdvertisement `json:"items"`
}
