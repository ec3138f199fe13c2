package v1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// BGPConfiguration is what all nodes share in BGP. There is one, named
// "default"; without it, its defaults apply. Changes take effect at once, and
// only the sessions that they touch are reset.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,path=bgpconfigurations,singular=bgpconfiguration,shortName=bgpconf,categories=korat
// +kubebuilder:printcolumn:name="AS",type=integer,JSONPath=`.spec.asNumber`,description="AS number of nodes that have none of their own."
// +kubebuilder:printcolumn:name="Mesh",type=string,JSONPath=`.spec.nodeToNodeMesh`
// +kubebuilder:printcolumn:name="Port",type=integer,JSONPath=`.spec.listenPort`
// +kubebuilder:printcolumn:name="Restart",type=string,JSONPath=`.spec.gracefulRestart.restartTime`,description="How long peers keep routes while an agent restarts."
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule=`self.metadata.name == 'default'`,messageExpression=`'metadata.name is "' + self.metadata.name + '", expected "default": there is one BGPConfiguration for the cluster'`
type BGPConfiguration struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is what all nodes share.
	// +optional
	// +kubebuilder:default={}
	Spec BGPConfigurationSpec `json:"spec,omitempty"`

	// Status is whether the configuration is in use.
	// +optional
	Status BGPConfigurationStatus `json:"status,omitempty"`
}

// BGPConfigurationSpec is what all nodes share in BGP.
type BGPConfigurationSpec struct {
	// ASNumber is the AS of every node whose NodeNetwork names none. Default
	// 64512.
	// +optional
	// +kubebuilder:default=64512
	ASNumber ASNumber `json:"asNumber,omitempty"`

	// NodeToNodeMesh says whether every two nodes of one AS have a session
	// with each other. Disable it where the BGPPeers (routers or route
	// reflectors) carry all routes. Default Enabled.
	// +optional
	// +kubebuilder:default=Enabled
	NodeToNodeMesh MeshMode `json:"nodeToNodeMesh,omitempty"`

	// ListenPort is the TCP port on which nodes listen, and on which they call
	// each other in the mesh: 1 to 65535. Default 179.
	// +optional
	// +kubebuilder:default=179
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	ListenPort int32 `json:"listenPort,omitempty"`

	// GracefulRestart says what peers do while an agent restarts.
	// +optional
	// +kubebuilder:default={}
	GracefulRestart GracefulRestart `json:"gracefulRestart,omitempty"`
}

// MeshMode says whether the node-to-node mesh is wanted.
//
// +kubebuilder:validation:Enum=Enabled;Disabled
type MeshMode string

// The modes of the node-to-node mesh.
const (
	// MeshEnabled: every two nodes of one AS have a session.
	MeshEnabled MeshMode = "Enabled"
	// MeshDisabled: nodes talk only to BGPPeers.
	MeshDisabled MeshMode = "Disabled"
)

// GracefulRestart says what peers do while an agent restarts (RFC 4724). The
// kernel goes on forwarding without the agent, so peers should go on sending.
type GracefulRestart struct {
	// RestartTime is how long peers keep a node's routes after its session is
	// lost, in whole seconds from 1s to 4095s (the protocol has 12 bits for
	// it), written like 120s or 2m. Default 120s.
	// +optional
	// +kubebuilder:default="120s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Format=duration
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}h)?([0-9]{1,5}m)?([0-9]{1,5}s)?$`
	// +kubebuilder:validation:MinLength=2
	// +kubebuilder:validation:MaxLength=16
	// +kubebuilder:validation:XValidation:rule=`self >= duration('1s') && self <= duration('4095s')`,message="expected 1s to 4095s"
	RestartTime *metav1.Duration `json:"restartTime,omitempty"`
}

// BGPConfigurationStatus says whether the configuration is in use.
type BGPConfigurationStatus struct {
	// Conditions of the configuration. Accepted: the agents use it.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// BGPConfigurationList is a list of BGP configurations.
//
// +kubebuilder:object:root=true
type BGPConfigurationList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	// Items are the configurations: none or one.
	Items []BGPConfiguration `json:"items"`
}
