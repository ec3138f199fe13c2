package v1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// IPPool is a range of addresses from which pods get theirs. Nodes claim it in
// blocks and hand out single addresses from the blocks they own. What peers
// announce to a node becomes a route only if a pool covers it, so the pools
// also say which routes Korat installs.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,path=ippools,singular=ippool,shortName=ipp,categories=korat
// +kubebuilder:printcolumn:name="CIDR",type=string,JSONPath=`.spec.cidr`
// +kubebuilder:printcolumn:name="BlockSize",type=integer,JSONPath=`.status.blockSize`,description="Prefix length of the pool's blocks."
// +kubebuilder:printcolumn:name="Blocks",type=integer,JSONPath=`.status.blocks`,description="Blocks that nodes own."
// +kubebuilder:printcolumn:name="Used",type=string,JSONPath=`.status.used`,description="Addresses of pods / addresses in the pool."
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`,description="Whether nodes can claim blocks from the pool."
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Encapsulation",type=string,JSONPath=`.status.encapsulation`,priority=1,description="What packets between nodes travel in."
// +kubebuilder:printcolumn:name="NAT",type=boolean,JSONPath=`.spec.natOutgoing`,priority=1,description="Whether pods leave the cluster under an address of their node."
// +kubebuilder:printcolumn:name="Disabled",type=boolean,JSONPath=`.spec.disabled`,priority=1
// +kubebuilder:printcolumn:name="Sufficient",type=string,JSONPath=`.status.conditions[?(@.type=="Sufficient")].status`,priority=1,description="Whether the pool will last."
// +kubebuilder:printcolumn:name="Assignment",type=string,JSONPath=`.spec.assignment`,priority=1
// +kubebuilder:printcolumn:name="Namespaces",type=string,JSONPath=`.spec.namespaceSelector`,priority=1,description="Selector of the namespaces whose pods use the pool, empty for all."
// +kubebuilder:printcolumn:name="Nodes",type=string,JSONPath=`.spec.nodeSelector`,priority=1,description="Selector of the nodes that may use the pool, empty for all."
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type IPPool struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is what the operator wants of the pool.
	Spec IPPoolSpec `json:"spec"`

	// Status is how full the pool is and whether it serves, written by the
	// controller.
	// +optional
	Status IPPoolStatus `json:"status,omitempty"`
}

// IPPoolSpec is what the operator wants of a pool. CIDR and block size are for
// good: to change them, create another pool and disable this one.
//
// +kubebuilder:validation:XValidation:rule=`!has(self.blockSize) || !isCIDR(self.cidr) || (self.blockSize <= 32) == (cidr(self.cidr).ip().family() == 4)`,messageExpression=`'block size of the other family than cidr "' + self.cidr + '", expected ' + (cidr(self.cidr).ip().family() == 4 ? '20 to 32' : '116 to 128')`,fieldPath=".blockSize"
// +kubebuilder:validation:XValidation:rule=`!isCIDR(self.cidr) || cidr(self.cidr).prefixLength() <= (has(self.blockSize) ? self.blockSize : (cidr(self.cidr).ip().family() == 4 ? 26 : 122))`,messageExpression=`'"' + self.cidr + '" is smaller than one block, expected a prefix length of at most ' + (has(self.blockSize) ? 'blockSize' : (cidr(self.cidr).ip().family() == 4 ? '26, the default block size' : '122, the default block size'))`,fieldPath=".cidr"
// +kubebuilder:validation:XValidation:rule=`!isCIDR(self.cidr) || has(self.blockSize) == has(oldSelf.blockSize) || (has(self.blockSize) ? self.blockSize : oldSelf.blockSize) == (cidr(self.cidr).ip().family() == 4 ? 26 : 122)`,messageExpression=`'immutable, expected ' + (has(self.blockSize) ? 'none or the default, as when the pool was created' : 'the value it had and not none') + ': create another pool and disable this one'`,fieldPath=".blockSize"
//
// +kubebuilder:validation:XValidation:rule=`!has(self.encapsulation) || !self.encapsulation.startsWith('IPIP') || !isCIDR(self.cidr) || cidr(self.cidr).ip().family() == 4`,messageExpression=`'"' + self.encapsulation + '" is for IPv4 and cidr is "' + self.cidr + '", expected None, VXLAN or VXLANCrossSubnet'`,fieldPath=".encapsulation"
type IPPoolSpec struct {
	// CIDR is the range of the pool, such as 10.244.0.0/16 or
	// fd00:10:244::/48. It must not overlap another pool's and cannot be
	// changed.
	// +required
	// +kubebuilder:validation:XValidation:rule=`self == oldSelf`,messageExpression=`'immutable, expected "' + oldSelf + '": create another pool and disable this one'`
	CIDR CIDR `json:"cidr"`

	// BlockSize is the prefix length of the blocks that nodes claim: 20 to 32
	// in an IPv4 pool, 116 to 128 in an IPv6 pool. Default 26 and 122, which
	// is 64 addresses. It must be at least the prefix length of the CIDR and
	// cannot be changed. Smaller blocks (greater numbers) waste fewer
	// addresses and make more routes.
	// +optional
	// +kubebuilder:validation:XValidation:rule=`self >= 20 && self <= 32 || self >= 116 && self <= 128`,message="expected 20 to 32 in an IPv4 pool, 116 to 128 in an IPv6 pool"
	// +kubebuilder:validation:XValidation:rule=`self == oldSelf`,message="immutable, expected the value it had: create another pool and disable this one"
	BlockSize int32 `json:"blockSize,omitempty"`

	// Disabled stops handing out addresses of this pool. Pods that have one
	// keep it, and its routes stay. Default false.
	// +optional
	Disabled bool `json:"disabled,omitempty"`

	// Encapsulation says what packets to pods of this pool travel in, from node
	// to node. None, the default: in nothing, so that the network between nodes
	// has to know routes to pods. VXLAN: in UDP datagrams between nodes, by routes
	// that every node makes from the Blocks in the API, without BGP. IPIP, for IPv4
	// alone: in IP packets, to the next hop that BGP teaches, or else to the node
	// that owns the block. VXLANCrossSubnet and IPIPCrossSubnet: so to nodes of
	// other subnets only. It may be changed at any time: nodes first learn to
	// receive what the new one needs and then begin to send so, and status says
	// how far they are.
	// +optional
	// +kubebuilder:validation:Enum=None;IPIP;IPIPCrossSubnet;VXLAN;VXLANCrossSubnet
	Encapsulation Encapsulation `json:"encapsulation,omitempty"`

	// Encryption says whether packets to and from pods of this pool may travel
	// between nodes in clear. None: where NodeConfigurations do not say otherwise.
	// Required: never, so that they do not come to or from nodes that encrypt
	// nothing. Default None.
	// +optional
	// +kubebuilder:validation:Enum=None;Required
	Encryption PoolEncryption `json:"encryption,omitempty"`

	// Announce says whether nodes tell their BGP peers of this pool's blocks and
	// pods. The nodes of the cluster are told in any case, and so are peers that a
	// BGPAdvertisement names. Default Enabled.
	// +optional
	Announce Switch `json:"announce,omitempty"`

	// NATOutgoing hides pods with an address of this pool behind an address of
	// their node when they talk to anything that is in no IPPool. Set it where
	// the network outside has no routes to pods. How it is done
	// NodeConfigurations say. Default false.
	// +optional
	NATOutgoing bool `json:"natOutgoing,omitempty"`

	// NodeSelector limits the pool to nodes whose labels it matches, for
	// example "rack == 'a' && !has(gpu)". Empty, the default, is all nodes. A
	// selector that does not parse makes the pool not Ready.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	NodeSelector string `json:"nodeSelector,omitempty"`

	// NamespaceSelector limits the pool to pods of namespaces whose labels it
	// matches, for example "team == 'payments'". Empty, the default, is all
	// namespaces. Pods that name the pool in an annotation get an address of it
	// wherever they are. A selector that does not parse makes the pool not Ready.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	NamespaceSelector string `json:"namespaceSelector,omitempty"`

	// Assignment says who gets addresses. Automatic, the default: every pod that
	// the selectors choose. Manual: only pods that name the pool, or an address
	// in it, in an annotation of theirs or of their namespace or in the
	// configuration of the CNI plugin.
	// +optional
	// +kubebuilder:validation:Enum=Automatic;Manual
	Assignment PoolAssignment `json:"assignment,omitempty"`

	// AllowedUses are what addresses of the pool are for: Pods, Tunnel (the
	// nodes' ends of tunnels), LoadBalancer (services) and Floating (what pods ask
	// for in korat.dev/floatingAddresses). Default Pods and Tunnel. Services and
	// floating addresses are of pools that have no other use. Addresses that are in
	// use stay when a use is taken away, but for floating ones.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=4
	AllowedUses []PoolUse `json:"allowedUses,omitempty"`

	// Cooldown is how long a freed address rests before another pod may get it,
	// 1s to 1h. Default 30s, which is longer than a connection or a name lookup
	// for the last pod is still tried.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Format=duration
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}h)?([0-9]{1,5}m)?([0-9]{1,5}s)?$`
	// +kubebuilder:validation:MinLength=2
	// +kubebuilder:validation:MaxLength=16
	// +kubebuilder:validation:XValidation:rule=`self >= duration('1s') && self <= duration('1h')`,message="expected 1s to 1h"
	Cooldown *metav1.Duration `json:"cooldown,omitempty"`

	// MaxBlocksPerNode is how many blocks of the pool one node may claim. A node
	// that has as many and no free address in them starts no more pods from this
	// pool. Default 0: as many as there are.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=65536
	MaxBlocksPerNode int32 `json:"maxBlocksPerNode,omitempty"`
}

