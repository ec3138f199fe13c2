package v1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// BGPFilter says what nodes take from BGP peers and what these are told, beyond
// what Korat itself demands. BGPPeers name the filters that they use. The first
// rule that matches decides; where none does, the route is treated as without
// filters. A change applies at once and resets no session.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,path=bgpfilters,singular=bgpfilter,shortName=bgpf,categories=korat
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Peers",type=integer,JSONPath=`.status.peers`,description="BGPPeers that name the filter."
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type BGPFilter struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is the rules.
	Spec BGPFilterSpec `json:"spec"`

	// Status is whether the filter is in use, written by the controller.
	// +optional
	Status BGPFilterStatus `json:"status,omitempty"`
}

// BGPFilterSpec is the rules of a filter.
type BGPFilterSpec struct {
	// Import are the rules for what a peer says, in order. At most 64.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	Import []BGPFilterRule `json:"import,omitempty"`

	// Export are the rules for what a peer is told, in order. At most 64.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	Export []BGPFilterRule `json:"export,omitempty"`
}

// BGPFilterRule matches when all of its conditions do; one without conditions
// always does.
//
// +kubebuilder:validation:XValidation:rule=`!has(self.set) || self.action == 'Accept'`,message="set on a rule that rejects, expected action Accept",fieldPath=".set"
type BGPFilterRule struct {
	// Action is what becomes of a route that matches: Accept or Reject.
	// +required
	// +kubebuilder:validation:Enum=Accept;Reject
	Action FilterAction `json:"action"`

	// Family: the route is of this one. Default: of any.
	// +optional
	Family IPFamily `json:"family,omitempty"`

	// Prefixes: the route's prefix is one of these. At most 64. Default: any.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Prefixes []PrefixMatch `json:"prefixes,omitempty"`

	// NotPrefixes: the route's prefix is none of these. At most 64.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	NotPrefixes []PrefixMatch `json:"notPrefixes,omitempty"`

	// Source: who said the route first. Own: this node. Learned: some peer.
	// Default: anybody.
	// +optional
	// +kubebuilder:validation:Enum=Own;Learned
	Source RouteSource `json:"source,omitempty"`

	// Interfaces: the next hop is on an interface with one of these names, in
	// which * stands for any characters. At most 16.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=15
	Interfaces []string `json:"interfaces,omitempty"`

	// PeerType: the session is of this type, IBGP or EBGP. Default: of any.
	// +optional
	// +kubebuilder:validation:Enum=IBGP;EBGP
	PeerType PeerType `json:"peerType,omitempty"`

	// Communities: the route has all of these. At most 16.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Communities []Community `json:"communities,omitempty"`

	// ASPathPrefix: the AS path begins with these, the nearest AS first. At most
	// 16.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	ASPathPrefix []ASNumber `json:"asPathPrefix,omitempty"`

	// Set changes a route that is accepted.
	// +optional
	Set *RouteOperations `json:"set,omitempty"`
}

// PrefixMatch is prefixes inside of one. Without lengths it is the CIDR itself.
// Lengths that no prefix inside of the CIDR has make the filter not Accepted.
//
// +kubebuilder:validation:XValidation:rule=`!has(self.minLength) || !has(self.maxLength) || self.minLength <= self.maxLength`,message="greater than maxLength, expected at most that",fieldPath=".minLength"
type PrefixMatch struct {
	// CIDR that the prefix lies in.
	// +required
	CIDR Net `json:"cidr"`

	// MinLength is the least prefix length. Default: that of the CIDR.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=128
	MinLength *int32 `json:"minLength,omitempty"`

	// MaxLength is the greatest prefix length. Default: with minLength, 32 or 128
	// by the family; else the length of the CIDR.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=128
	MaxLength *int32 `json:"maxLength,omitempty"`
}

// RouteOperations change a route. What is removed is removed first.
type RouteOperations struct {
	// AddCommunities are given to the route. At most 16.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	AddCommunities []Community `json:"addCommunities,omitempty"`

	// RemoveCommunities are taken from the route. At most 16.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	RemoveCommunities []Community `json:"removeCommunities,omitempty"`

	// PrependASPath are put before the AS path, the first outermost. At most 10.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=10
	PrependASPath []ASNumber `json:"prependASPath,omitempty"`

	// LocalPreference of the route: 0 to 4294967295. The greatest wins; 100 is
	// that of routes that have none.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=4294967295
	LocalPreference *int64 `json:"localPreference,omitempty"`

	// MED is the multi-exit discriminator of the route: 0 to 4294967295. The
	// least wins.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=4294967295
	MED *int64 `json:"med,omitempty"`
}

// Community is one of RFC 1997, such as 65000:120, or a large one of RFC 8092,
// such as 65000:1:120.
//
// +kubebuilder:validation:MaxLength=32
// +kubebuilder:validation:XValidation:rule=`self.matches('^[0-9]{1,5}:[0-9]{1,5}$') ? self.split(':').all(p, int(p) <= 65535) : self.matches('^[0-9]{1,10}:[0-9]{1,10}:[0-9]{1,10}$') && self.split(':').all(p, int(p) <= 4294967295)`,message="expected a community such as 65000:120, with numbers to 65535, or a large one such as 65000:1:120, with numbers to 4294967295"
type Community string

// FilterAction is what becomes of a route.
type FilterAction string

// The actions of a BGPFilterRule.
const (
	FilterAccept FilterAction = "Accept"
	FilterReject FilterAction = "Reject"
)

// RouteSource is who said a route first.
type RouteSource string

// The values of BGPFilterRule.Source.
const (
	SourceOwn     RouteSource = "Own"
	SourceLearned RouteSource = "Learned"
)

// PeerType is the type of a session.
type PeerType string

// The values of BGPFilterRule.PeerType.
const (
	PeerTypeIBGP PeerType = "IBGP"
	PeerTypeEBGP PeerType = "EBGP"
)

// BGPFilterStatus says whether a filter is in use.
type BGPFilterStatus struct {
	// Conditions of the filter. Accepted: peers use it as it is written.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// Peers is how many BGPPeers name the filter.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Peers int32 `json:"peers"`
}

// BGPFilterList is a list of filters.
//
// +kubebuilder:object:root=true
type BGPFilterList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	// Items are the filters, in no particular order.
	Items []BGPFilter `json:"items"`
}
