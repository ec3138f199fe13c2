package v1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// NetworkSet gives labels to addresses outside the cluster, so that selectors
// in rules find them. Policies of its namespace find it by selector alone,
// others by namespaceSelector too. No policy applies to a set.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Namespaced,path=networksets,singular=networkset,shortName=nset,categories=korat
// +kubebuilder:printcolumn:name="Nets",type=string,JSONPath=`.spec.nets`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type NetworkSet struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is which addresses are in the set.
	Spec NetworkSetSpec `json:"spec"`
}

// NetworkSetSpec is which addresses are in a set.
type NetworkSetSpec struct {
	// Nets are the ranges in the set, IPv4 and IPv6 as they come; they may
	// overlap each other and those of other sets. An address is written as a
	// range of one, such as 203.0.113.7/32. At most 50000, none is an empty
	// set.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=50000
	Nets []Net `json:"nets,omitempty"`
}

// NetworkSetList is a list of sets.
//
// +kubebuilder:object:root=true
type NetworkSetList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	// Items are the sets, in no particular order.
	Items []NetworkSet `json:"items"`
}

// GlobalNetworkSet gives labels to addresses outside the cluster, so that
// selectors in rules find them: those of GlobalNetworkPolicies, and those of
// NetworkPolicies whose namespaceSelector is "global()". No policy applies to
// a set.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,path=globalnetworksets,singular=globalnetworkset,shortName=gnset,categories=korat
// +kubebuilder:printcolumn:name="Nets",type=string,JSONPath=`.spec.nets`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type GlobalNetworkSet struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is which addresses are in the set.
	Spec NetworkSetSpec `json:"spec"`
}

// GlobalNetworkSetList is a list of sets.
//
// +kubebuilder:object:root=true
type GlobalNetworkSetList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	// Items are the sets, in no particular order.
	Items []GlobalNetworkSet `json:"items"`
}
