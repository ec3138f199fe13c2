package v1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// HostEndpoint stands for one interface of a node, or for all of them, so that
// GlobalNetworkPolicies apply to the node itself. Its labels are what
// selectors see. A direction of which no policy says anything is closed but
// for the ports that keep the node alive, so write the policies first.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,path=hostendpoints,singular=hostendpoint,shortName=hep,categories=korat
// +kubebuilder:printcolumn:name="Node",type=string,JSONPath=`.spec.node`
// +kubebuilder:printcolumn:name="Interface",type=string,JSONPath=`.spec.interfaceName`,description="Name of the interface, * for all, empty to find it by expectedIPs."
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`,description="Whether the endpoint is in use."
// +kubebuilder:printcolumn:name="Programmed",type=string,JSONPath=`.status.conditions[?(@.type=="Programmed")].status`,description="Whether the policy of the endpoint is in the node's kernel."
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].reason`,priority=1
// +kubebuilder:printcolumn:name="ExpectedIPs",type=string,JSONPath=`.spec.expectedIPs`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type HostEndpoint struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is which interface of which node it is.
	Spec HostEndpointSpec `json:"spec"`

	// Status is whether policy applies to it, written by the controller.
	// +optional
	Status HostEndpointStatus `json:"status,omitempty"`
}

// HostEndpointSpec is which interface of which node an endpoint stands for.
//
// +kubebuilder:validation:XValidation:rule=`has(self.interfaceName) && size(self.interfaceName) > 0 || has(self.expectedIPs)`,message="no interface is named, expected interfaceName, expectedIPs or both"
type HostEndpointSpec struct {
	// Node is the name of the Node.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Node string `json:"node"`

	// InterfaceName is the name of the interface, or "*" for all of the node
	// but those of pods. Empty, the default, is the interface that has one of
	// the expectedIPs.
	// +optional
	// +kubebuilder:validation:MaxLength=15
	// +kubebuilder:validation:Pattern=`^(\*|[^\s/:*]*)$`
	InterfaceName string `json:"interfaceName,omitempty"`

	// ExpectedIPs are the addresses by which rules of other endpoints know
	// this one. Without interfaceName they also find the interface. At most
	// 64.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	ExpectedIPs []IPAddress `json:"expectedIPs,omitempty"`

	// Ports gives names to ports of the host, for rules that name them. A name
	// may stand for several numbers. At most 64.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	Ports []EndpointPort `json:"ports,omitempty"`
}

// EndpointPort is a name for a port.
type EndpointPort struct {
	// Name is how rules call the port: at most 15 lower case letters, digits
	// and -, at least one letter.
	// +required
	// +kubebuilder:validation:MaxLength=15
	// +kubebuilder:validation:Pattern=`^[a-z0-9-]*[a-z][a-z0-9-]*$`
	Name string `json:"name"`

	// Protocol of the port: TCP, UDP or SCTP.
	// +required
	// +kubebuilder:validation:Enum=TCP;UDP;SCTP
	Protocol string `json:"protocol"`

	// Port is the number: 1 to 65535.
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port"`
}

// HostEndpointStatus is whether policy applies to an endpoint.
type HostEndpointStatus struct {
	// Conditions of the endpoint. Accepted: it is in use. Programmed: its
	// policy is in the node's kernel.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// HostEndpointList is a list of endpoints.
//
// +kubebuilder:object:root=true
type HostEndpointList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	// Items are the endpoints, in no particular order.
	Items []HostEndpoint `json:"items"`
}
