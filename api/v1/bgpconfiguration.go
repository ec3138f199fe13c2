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

	// MeshPassword is the password of the sessions between nodes (RFC 2385), from
	// a Secret in the namespace of the agents. While it cannot be read, those
	// sessions are closed. Default: none.
	// +optional
	MeshPassword *SecretKey `json:"meshPassword,omitempty"`

	// Reflectors are nodes that pass on what other nodes say, so that not every
	// two nodes need a session. Default: none, and the mesh is full.
	// +optional
	Reflectors *Reflectors `json:"reflectors,omitempty"`

	// DrainOn says when traffic is led away from a node, by telling its peers
	// GRACEFUL_SHUTDOWN (RFC 8326) and the lowest preference. Annotation, the
	// default: when its Node has the annotation korat.dev/drain with the value
	// "true". Cordon: also when its Node is unschedulable.
	// +optional
	// +kubebuilder:default=Annotation
	// +kubebuilder:validation:Enum=Annotation;Cordon
	DrainOn DrainOn `json:"drainOn,omitempty"`

	// ServiceClusterIPs are ranges of which nodes announce the clusterIPs of
	// services. At most 64. Default: none.
	// +optional
	// +listType=map
	// +listMapKey=cidr
	// +kubebuilder:validation:MaxItems=64
	ServiceClusterIPs []ServiceRange `json:"serviceClusterIPs,omitempty"`

	// ServiceExternalIPs are ranges of which nodes announce the externalIPs of
	// services. Anybody who may write a Service names those, so list only what
	// is for them. At most 64. Default: none.
	// +optional
	// +listType=map
	// +listMapKey=cidr
	// +kubebuilder:validation:MaxItems=64
	ServiceExternalIPs []ServiceRange `json:"serviceExternalIPs,omitempty"`

	// ServiceLoadBalancerIPs are ranges of which nodes announce the addresses of
	// load balancers in the status of services. At most 64. Default: none.
	// +optional
	// +listType=map
	// +listMapKey=cidr
	// +kubebuilder:validation:MaxItems=64
	ServiceLoadBalancerIPs []ServiceRange `json:"serviceLoadBalancerIPs,omitempty"`

	// LoadBalancers says which services of type LoadBalancer get addresses from
	// IPPools that allow the use LoadBalancer. Classed, the default: those whose
	// spec.loadBalancerClass is korat.dev/bgp. All: also those that name no class,
	// which another implementation in the cluster may look after as well.
	// +optional
	// +kubebuilder:default=Classed
	// +kubebuilder:validation:Enum=Classed;All
	LoadBalancers LoadBalancers `json:"loadBalancers,omitempty"`

	// LearnedRanges are ranges beside those of IPPools and of services of which
	// nodes take routes from neighbours into the kernel: of every prefix inside of
	// one. 0.0.0.0/0 and ::/0 mean the default route alone, which then competes
	// with the one that the node has. At most 64. Default: none.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	LearnedRanges []CIDR `json:"learnedRanges,omitempty"`

	// KernelRoutes says where in the kernel of every node Korat's routes are: those
	// to pods and blocks of the node, and those that neighbours taught. It is changed
	// without losing packets.
	// +optional
	// +kubebuilder:default={}
	KernelRoutes KernelRoutes `json:"kernelRoutes,omitempty"`
}

// KernelRoutes says where routes are.
type KernelRoutes struct {
	// Table is the routing table, 1 to 2147483647. All packets are led to it before
	// they are to the main one, so that a route there wins over a longer one in the
	// main table. Learnt default routes stay in the main table. Default 254, which is
	// the main one. 252, 253 and 255 have other meanings to the kernel, and 11210 and 11211 to
	// Korat.
	// +optional
	// +kubebuilder:default=254
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=2147483647
	// +kubebuilder:validation:XValidation:rule=`!(self in [252, 253, 255, 11210, 11211])`,message="the table is used otherwise, expected none of 252, 253, 255, 11210 and 11211"
	Table int32 `json:"table,omitempty"`

	// Metric of the routes, 1 to 2147483647: where another program has a route to the
	// same prefix in the same table, the lower one wins. Default: 0 in IPv4 and 1024 in
	// IPv6, which is what the kernel makes of none.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=2147483647
	Metric int32 `json:"metric,omitempty"`
}

