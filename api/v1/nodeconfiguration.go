package v1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// NodeConfiguration says how the agents of some nodes enforce policy and
// translate addresses. Several may choose a node: their fields are taken one
// by one, first those of the object named "default", then those of the others
// in the order of their names, and of a field that several set the last counts.
// What none sets has its default. Changes take effect at once, without a
// restart and without a gap in which policy is not enforced.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,path=nodeconfigurations,singular=nodeconfiguration,shortName=nodeconf,categories=korat
// +kubebuilder:printcolumn:name="Selector",type=string,JSONPath=`.spec.nodeSelector`,description="Selector of the nodes, empty for all."
// +kubebuilder:printcolumn:name="Nodes",type=integer,JSONPath=`.status.nodes`,description="Nodes that the selector chooses."
// +kubebuilder:printcolumn:name="Backend",type=string,JSONPath=`.spec.backend`
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].reason`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type NodeConfiguration struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is which nodes, and what of them.
	// +optional
	Spec NodeConfigurationSpec `json:"spec,omitempty"`

	// Status is whether the configuration is in use, written by the
	// controller.
	// +optional
	Status NodeConfigurationStatus `json:"status,omitempty"`
}

// NodeConfigurationSpec is which nodes a configuration is for, and what it says
// of them. A field that is absent says nothing.
type NodeConfigurationSpec struct {
	// NodeSelector chooses the nodes by their labels, for example
	// "rack == 'a'". Empty, the default, is all nodes. A selector that does
	// not parse makes the configuration not Accepted, and it chooses no node.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	NodeSelector string `json:"nodeSelector,omitempty"`

	// Backend is what enforces policy in the kernel: IPTables (with ipset),
	// NFTables, or Auto: the one of the two that kube-proxy uses on the node,
	// IPTables where none is found. A change is made under traffic: the old
	// one goes when the new one is in force. Default Auto.
	// +optional
	Backend Backend `json:"backend,omitempty"`

	// IPTablesFlavour is the variant of the iptables programs: NFT, Legacy, or
	// Auto: the one that kubelet and kube-proxy use. All programs of a node
	// must use the same. Default Auto.
	// +optional
	IPTablesFlavour IPTablesFlavour `json:"iptablesFlavour,omitempty"`

	// MarkMask is the bits of the packet mark that rules may use: at least 4
	// of the 32, none of them 0x4000 or 0x8000, which are kube-proxy's, nor
	// 0x2000, which is portmap's. Hexadecimal in YAML (0xf0000), decimal in
	// JSON. Choose bits that no other program on the node uses. Default
	// 0xf0000.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=4294967295
	// +kubebuilder:validation:XValidation:rule=`[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072, 262144, 524288, 1048576, 2097152, 4194304, 8388608, 16777216, 33554432, 67108864, 134217728, 268435456, 536870912, 1073741824, 2147483648].filter(bit, self / bit % 2 == 1).size() >= 4`,message="fewer than 4 bits are set, expected at least 4, such as 0xf0000"
	// +kubebuilder:validation:XValidation:rule=`[8192, 16384, 32768].all(bit, self / bit % 2 == 0)`,message="a bit of 0xe000 is set, expected none of them: 0xc000 is kube-proxy's and 0x2000 is portmap's"
	MarkMask int64 `json:"markMask,omitempty"`

	// PodToHost is what happens to a packet from a pod to its own node that
	// the policies of the pod allow: Allow, Deny, or Pass: the other rules of
	// the node decide. Policies of host endpoints are asked as well. Default
	// Allow.
	// +optional
	PodToHost PodToHost `json:"podToHost,omitempty"`

	// InvalidConnections is what happens to packets from and to pods that
	// belong to no connection which the kernel can make out: Deny, or Allow:
	// policy decides about each. Allow where the two directions of a
	// connection take different ways. Default Deny.
	// +optional
	InvalidConnections InvalidConnections `json:"invalidConnections,omitempty"`

	// EstablishedConnections is what happens to a connection that policy comes
	// to deny while it is open: Continue, it lives until it ends, or Recheck,
	// it is cut. Default Continue.
	// +optional
	EstablishedConnections EstablishedConnections `json:"establishedConnections,omitempty"`

	// FailsafeInbound is what a policy of a host endpoint never stops on its
	// way to the node. An empty list is none. At most 64. Default: TCP 22,
	// 179, 2379, 2380, 6443 and 10250, and UDP 68, 3784 and 4784 (BFD).
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	FailsafeInbound []Failsafe `json:"failsafeInbound,omitzero"`

	// FailsafeOutbound is what a policy of a host endpoint never stops on its
	// way from the node. An empty list is none. At most 64. Default: TCP 53,
	// 179, 2379, 2380 and 6443, and UDP 53, 67, 3784 and 4784 (BFD).
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	FailsafeOutbound []Failsafe `json:"failsafeOutbound,omitzero"`

	// NATOutgoing says how pods of the IPPools with natOutgoing leave the
	// cluster.
	// +optional
	NATOutgoing NATOutgoing `json:"natOutgoing,omitzero"`

	// ServiceLoopPrevention drops packets for an address of a Service that the
	// node announces and nobody serves, which would go back to the router that
	// they came from. Default Enabled.
	// +optional
	ServiceLoopPrevention Switch `json:"serviceLoopPrevention,omitempty"`

	// DropRecords tells about denied packets, for `koratctl drops`. Default
	// Enabled.
	// +optional
	DropRecords Switch `json:"dropRecords,omitempty"`

	// MTU is that of the interfaces of pods, those of running ones as well:
	// 1280 to 65535. Default: that of the interface through which the node reaches
	// the others.
	// +optional
	// +kubebuilder:validation:Minimum=1280
	// +kubebuilder:validation:Maximum=65535
	MTU int32 `json:"mtu,omitempty"`

	// TCPMSSClamp tells both ends of TCP connections of pods, when they begin, not
	// to send segments larger than the node knows the way to take. For networks
	// that swallow what routers say of packets that are too large. Default
	// Disabled.
	// +optional
	TCPMSSClamp Switch `json:"tcpMSSClamp,omitempty"`

	// TunnelOffload leaves checksums of packets in VXLAN and IPIP, and the cutting
	// of large ones, to the device that sends them, which is cheaper. Auto: until a
	// trial finds a node that such packets do not reach and others do; then the
	// kernel of this node does it, until it is Enabled once or the node is started
	// anew. Default Auto.
	// +optional
	TunnelOffload TunnelOffload `json:"tunnelOffload,omitempty"`

	// PodTunnels lets pods send packets that carry packets: IP in IP, and UDP to
	// port 4789. A pod that may do so can have what it sends look as if it came
	// from elsewhere, behind the end of its tunnel. Default Disabled.
	// +optional
	PodTunnels Switch `json:"podTunnels,omitempty"`

	// ExternalTunnelSources are addresses beside those of nodes that may put
	// packets into the node's tunnels: who has one is believed whatever source the
	// packets inside have. At most 64. Default: none.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	ExternalTunnelSources []Net `json:"externalTunnelSources,omitzero"`

	// NodeCondition has the agent say in the condition NetworkUnavailable of its Node
	// whether pods can have a network there, so that Kubernetes schedules none before.
	// Disable it where a cloud's controller owns that condition. Default Enabled.
	// +optional
	NodeCondition Switch `json:"nodeCondition,omitempty"`

	// Encryption of packets from pods to pods of other nodes, and between pods and
	// other nodes, by WireGuard.
	// +optional
	Encryption NodeEncryption `json:"encryption,omitzero"`
}

// NodeEncryption says what travels encrypted between nodes.
//
// +kubebuilder:validation:XValidation:rule="!has(self.hostTraffic) || self.hostTraffic == 'Disabled' || has(self.mode) && self.mode != 'Disabled'",message="hostTraffic needs mode Preferred or Required"
type NodeEncryption struct {
	// Mode is which packets travel so. Disabled: none but those of IPPools that
	// require it. Preferred: those to nodes that take them; others get them as the
	// pool says. Required: all, so that pods reach neither nodes that encrypt nothing
	// nor their pods, and nothing that such a node sends in clear comes to pods.
	// Default Disabled.
	// +optional
	Mode EncryptionMode `json:"mode,omitempty"`

	// HostTraffic is what the node itself sends to the addresses at which other nodes
	// encrypt. Disabled: it goes in clear. Preferred: it is encrypted to nodes with which
	// there was a handshake in the last three minutes, and in clear to others. BGP and BFD
	// are never. Default Disabled.
	// +optional
	HostTraffic HostTraffic `json:"hostTraffic,omitempty"`

	// PortIPv4 is the UDP port on which the node listens in IPv4. Default 51820.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	PortIPv4 int32 `json:"portIPv4,omitempty"`

	// PortIPv6 is the one in IPv6. Default 51821.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	PortIPv6 int32 `json:"portIPv6,omitempty"`

	// Rotation renews keys by the clock, without loss.
	// +optional
	Rotation KeyRotation `json:"rotation,omitzero"`
}

// KeyRotation says how often keys of WireGuard are renewed. A node has two then, which
// take turns, each at an interface and ports of its own: while packets go by one, the
// other is renewed, and other nodes hear of it.
type KeyRotation struct {
	// Period of a turn, by the clock: a key lives for two of them. It has to be the
	// same on all nodes, and their clocks may differ by a quarter of it. 10m to 8760h,
	// or 0s: keys stay as they are, and a node has one. Default 0s.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Format=duration
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}h)?([0-9]{1,5}m)?([0-9]{1,5}s)?$`
	// +kubebuilder:validation:MinLength=2
	// +kubebuilder:validation:MaxLength=16
	// +kubebuilder:validation:XValidation:rule=`self == duration('0s') || (self >= duration('10m') && self <= duration('8760h'))`,message="expected 0s or 10m to 8760h"
	Period *metav1.Duration `json:"period,omitempty"`

	// PortIPv4 is the UDP port for the second key in IPv4. Default 51822.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	PortIPv4 int32 `json:"portIPv4,omitempty"`

	// PortIPv6 is the one in IPv6. Default 51823.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	PortIPv6 int32 `json:"portIPv6,omitempty"`
}

