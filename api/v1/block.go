package v1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Block is a piece of an IPPool that one node owns. Only the owner hands out
// its addresses, and peers learn the block as one route to that node. Its name
// is its CIDR with dashes (10.244.0.64/26 is 10-244-0-64-26, IPv6 groups are
// written out), so that creating the object is the claim: the API server lets
// exactly one node win. A block inside of another was given away by that one's
// owner: an address belongs to the narrowest block that contains it. Korat
// writes blocks, people read them.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,path=blocks,singular=block,shortName=blk,categories=korat
// +kubebuilder:selectablefield:JSONPath=`.spec.node`
// +kubebuilder:printcolumn:name="CIDR",type=string,JSONPath=`.spec.cidr`
// +kubebuilder:printcolumn:name="Node",type=string,JSONPath=`.spec.node`
// +kubebuilder:printcolumn:name="Pool",type=string,JSONPath=`.spec.pool`
// +kubebuilder:printcolumn:name="Used",type=integer,JSONPath=`.status.allocated`,description="Addresses that pods hold."
// +kubebuilder:printcolumn:name="Free",type=integer,JSONPath=`.status.free`,description="Addresses that can be handed out now."
// +kubebuilder:printcolumn:name="Quarantined",type=integer,JSONPath=`.status.quarantined`,priority=1,description="Freed addresses that rest before they are used again."
// +kubebuilder:printcolumn:name="Journal",type=string,JSONPath=`.spec.journalID`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type Block struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is the block's range and owner.
	Spec BlockSpec `json:"spec"`

	// Status is what the owner has handed out, written by the owner at most
	// every few seconds. The truth is the owner's journal on its disk.
	// +optional
	Status BlockStatus `json:"status,omitempty"`
}

// BlockSpec is a block's range and owner. The owner is a node's name, its UID
// and the id of its journal together: an agent that finds its own node name
// with another UID or journal must take the block over before it assigns.
type BlockSpec struct {
	// CIDR is the range of the block, such as 10.244.0.64/26. It lies inside
	// the pool and cannot be changed.
	// +required
	// +kubebuilder:validation:XValidation:rule=`self == oldSelf`,messageExpression=`'immutable, expected "' + oldSelf + '"'`
	CIDR CIDR `json:"cidr"`

	// Pool is the name of the IPPool that the block was cut from.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Pool string `json:"pool"`

	// Node is the name of the Node that owns the block.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Node string `json:"node"`

	// NodeUID is the UID of the Node object at the time of the claim. A node
	// that was deleted and joined again under the same name has another one.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	NodeUID string `json:"nodeUID"`

	// JournalID names the journal on the owner's disk that records the
	// addresses of this block. A reinstalled node has another one.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	JournalID string `json:"journalID"`

	// Requests are what other nodes ask the owner for: to give up a part of the
	// block, because their pools are exhausted or a pod asks for an address of
	// it. The owner answers by creating the part as a block of the other node,
	// and strikes the request, or by saying why not.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	Requests []BlockRequest `json:"requests,omitempty"`
}

// BlockRequest is what a node asks the owner of a block for.
type BlockRequest struct {
	// CIDR is the part that is wanted: one address as /32 or /128, or all of the
	// block, which an agent asks for that finds its own node's name on it. None:
	// any part with free addresses, as large as prefixLength says or smaller.
	// +optional
	CIDR CIDR `json:"cidr,omitempty"`

	// PrefixLength is that of the largest part that is wanted.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=128
	PrefixLength int32 `json:"prefixLength,omitempty"`

	// Node, nodeUID and journalID are who asks, as in the spec of a block.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Node string `json:"node"`

	// NodeUID is the UID of the Node object of who asks.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	NodeUID string `json:"nodeUID"`

	// JournalID names the journal of who asks.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	JournalID string `json:"journalID"`

	// Pod is for whom an address is wanted, as "namespace/name".
	// +optional
	// +kubebuilder:validation:MaxLength=317
	Pod string `json:"pod,omitempty"`

	// Number tells what a node asks now from what it asked before.
	// +required
	Number int64 `json:"number"`

	// Refused is the owner's answer if it does not give the part: why not.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Refused string `json:"refused,omitempty"`
}

// BlockStatus says what the owner has handed out. Allocated, quarantined, free,
// reserved and given add up to the size of the block.
type BlockStatus struct {
	// Conditions of the block. Accepted: name, range and pool fit together.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// Allocated is how many addresses pods hold.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=4096
	Allocated int32 `json:"allocated"`

	// Quarantined is how many freed addresses rest before they are used again,
	// so that traffic for a pod that is gone does not reach a new one.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=4096
	Quarantined int32 `json:"quarantined"`

	// Free is how many addresses can be handed out now.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=4096
	Free int32 `json:"free"`

	// Reserved is how many free addresses an IPReservation takes from pods that
	// do not ask for them.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=4096
	Reserved int32 `json:"reserved,omitempty"`

	// Given is how many addresses other nodes have of this block, as blocks
	// inside of it.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=4096
	Given int32 `json:"given,omitempty"`

	// Addresses are those that pods hold, each once, in ascending order. At
	// most 4096, the size of the largest block.
	// +optional
	// +listType=map
	// +listMapKey=address
	// +kubebuilder:validation:MaxItems=4096
	Addresses []BlockAddress `json:"addresses,omitempty"`

	// Kept are quarantined addresses that are held for the return of a pod that
	// asked for that, each once, in ascending order.
	// +optional
	// +listType=map
	// +listMapKey=address
	// +kubebuilder:validation:MaxItems=4096
	Kept []BlockAddress `json:"kept,omitempty"`
}

// BlockAddress is an address and the pod that holds it, or for which it is kept.
type BlockAddress struct {
	// Address is the pod's address, such as 10.244.0.65.
	// +required
	// +kubebuilder:validation:MinLength=2
	// +kubebuilder:validation:MaxLength=39
	Address string `json:"address"`

	// Pod is the holder as "namespace/name".
	// +required
	// +kubebuilder:validation:MinLength=3
	// +kubebuilder:validation:MaxLength=317
	Pod string `json:"pod"`
}

// BlockList is a list of blocks.
//
// +kubebuilder:object:root=true
type BlockList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	// Items are the blocks, in no particular order.
	Items []Block `json:"items"`
}