// LoadBalancers says which services get addresses.
type LoadBalancers string

// The values of BGPConfigurationSpec.LoadBalancers.
const (
	LoadBalancersClassed LoadBalancers = "Classed"
	LoadBalancersAll     LoadBalancers = "All"
)

// LoadBalancerClass is the spec.loadBalancerClass of services that get their
// addresses from IPPools.
const LoadBalancerClass = "korat.dev/bgp"

// ServiceRange is a range of addresses of services that nodes may announce.
type ServiceRange struct {
	// CIDR is the range, such as 10.96.0.0/12. A single address, /32 or /128, is
	// announced by every node.
	// +required
	CIDR CIDR `json:"cidr"`

	// Aggregation says how. Enabled, the default: every node announces the whole
	// range, and beside it the single addresses of services whose
	// externalTrafficPolicy (internalTrafficPolicy of clusterIPs) is Local, where
	// they have a backend. Disabled: single addresses alone.
	// +optional
	// +kubebuilder:default=Enabled
	Aggregation Switch `json:"aggregation,omitempty"`
}

// DrainOn says what drains a node.
type DrainOn string

// The values of BGPConfigurationSpec.DrainOn.
const (
	DrainOnAnnotation DrainOn = "Annotation"
	DrainOnCordon     DrainOn = "Cordon"
)

// Reflectors says which nodes are route reflectors (RFC 4456). They leave the
// mesh, keep next hops as they are, and have sessions with each other. While no
// node of an AS is one, its mesh stays.
//
// +kubebuilder:validation:XValidation:rule=`!has(self.perZone) || !has(self.clusterID)`,message="both clusterID and perZone are set, expected one: automatic reflectors get cluster ids of their own",fieldPath=".clusterID"
type Reflectors struct {
	// NodeSelector chooses the nodes that are reflectors, or with perZone those
	// that may become one, by their labels: for example "has(reflector)". Empty is
	// all nodes, which makes sense with perZone alone. One that does not parse
	// chooses none.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	NodeSelector string `json:"nodeSelector,omitempty"`

	// ClusterID is the cluster id of the reflectors, written like an IPv4
	// address. Default 244.0.0.1, which is no address of anybody.
	// +optional
	// +kubebuilder:validation:MaxLength=15
	// +kubebuilder:validation:XValidation:rule=`isIP(self) && ip(self).family() == 4 && self != '0.0.0.0'`,message="not written like an IPv4 address, expected one such as 244.0.0.1"
	ClusterID string `json:"clusterID,omitempty"`

	// PerZone lets the controller choose the reflectors: that many, 1 to 8, for
	// each zone (label topology.kubernetes.io/zone of nodes; nodes without the
	// label are one zone) and each 100 nodes of it. It replaces one whose node
	// drains, is not ready or is gone, and takes its sessions away when those of
	// the new one are up. Default: the nodeSelector decides alone.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=8
	PerZone int32 `json:"perZone,omitempty"`
}

// SecretKey is a value in a Secret of the namespace that the agents run in.
type SecretKey struct {
	// Name of the Secret.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`

	// Key in the Secret.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Key string `json:"key"`
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

	// LongLivedStaleTime is how long peers keep a node's routes after that, but
	// prefer every other (RFC 9494): in whole seconds from 0s to 4660h (the
	// protocol has 24 bits for it). Default 0s: not at all.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Format=duration
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}h)?([0-9]{1,5}m)?([0-9]{1,5}s)?$`
	// +kubebuilder:validation:MinLength=2
	// +kubebuilder:validation:MaxLength=16
	// +kubebuilder:validation:XValidation:rule=`self >= duration('0s') && self <= duration('4660h')`,message="expected 0s to 4660h"
	LongLivedStaleTime *metav1.Duration `json:"longLivedStaleTime,omitempty"`
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