// EncryptionMode says which packets travel encrypted.
//
// +kubebuilder:validation:Enum=Disabled;Preferred;Required
type EncryptionMode string

// The modes of encryption.
const (
	// EncryptionDisabled: those of pools that require it.
	EncryptionDisabled EncryptionMode = "Disabled"
	// EncryptionPreferred: those to nodes that take them.
	EncryptionPreferred EncryptionMode = "Preferred"
	// EncryptionRequired: all.
	EncryptionRequired EncryptionMode = "Required"
)

// HostTraffic says whether what nodes send each other is encrypted.
//
// +kubebuilder:validation:Enum=Disabled;Preferred
type HostTraffic string

// The choices for what nodes send each other.
const (
	// HostTrafficDisabled: it is not.
	HostTrafficDisabled HostTraffic = "Disabled"
	// HostTrafficPreferred: it is where that is proved to work.
	HostTrafficPreferred HostTraffic = "Preferred"
)

// Backend is a data plane that enforces policy.
//
// +kubebuilder:validation:Enum=Auto;IPTables;NFTables
type Backend string

// The backends.
const (
	// BackendAuto: the generation of netfilter that kube-proxy uses.
	BackendAuto Backend = "Auto"
	// BackendIPTables: the iptables programs, and ipset.
	BackendIPTables Backend = "IPTables"
	// BackendNFTables: nf_tables.
	BackendNFTables Backend = "NFTables"
)

