package v1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// GlobalNetworkPolicy says what may talk to endpoints anywhere in the cluster:
// pods of every namespace, and nodes where a HostEndpoint stands for them.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,path=globalnetworkpolicies,singular=globalnetworkpolicy,shortName=gnp,categories=korat
// +kubebuilder:printcolumn:name="Tier",type=string,JSONPath=`.spec.tier`
// +kubebuilder:printcolumn:name="Order",type=number,JSONPath=`.spec.order`,description="Place in the tier, empty for last."
// +kubebuilder:printcolumn:name="Enforcement",type=string,JSONPath=`.spec.enforcement`
// +kubebuilder:printcolumn:name="Endpoints",type=integer,JSONPath=`.status.endpoints`,description="Endpoints that the policy selects."
// +kubebuilder:printcolumn:name="Programmed",type=string,JSONPath=`.status.programmed`,description="Nodes that have the policy in their kernel / nodes that need it."
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`,description="Whether every part of the spec is understood and in use."
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].reason`,priority=1
// +kubebuilder:printcolumn:name="Selector",type=string,JSONPath=`.spec.selector`,priority=1,description="Endpoints to which the policy applies, empty for all."
// +kubebuilder:printcolumn:name="Namespaces",type=string,JSONPath=`.spec.namespaceSelector`,priority=1,description="Namespaces in which the policy applies, empty for all and for hosts."
// +kubebuilder:printcolumn:name="Types",type=string,JSONPath=`.spec.types`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type GlobalNetworkPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is whom the policy selects and what its rules are.
	Spec GlobalNetworkPolicySpec `json:"spec"`

	// Status is what became of the policy, written by the controller.
	// +optional
	Status PolicyStatus `json:"status,omitempty"`
}

// GlobalNetworkPolicySpec is whom a policy of the whole cluster selects, what
// its rules are, and at which point of a host's packet path it is asked.
//
// +kubebuilder:validation:XValidation:rule=`!has(self.doNotTrack) || !self.doNotTrack || has(self.applyOnForward) && self.applyOnForward`,message="doNotTrack concerns forwarded packets too, expected applyOnForward to be true",fieldPath=".doNotTrack"
// +kubebuilder:validation:XValidation:rule=`!has(self.preDNAT) || !self.preDNAT || has(self.applyOnForward) && self.applyOnForward`,message="preDNAT concerns forwarded packets too, expected applyOnForward to be true",fieldPath=".preDNAT"
// +kubebuilder:validation:XValidation:rule=`!has(self.preDNAT) || !self.preDNAT || !has(self.doNotTrack) || !self.doNotTrack`,message="preDNAT and doNotTrack are two points of the packet path, expected one of them",fieldPath=".preDNAT"
// +kubebuilder:validation:XValidation:rule=`!has(self.preDNAT) || !self.preDNAT || !has(self.types) || !('Egress' in self.types)`,message="packets that leave have no point before DNAT, expected no Egress with preDNAT",fieldPath=".types"
// +kubebuilder:validation:XValidation:rule=`!has(self.preDNAT) || !self.preDNAT || !has(self.egress) || size(self.egress) == 0`,message="packets that leave have no point before DNAT, expected no egress rules with preDNAT",fieldPath=".egress"
// +kubebuilder:validation:XValidation:rule=`!has(self.ingress) || (!has(self.preDNAT) || !self.preDNAT) && (!has(self.doNotTrack) || !self.doNotTrack) || self.ingress.all(r, r.action != 'Pass')`,message="preDNAT and doNotTrack policies have no next tier, expected no rule with action Pass",fieldPath=".ingress"
// +kubebuilder:validation:XValidation:rule=`!has(self.egress) || !has(self.doNotTrack) || !self.doNotTrack || self.egress.all(r, r.action != 'Pass')`,message="preDNAT and doNotTrack policies have no next tier, expected no rule with action Pass",fieldPath=".egress"
// +kubebuilder:validation:XValidation:rule=`!has(self.ingress) || self.ingress.all(r, !has(r.source) || !has(r.source.services) || has(r.source.services.namespace))`,message="a rule names a Service without its namespace, expected one, because the policy has none",fieldPath=".ingress"
// +kubebuilder:validation:XValidation:rule=`!has(self.egress) || self.egress.all(r, !has(r.destination) || !has(r.destination.services) || has(r.destination.services.namespace))`,message="a rule names a Service without its namespace, expected one, because the policy has none",fieldPath=".egress"
type GlobalNetworkPolicySpec struct {
	PolicySpec `json:",inline"`

	// NamespaceSelector limits the policy to pods in namespaces whose labels
	// it matches; "global()" limits it to host endpoints. Empty, the default,
	// is everything.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	NamespaceSelector string `json:"namespaceSelector,omitempty"`

	// ApplyOnForward applies the policy to packets that a selected host
	// forwards, for example to its pods, not only to those that begin or end
	// at the host itself. It means nothing for pods. Default false.
	// +optional
	ApplyOnForward bool `json:"applyOnForward,omitempty"`

	// PreDNAT asks the policy before destination addresses are translated, so
	// that rules see the address and node port that the client used. What no
	// rule decides goes on to the policies behind. Only for host endpoints,
	// ingress and no Pass; needs applyOnForward. Default false.
	// +optional
	PreDNAT bool `json:"preDNAT,omitempty"`

	// DoNotTrack asks the policy before connection tracking and exempts what
	// it allows from it, for hosts with very many short connections. Replies
	// need rules of their own. What no rule decides goes on to the policies
	// behind. Only for host endpoints and without Pass; needs applyOnForward.
	// Default false.
	// +optional
	DoNotTrack bool `json:"doNotTrack,omitempty"`
}

// GlobalNetworkPolicyList is a list of policies.
//
// +kubebuilder:object:root=true
type GlobalNetworkPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	// Items are the policies, in no particular order.
	Items []GlobalNetworkPolicy `json:"items"`
}
