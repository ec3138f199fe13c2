package v1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// NodeNetwork is a node as the network sees it: from where it speaks BGP, in
// which AS, and how it is doing. It has the name of its Node. The node's agent
// creates it and writes its status; the spec is for the operator.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,path=nodenetworks,singular=nodenetwork,shortName=nnet,categories=korat
// +kubebuilder:printcolumn:name="Address",type=string,JSONPath=`.status.addresses[0]`,description="Address that the node speaks BGP from."
// +kubebuilder:printcolumn:name="AS",type=integer,JSONPath=`.status.asNumber`
// +kubebuilder:printcolumn:name="Sessions",type=string,JSONPath=`.status.sessionSummary`,description="BGP sessions established / wanted."
// +kubebuilder:printcolumn:name="Endpoints",type=integer,JSONPath=`.status.endpoints`,description="Pods on the node that Korat connects."
// +kubebuilder:printcolumn:name="Blocks",type=integer,JSONPath=`.status.blocks`,description="Blocks that the node owns."
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`,description="Whether routes and policy of the node's pods are in its kernel."
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`,priority=1
// +kubebuilder:printcolumn:name="Backend",type=string,JSONPath=`.status.backend`,priority=1
// +kubebuilder:printcolumn:name="Version",type=string,JSONPath=`.status.agentVersion`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type NodeNetwork struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is what the operator sets for this node alone.
	// +optional
	Spec NodeNetworkSpec `json:"spec,omitempty"`

	// Status is how the node is doing, written by its agent.
	// +optional
	Status NodeNetworkStatus `json:"status,omitempty"`
}

// NodeNetworkSpec is what the operator sets for one node.
type NodeNetworkSpec struct {
	// ASNumber is the AS of this node. Default: the asNumber of the
	// BGPConfiguration "default", or 64512. Nodes of one AS form a full mesh;
	// nodes of different AS meet through their BGPPeers, typically the router
	// of their rack.
	// +optional
	ASNumber ASNumber `json:"asNumber,omitempty"`

	// Reflection is the node's part among automatic reflectors, written by the
	// controller.
	// +optional
	Reflection *Reflection `json:"reflection,omitempty"`
}

// Reflection is a node's part among automatic reflectors.
type Reflection struct {
	// ClusterID is that of the reflectors of the node's group, written like an
	// IPv4 address.
	// +required
	// +kubebuilder:validation:MaxLength=15
	// +kubebuilder:validation:XValidation:rule=`isIP(self) && ip(self).family() == 4 && self != '0.0.0.0'`,message="not written like an IPv4 address, expected one such as 244.0.0.1"
	ClusterID string `json:"clusterID"`

	// Role is Reflector or Client.
	// +required
	// +kubebuilder:validation:Enum=Reflector;Client
	Role ReflectionRole `json:"role"`
}

// ReflectionRole is what a node is in its group.
type ReflectionRole string

// The roles of nodes.
const (
	RoleReflector ReflectionRole = "Reflector"
	RoleClient    ReflectionRole = "Client"
)