// IPTablesFlavour is a variant of the iptables programs.
//
// +kubebuilder:validation:Enum=Auto;NFT;Legacy
type IPTablesFlavour string

// The variants of the iptables programs.
const (
	// FlavourAuto: the one that kubelet and kube-proxy use.
	FlavourAuto IPTablesFlavour = "Auto"
	// FlavourNFT: over nf_tables.
	FlavourNFT IPTablesFlavour = "NFT"
	// FlavourLegacy: over the kernel's older interface.
	FlavourLegacy IPTablesFlavour = "Legacy"
)

// PodToHost is what happens to packets from pods to their own node.
//
// +kubebuilder:validation:Enum=Allow;Deny;Pass
type PodToHost string

// What happens to packets from pods to their own node, after the pod's policy.
const (
	// PodToHostAllow: they are accepted.
	PodToHostAllow PodToHost = "Allow"
	// PodToHostDeny: they are dropped.
	PodToHostDeny PodToHost = "Deny"
	// PodToHostPass: the other rules of the node decide.
	PodToHostPass PodToHost = "Pass"
)

// InvalidConnections is what happens to packets of no known connection.
//
// +kubebuilder:validation:Enum=Deny;Allow
type InvalidConnections string

// What happens to packets of no known connection.
const (
	// InvalidDeny: they are dropped.
	InvalidDeny InvalidConnections = "Deny"
	// InvalidAllow: policy decides about each of them.
	InvalidAllow InvalidConnections = "Allow"
)

