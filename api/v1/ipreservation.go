package v1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// IPReservation takes addresses out of IPPools: they are given to no pod, node or
// service that does not ask for the very address, and do not count as capacity.
// Pods that have one of them keep it. Use it for addresses that the network needs
// for itself, or that are meant for pods that ask for them by annotation.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,path=ipreservations,singular=ipreservation,shortName=ipr,categories=korat
// +kubebuilder:printcolumn:name="CIDRs",type=string,JSONPath=`.spec.cidrs`
// +kubebuilder:printcolumn:name="Addresses",type=string,JSONPath=`.status.addresses`,description="How many addresses of pools are reserved."
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type IPReservation struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is what is reserved.
	Spec IPReservationSpec `json:"spec"`

	// Status is what that means for the pools, written by the controller.
	// +optional
	Status IPReservationStatus `json:"status,omitempty"`
}

// IPReservationSpec is what is reserved.
type IPReservationSpec struct {
	// CIDRs are the ranges, single addresses as 10.244.0.1/32. They may lie in
	// pools or contain them.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	CIDRs []CIDR `json:"cidrs"`
}

// IPReservationStatus is what a reservation means for the pools.
type IPReservationStatus struct {
	// Conditions of the reservation. Accepted: it touches a pool.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// Addresses is how many addresses of pools the ranges cover, for people:
	// "12", or a power such as "2^64".
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Addresses string `json:"addresses,omitempty"`
}

// IPReservationList is a list of reservations.
//
// +kubebuilder:object:root=true
type IPReservationList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	// Items are the reservations, in no particular order.
	Items []IPReservation `json:"items"`
}