// NodeNetworkStatus is how a node is doing.
type NodeNetworkStatus struct {
	// Conditions of the node's network. Ready: routes and policy of its pods
	// are in the kernel; Unknown when the agent has not been heard of for some
	// minutes, and all else is its last word then. Enforced: the wanted backend
	// enforces policy, and no other does. Established: every wanted BGP session
	// is up. Encrypted: every other node is reached encrypted; only there where
	// encryption is asked for. A lost session does not make a node unready.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// Addresses are those from which the node speaks BGP, with the prefix
	// length of their subnet, such as 192.168.1.11/24. At most one a family,
	// IPv4 first.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:items:MaxLength=43
	Addresses []string `json:"addresses,omitempty"`

	// ASNumber is the AS number in force.
	// +optional
	ASNumber ASNumber `json:"asNumber,omitempty"`

	// Backend is what enforces policy on the node: IPTables, NFTables, or both
	// while the one takes over from the other, such as "IPTables, NFTables".
	// Why, the condition Enforced says.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Backend string `json:"backend,omitempty"`

	// AgentVersion is the version of the running agent.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	AgentVersion string `json:"agentVersion,omitempty"`

	// Tunnels are the node's ends of tunnels, in the order of their interfaces.
	// +optional
	// +listType=map
	// +listMapKey=interface
	// +kubebuilder:validation:MaxItems=8
	Tunnels []TunnelStatus `json:"tunnels,omitempty"`

	// WireGuard is what other nodes need to know to send to this one encrypted, in
	// the order of the interfaces. Empty while it encrypts nothing.
	// +optional
	// +listType=map
	// +listMapKey=interface
	// +kubebuilder:validation:MaxItems=8
	WireGuard []WireGuardStatus `json:"wireguard,omitempty"`

	// Pools say in what this node sends packets to pods of each pool, in the
	// order of their names. A pool is here once its routes are in the kernel.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=1024
	Pools []NodePoolStatus `json:"pools,omitempty"`

	// Ways are how this node reaches the others and why: for each kind of way,
	// the nodes that are reached so.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	Ways []NodeWayStatus `json:"ways,omitempty"`

	// MTU is that of the interfaces of pods, in bytes: of the way to the other
	// nodes, less what encapsulation adds, or as NodeConfigurations say.
	// +optional
	// +kubebuilder:validation:Minimum=0
	MTU int32 `json:"mtu,omitempty"`

	// Draining: traffic is led away from the node, as the drainOn of the
	// BGPConfiguration says.
	// +optional
	Draining bool `json:"draining,omitempty"`

	// Endpoints is how many pods on the node Korat connects.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Endpoints int32 `json:"endpoints"`

	// Blocks is how many blocks the node owns.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Blocks int32 `json:"blocks"`

	// SessionSummary is how many BGP sessions are established out of those
	// wanted, for people: "3/3".
	// +optional
	// +kubebuilder:validation:MaxLength=32
	SessionSummary string `json:"sessionSummary,omitempty"`

	// Sessions are the node's BGP sessions, in the order of their addresses.
	// +optional
	// +listType=map
	// +listMapKey=address
	// +kubebuilder:validation:MaxItems=4096
	Sessions []SessionStatus `json:"sessions,omitempty"`

	// Policies are the NetworkPolicies and GlobalNetworkPolicies of Korat that
	// select something on the node, in the order of kind, namespace and name. At
	// most 1000, so that the object always fits into etcd.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=1000
	Policies []NodePolicyStatus `json:"policies,omitempty"`

	// PoliciesLeftOut is how many policies of these kinds did not fit into
	// policies: their own status does not count this node.
	// +optional
	// +kubebuilder:validation:Minimum=0
	PoliciesLeftOut int32 `json:"policiesLeftOut,omitempty"`

	// HostEndpoints are those that stand for an interface of this node, in the
	// order of their names. Their own status repeats what is said here.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=256
	HostEndpoints []NodeHostEndpointStatus `json:"hostEndpoints,omitempty"`
}

// MaxNodeHostEndpoints is how many a NodeNetwork tells of.
const MaxNodeHostEndpoints = 256

// NodeHostEndpointStatus is a HostEndpoint on its node.
type NodeHostEndpointStatus struct {
	// Name of the HostEndpoint.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`

	// Interfaces that it stands for, "*" for all that have none of their own.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=15
	Interfaces []string `json:"interfaces"`

	// Programmed: its policy is in the node's kernel.
	// +optional
	Programmed bool `json:"programmed,omitempty"`

	// Problem is why not, when the kernel refuses something. At most 256
	// characters.
	// +optional
	// +kubebuilder:validation:MaxLength=256
	Problem string `json:"problem,omitempty"`
}

// TunnelStatus is a node's end of a tunnel to all others.
type TunnelStatus struct {
	// Interface is its name on the node.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=15
	Interface string `json:"interface"`

	// Encapsulation is VXLAN, IPIP or WireGuard.
	// +required
	// +kubebuilder:validation:Enum=IPIP;VXLAN;WireGuard
	Encapsulation Encapsulation `json:"encapsulation"`

	// Address is that of the node inside of the tunnel, from a pool that allows
	// the use Tunnel. Empty while there is none.
	// +optional
	// +kubebuilder:validation:MaxLength=39
	Address string `json:"address,omitempty"`

	// Underlay is the node's address that carries the tunnel.
	// +required
	// +kubebuilder:validation:MinLength=2
	// +kubebuilder:validation:MaxLength=39
	Underlay string `json:"underlay"`

	// MTU of the interface, in bytes.
	// +optional
	// +kubebuilder:validation:Minimum=0
	MTU int32 `json:"mtu,omitempty"`

	// Offload is Enabled where checksums of packets inside, and the cutting of
	// large ones, are left to the device that sends them. Empty for WireGuard,
	// which leaves it to nobody.
	// +optional
	Offload Switch `json:"offload,omitempty"`

	// OffloadReason is why, in words. At most 256 characters.
	// +optional
	// +kubebuilder:validation:MaxLength=256
	OffloadReason string `json:"offloadReason,omitempty"`

	// Ready: the node receives what comes through the tunnel.
	// +optional
	Ready bool `json:"ready,omitempty"`

	// Problem is why not. At most 256 characters.
	// +optional
	// +kubebuilder:validation:MaxLength=256
	Problem string `json:"problem,omitempty"`
}