// EstablishedConnections is what happens to open connections when policy
// changes.
//
// +kubebuilder:validation:Enum=Continue;Recheck
type EstablishedConnections string

// What happens to open connections when policy changes.
const (
	// ConnectionsContinue: they live until they end.
	ConnectionsContinue EstablishedConnections = "Continue"
	// ConnectionsRecheck: those that are denied now are cut.
	ConnectionsRecheck EstablishedConnections = "Recheck"
)

// TunnelOffload is whether devices finish packets in tunnels.
//
// +kubebuilder:validation:Enum=Auto;Enabled;Disabled
type TunnelOffload string

// What can be said of offloads in tunnels.
const (
	OffloadAuto     TunnelOffload = "Auto"
	OffloadEnabled  TunnelOffload = "Enabled"
	OffloadDisabled TunnelOffload = "Disabled"
)

// Switch turns something on or off.
//
// +kubebuilder:validation:Enum=Enabled;Disabled
type Switch string

// The positions of a Switch.
const (
	SwitchEnabled  Switch = "Enabled"
	SwitchDisabled Switch = "Disabled"
)

// Failsafe is traffic that policies of host endpoints never stop.
type Failsafe struct {
	// Protocol of the port: TCP, UDP or SCTP. Default TCP.
	// +optional
	// +kubebuilder:default=TCP
	// +kubebuilder:validation:Enum=TCP;UDP;SCTP
	Protocol string `json:"protocol,omitempty"`

	// Port at the end that is called: 1 to 65535.
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port"`

	// Net is where the other end must be. Default: anywhere.
	// +optional
	Net Net `json:"net,omitempty"`
}

// NATOutgoing says how pods leave the cluster under an address of their node.
type NATOutgoing struct {
	// Addresses to hide behind, at most one of each family. An empty list, and
	// a family of which there is none: the address of the interface through
	// which a packet leaves, which is the default. The node must have them.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=2
	// +kubebuilder:validation:XValidation:rule=`self.filter(a, a.contains(':')).size() <= 1 && self.filter(a, !a.contains(':')).size() <= 1`,message="two addresses are of one family, expected at most one of each"
	Addresses []IPAddress `json:"addresses,omitzero"`

	// PortRange is which source ports TCP and UDP may get. Default: the kernel
	// chooses.
	// +optional
	PortRange *PortRange `json:"portRange,omitempty"`

	// Exclude is whither pods go under their own address: Pools, that is all
	// IPPools whatever they say, or PoolsAndNodes, the addresses of nodes as
	// well. Default Pools.
	// +optional
	Exclude NATExclusion `json:"exclude,omitempty"`

	// ExcludeNets are more destinations of that kind, such as the pods of
	// another cluster. At most 256. Default: none.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=256
	ExcludeNets []Net `json:"excludeNets,omitzero"`
}

// NATExclusion is whither pods go under their own address.
//
// +kubebuilder:validation:Enum=Pools;PoolsAndNodes
type NATExclusion string

// Whither pods go under their own address.
const (
	// ExcludePools: to pods.
	ExcludePools NATExclusion = "Pools"
	// ExcludePoolsAndNodes: to pods and to nodes.
	ExcludePoolsAndNodes NATExclusion = "PoolsAndNodes"
)

// PortRange is an inclusive range of ports.
//
// +kubebuilder:validation:XValidation:rule=`self.first <= self.last`,message="first is greater than last, expected at most last",fieldPath=".first"
type PortRange struct {
	// First port of the range: 1 to 65535.
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	First int32 `json:"first"`

	// Last port of the range: first to 65535.
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Last int32 `json:"last"`
}

// NodeConfigurationStatus is whether a configuration is in use. What a node
// makes of all of them its NodeNetwork tells.
type NodeConfigurationStatus struct {
	// Conditions of the configuration. Accepted: the agents use it.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// Nodes is how many nodes the selector chooses.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Nodes int32 `json:"nodes"`
}

// NodeConfigurationList is a list of configurations.
//
// +kubebuilder:object:root=true
type NodeConfigurationList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	// Items are the configurations, in no particular order.
	Items []NodeConfiguration `json:"items"`
}
