package v1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Tier is a group of policies that are asked together. Tiers are asked by
// their order; a policy's Pass goes on with the next tier. Three tiers are
// always there and keep their place: kube-admin (order 1000) and
// kube-baseline (10000000) for Kubernetes' ClusterNetworkPolicies, and between
// them default (1000000) for NetworkPolicies.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,path=tiers,singular=tier,categories=korat
// +kubebuilder:printcolumn:name="Order",type=number,JSONPath=`.spec.order`,description="Place among the tiers, empty for last."
// +kubebuilder:printcolumn:name="DefaultAction",type=string,JSONPath=`.spec.defaultAction`,description="What becomes of packets of which no policy of the tier says anything."
// +kubebuilder:printcolumn:name="Policies",type=integer,JSONPath=`.status.policies`,description="Policies in the tier."
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule=`self.metadata.name.matches('^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$')`,messageExpression=`'metadata.name is "' + self.metadata.name + '", expected at most 63 lower case letters, digits and -, as policies name their tier'`
// +kubebuilder:validation:XValidation:rule=`self.metadata.name != 'kube-admin' || has(self.spec.order) && self.spec.order == 1000.0`,message="the place of this tier is fixed, expected 1000",fieldPath=".spec.order"
// +kubebuilder:validation:XValidation:rule=`self.metadata.name != 'default' || has(self.spec.order) && self.spec.order == 1000000.0`,message="the place of this tier is fixed, expected 1000000",fieldPath=".spec.order"
// +kubebuilder:validation:XValidation:rule=`self.metadata.name != 'kube-baseline' || has(self.spec.order) && self.spec.order == 10000000.0`,message="the place of this tier is fixed, expected 10000000",fieldPath=".spec.order"
// +kubebuilder:validation:XValidation:rule=`!(self.metadata.name in ['kube-admin', 'kube-baseline']) || self.spec.defaultAction == 'Pass'`,message="the action of this tier is fixed, expected Pass",fieldPath=".spec.defaultAction"
// +kubebuilder:validation:XValidation:rule=`self.metadata.name != 'default' || self.spec.defaultAction == 'Deny'`,message="the action of this tier is fixed, expected Deny",fieldPath=".spec.defaultAction"
type Tier struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is where the tier stands and how it ends.
	Spec TierSpec `json:"spec"`

	// Status is what the tier holds, written by the controller.
	// +optional
	Status TierStatus `json:"status,omitempty"`
}

// TierSpec is where a tier stands and how it ends.
type TierSpec struct {
	// Order places the tier: smaller numbers are asked first, equal ones by
	// name. Default: after every tier that has an order.
	// +optional
	Order *float64 `json:"order,omitempty"`

	// DefaultAction is what becomes of a packet if policies of the tier select
	// the endpoint in its direction and none of their rules decides: Deny, or
	// Pass, to go on with the next tier. Default Deny.
	// +optional
	// +kubebuilder:default=Deny
	DefaultAction TierAction `json:"defaultAction,omitempty"`
}

// TierAction is how a tier ends.
//
// +kubebuilder:validation:Enum=Deny;Pass
type TierAction string

// The ways a tier ends.
const (
	// TierDeny drops the packet.
	TierDeny TierAction = "Deny"
	// TierPass asks the next tier.
	TierPass TierAction = "Pass"
)

// TierStatus is what a tier holds.
type TierStatus struct {
	// Conditions of the tier. Accepted: the spec is in use.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// Policies is how many policies name the tier.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Policies int32 `json:"policies"`
}

// TierList is a list of tiers.
//
// +kubebuilder:object:root=true
type TierList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	// Items are the tiers, in no particular order.
	Items []Tier `json:"items"`
}