// WireGuardStatus is a node's end of a WireGuard tunnel.
type WireGuardStatus struct {
	// Interface is its name on the node: wg4-korat or wg6-korat, after the family
	// of the packets inside and around, and where keys are renewed by the clock
	// wg4-korat-odd and wg6-korat-odd as well.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=15
	Interface string `json:"interface"`

	// PublicKey is the node's, in base64. The private one never leaves the node.
	// +required
	// +kubebuilder:validation:MinLength=44
	// +kubebuilder:validation:MaxLength=44
	PublicKey string `json:"publicKey"`

	// Port is the UDP port on which the node listens.
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port"`

	// KeySince is when the key was made.
	// +optional
	KeySince *metav1.Time `json:"keySince,omitempty"`
}

// NodePoolStatus is a pool on one node.
type NodePoolStatus struct {
	// Name of the IPPool.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`

	// Generation of the pool that receives is said of.
	// +optional
	Generation int64 `json:"generation,omitempty"`

	// Receives are the encapsulations of the pool that the node is ready for.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=5
	Receives []Encapsulation `json:"receives,omitempty"`

	// Sends is what the node sends to the pool's pods in.
	// +optional
	// +kubebuilder:validation:Enum=None;IPIP;IPIPCrossSubnet;VXLAN;VXLANCrossSubnet
	Sends Encapsulation `json:"sends,omitempty"`
}

// NodeWayStatus is one kind of way to other nodes.
type NodeWayStatus struct {
	// Pool is the pool to whose pods the way leads.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Pool string `json:"pool"`

	// Encapsulation that is in use: None, VXLAN, IPIP or WireGuard.
	// +required
	// +kubebuilder:validation:Enum=None;IPIP;VXLAN;WireGuard
	Encapsulation Encapsulation `json:"encapsulation"`

	// Reason is why, in one word. Always: the pool says so. SameSubnet: the
	// nodes are on one link. OtherSubnet: they are not, by the prefix that this
	// node's address is configured with. BehindGateway: by that prefix they are,
	// and the kernel's route leads over a router. Unknown: the kernel has no
	// route to the node, or has not been asked yet. HasKey: both nodes encrypt.
	// NoKey: this one does and the others do not; with WireGuard they are not
	// reached, because encryption is required.
	// +required
	// +kubebuilder:validation:Enum=Always;SameSubnet;OtherSubnet;BehindGateway;Unknown;HasKey;NoKey
	Reason string `json:"reason"`

	// Count is how many nodes are reached so.
	// +required
	// +kubebuilder:validation:Minimum=0
	Count int32 `json:"count"`

	// Nodes are the first 100 of them by name.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=100
	// +kubebuilder:validation:items:MaxLength=253
	Nodes []string `json:"nodes,omitempty"`
}

// MaxWayNodes is how many names NodeWayStatus.Nodes can have.
const MaxWayNodes = 100

// MaxNodePolicies is how many policies the status of a NodeNetwork can hold.
// With the longest names and messages they are below half of the 1.5 MB that
// etcd takes.
const MaxNodePolicies = 1000

// MaxProblem is how long NodePolicyStatus.Problem can be.
const MaxProblem = 256

// NodePolicyStatus is a policy on one node.
type NodePolicyStatus struct {
	// Kind of the policy.
	// +required
	// +kubebuilder:validation:Enum=NetworkPolicy;GlobalNetworkPolicy
	Kind string `json:"kind"`

	// Namespace of the policy, empty for a GlobalNetworkPolicy.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace,omitempty"`

	// Name of the policy.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`

	// Generation of the policy that the node works with.
	// +optional
	Generation int64 `json:"generation,omitempty"`

	// Endpoints is how many pods and host endpoints of the node it selects.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Endpoints int32 `json:"endpoints"`

	// Programmed: this generation of the policy is in the node's kernel, for
	// every endpoint that it selects. Never so of a staged policy.
	// +optional
	Programmed bool `json:"programmed,omitempty"`

	// Problem is why not, when the kernel refuses something. At most 256
	// characters.
	// +optional
	// +kubebuilder:validation:MaxLength=256
	Problem string `json:"problem,omitempty"`
}

// NodeNetworkList is a list of node networks.
//
// +kubebuilder:object:root=true
type NodeNetworkList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	// Items are the node networks, in no particular order.
	Items []NodeNetwork `json:"items"`
}
