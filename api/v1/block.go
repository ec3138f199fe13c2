package v1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Block is a piece of an IPPool that one node owns. Only the owner hands out
// its addresses, and peers learn the block as one route to that node. Its name
// is its CIDR with dashes (10.244.0.64/26 is 10-244-0-64-26, IPv6 groups are
// written out), so that creating the object is the claim: the API server lets
// exactly one node win. Korat writes blocks, people read them.
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
}

// BlockStatus says what the owner has handed out. Allocated, quarantined and
// free add up to the size of the block.
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

	// Addresses are those that pods hold, each once, in ascending order. At
	// most 4096, the size of the largest block.
	// +optional
	// +listType=map
	// +listMapKey=address
	// +kubebuilder:validation:MaxItems=4096
	Addresses []BlockAddress `json:"addresses,omitempty"`
}

// BlockAddress is an address and the pod that holds it.
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