// Encapsulation is what packets between nodes travel in.
type Encapsulation string

// The values of IPPoolSpec.Encapsulation.
const (
	EncapsulationNone             Encapsulation = "None"
	EncapsulationIPIP             Encapsulation = "IPIP"
	EncapsulationIPIPCrossSubnet  Encapsulation = "IPIPCrossSubnet"
	EncapsulationVXLAN            Encapsulation = "VXLAN"
	EncapsulationVXLANCrossSubnet Encapsulation = "VXLANCrossSubnet"
	// EncapsulationWireGuard is no pool's: it is what encryption makes of any.
	EncapsulationWireGuard Encapsulation = "WireGuard"
)

// PoolEncryption says whether packets of a pool may travel in clear.
type PoolEncryption string

// The values of IPPoolSpec.Encryption.
const (
	PoolEncryptionNone     PoolEncryption = "None"
	PoolEncryptionRequired PoolEncryption = "Required"
)

// PoolAssignment says who gets addresses of a pool.
type PoolAssignment string

// The values of IPPoolSpec.Assignment.
const (
	AssignAutomatic PoolAssignment = "Automatic"
	AssignManual    PoolAssignment = "Manual"
)

// PoolUse is what an address of a pool is for.
//
// +kubebuilder:validation:Enum=Pods;Tunnel;LoadBalancer;Floating
type PoolUse string

