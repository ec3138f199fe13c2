package v1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// NetworkPolicy says what may talk to the pods of its namespace, and to what
// they may talk. Beyond Kubernetes' kind of the same name it knows tiers,
// order, Deny, Log and Pass, and it can be staged. kubectl takes the name of
// the kind for Kubernetes' own: say networkpolicies.korat.dev or knetpol.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Namespaced,path=networkpolicies,singular=networkpolicy,shortName=knetpol,categories=korat
// +kubebuilder:printcolumn:name="Tier",type=string,JSONPath=`.spec.tier`
// +kubebuilder:printcolumn:name="Order",type=number,JSONPath=`.spec.order`,description="Place in the tier, empty for last."
// +kubebuilder:printcolumn:name="Enforcement",type=string,JSONPath=`.spec.enforcement`
// +kubebuilder:printcolumn:name="Endpoints",type=integer,JSONPath=`.status.endpoints`,description="Endpoints that the policy selects."
// +kubebuilder:printcolumn:name="Programmed",type=string,JSONPath=`.status.programmed`,description="Nodes that have the policy in their kernel / nodes that need it."
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`,description="Whether every part of the spec is understood and in use."
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].reason`,priority=1
// +kubebuilder:printcolumn:name="Selector",type=string,JSONPath=`.spec.selector`,priority=1,description="Endpoints to which the policy applies, empty for all."
// +kubebuilder:printcolumn:name="Types",type=string,JSONPath=`.spec.types`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type NetworkPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is whom the policy selects and what its rules are.
	Spec NetworkPolicySpec `json:"spec"`

	// Status is what became of the policy, written by the controller.
	// +optional
	Status PolicyStatus `json:"status,omitempty"`
}

// NetworkPolicySpec is whom a policy of a namespace selects and what its rules
// are.
type NetworkPolicySpec struct {
	PolicySpec `json:",inline"`
}

// NetworkPolicyList is a list of policies.
//
// +kubebuilder:object:root=true
type NetworkPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	// Items are the policies, in no particular order.
	Items []NetworkPolicy `json:"items"`
}
