package v1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// PolicySpec is what NetworkPolicy and GlobalNetworkPolicy have in common:
// whom the policy selects, when it is asked, and its rules.
//
// +kubebuilder:validation:XValidation:rule=`!has(self.types) || 'Ingress' in self.types || !has(self.ingress) || size(self.ingress) == 0`,message="there are ingress rules that types turns off, expected none, or types to contain Ingress",fieldPath=".ingress"
// +kubebuilder:validation:XValidation:rule=`!has(self.types) || 'Egress' in self.types || !has(self.egress) || size(self.egress) == 0`,message="there are egress rules that types turns off, expected none, or types to contain Egress",fieldPath=".egress"
type PolicySpec struct {
	// Tier is the name of the Tier to which the policy belongs. One that does
	// not exist is taken for the last, with default action Deny, and the policy
	// is not Accepted. Default "default", the tier of Kubernetes' own
	// NetworkPolicies.
	// +optional
	// +kubebuilder:default=default
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`
	Tier string `json:"tier,omitempty"`

	// Order places the policy in its tier: smaller numbers are asked first,
	// equal ones by name. Default: after every policy that has an order.
	// Kubernetes' own NetworkPolicies have 1000.
	// +optional
	Order *float64 `json:"order,omitempty"`

	// Enforcement says whether the policy decides. Enforced: it does. Staged:
	// it is computed, counted and shown in traces, but lets everything go on
	// as if it was not there. Default Enforced.
	// +optional
	// +kubebuilder:default=Enforced
	Enforcement Enforcement `json:"enforcement,omitempty"`

	// Selector chooses the endpoints to which the policy applies by their
	// labels, for example "app == 'db' && !has(canary)". Empty, the default,
	// is all of them: those of the policy's namespace, or of the whole
	// cluster, hosts included, in a GlobalNetworkPolicy. A selector that does
	// not parse selects nothing, and the policy is not Accepted.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Selector string `json:"selector,omitempty"`

	// ServiceAccountSelector limits the policy to pods whose service account
	// has labels that it matches. Default: no limit.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	ServiceAccountSelector string `json:"serviceAccountSelector,omitempty"`

	// Types are the directions in which the policy applies: Ingress, Egress or
	// both. In a direction that is listed, what no rule of the tier allows or
	// passes is denied, even if there are no rules. Default: Egress if only
	// egress has rules, both if both have, otherwise Ingress.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=2
	Types []PolicyType `json:"types,omitempty"`

	// Ingress are the rules for packets to the selected endpoints. The first
	// one that matches decides. At most 512.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=512
	// +kubebuilder:validation:items:XValidation:rule=`!has(self.destination) || !has(self.destination.services)`,message="the destination of an ingress rule is the selected endpoint, expected services only in its source",fieldPath=".destination.services"
	Ingress []Rule `json:"ingress,omitempty"`

	// Egress are the rules for packets from the selected endpoints. The first
	// one that matches decides. At most 512.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=512
	// +kubebuilder:validation:items:XValidation:rule=`!has(self.source) || !has(self.source.services)`,message="the source of an egress rule is the selected endpoint, expected services only in its destination",fieldPath=".source.services"
	// +kubebuilder:validation:items:XValidation:rule=`!has(self.destination) || !has(self.destination.services) || !has(self.destination.ports) && !has(self.destination.notPorts)`,message="services stands beside ports, expected it alone: services say which ports match",fieldPath=".destination.services"
	Egress []Rule `json:"egress,omitempty"`
}

// Enforcement says whether a policy decides about packets.
//
// +kubebuilder:validation:Enum=Enforced;Staged
type Enforcement string

// The ways to enforce a policy.
const (
	// Enforced policies decide.
	Enforced Enforcement = "Enforced"
	// Staged policies only say what they would decide.
	Staged Enforcement = "Staged"
)

// PolicyType is a direction of traffic, seen from the selected endpoint.
//
// +kubebuilder:validation:Enum=Ingress;Egress
type PolicyType string

// The directions of traffic.
const (
	// PolicyTypeIngress is traffic to the endpoint.
	PolicyTypeIngress PolicyType = "Ingress"
	// PolicyTypeEgress is traffic from the endpoint.
	PolicyTypeEgress PolicyType = "Egress"
)

// PolicyStatus is what became of a policy: whether it is understood, whom it
// selects and where it is in force. The counts lag behind by some seconds.
type PolicyStatus struct {
	// Conditions of the policy. Accepted: every part of the spec is
	// understood and in use; the message names the first that is not, with
	// its field path. Programmed: every node with a selected endpoint has the
	// policy in its kernel.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// Endpoints is how many pods and host endpoints the policy selects.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Endpoints int32 `json:"endpoints"`

	// Nodes is how many nodes have an endpoint that the policy selects.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Nodes int32 `json:"nodes"`

	// ProgrammedNodes is how many of these nodes have the policy in their
	// kernel.
	// +optional
	// +kubebuilder:validation:Minimum=0
	ProgrammedNodes int32 `json:"programmedNodes"`

	// Programmed is how many nodes have the policy out of those that need it,
	// for people: "3/3".
	// +optional
	// +kubebuilder:validation:MaxLength=32
	Programmed string `json:"programmed,omitempty"`
}