// The values of IPPoolSpec.AllowedUses.
const (
	UsePods         PoolUse = "Pods"
	UseTunnel       PoolUse = "Tunnel"
	UseLoadBalancer PoolUse = "LoadBalancer"
	UseFloating     PoolUse = "Floating"
)

// IPPoolStatus says how full a pool is. The counts are sums over the pool's
// blocks and lag behind them by some seconds.
type IPPoolStatus struct {
	// Conditions of the pool. Ready: nodes can claim blocks from it. Sufficient:
	// it will last, as far as the last hours tell. Encapsulated: every node sends
	// as spec.encapsulation says.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// Encapsulation is what nodes send packets to pods of the pool in. It follows
	// that of the spec when every node can receive that. Empty until the
	// controller has seen the pool: that of the spec then.
	// +optional
	// +kubebuilder:validation:Enum=None;IPIP;IPIPCrossSubnet;VXLAN;VXLANCrossSubnet
	Encapsulation Encapsulation `json:"encapsulation,omitempty"`

	// EncapsulationBefore is what some nodes may still send in, so that every node
	// still receives it. Empty when no change is under way.
	// +optional
	// +kubebuilder:validation:Enum="";None;IPIP;IPIPCrossSubnet;VXLAN;VXLANCrossSubnet
	EncapsulationBefore Encapsulation `json:"encapsulationBefore"`

	// BlockSize is the prefix length of the blocks in force: that of the spec,
	// or the default of the pool's family.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=128
	BlockSize int32 `json:"blockSize,omitempty"`

	// Blocks is how many blocks of the pool nodes own.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Blocks int32 `json:"blocks"`

	// Capacity is how many addresses the pool has without those of
	// IPReservations, or 9223372036854775807 if there are more than that.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Capacity int64 `json:"capacity"`

	// Allocated is how many addresses pods hold. Addresses in quarantine are
	// not counted.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Allocated int64 `json:"allocated"`

	// Quarantined is how many freed addresses rest before they are used again.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Quarantined int64 `json:"quarantined"`

	// Reserved is how many addresses of the pool IPReservations take from pods
	// that do not ask for them, or 9223372036854775807 if more than that.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Reserved int64 `json:"reserved"`

	// Used is allocated and capacity in one, for people: "12/65536". A
	// capacity that has no exact number here is written as a power, "12/2^80".
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Used string `json:"used,omitempty"`
}

// IPPoolList is a list of pools.
//
// +kubebuilder:object:root=true
type IPPoolList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	// Items are the pools, in no particular order.
	Items []IPPool `json:"items"`
}
