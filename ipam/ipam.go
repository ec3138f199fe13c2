// Package ipam is the vocabulary of address management: pools that an operator
// declares, blocks of them that nodes own, and the endpoints that hold single
// addresses. The truth about a block is its API object (create is claim); the
// truth about a single address is the journal of the block's owner.
package ipam

import (
	"errors"
	"net/netip"

	"github.com/koratnet/korat/policy/selector"
)

// Pool is a range of addresses that blocks are cut from.
type Pool struct {
	Name      string
	CIDR      netip.Prefix // masked
	BlockSize int          // prefix length of its blocks
	Disabled  bool         // no new blocks and no new addresses; live ones stay
	// Nodes selects the nodes, by their labels, that may claim blocks; nil selects all.
	Nodes *selector.Selector
}

// Owner is who may hand out the addresses of a block. Name alone is not enough:
// a re-created node, or a second agent that was given the same name, has
// another UID or journal and must take the block over before it assigns.
type Owner struct {
	Node    string // Kubernetes node name
	UID     string // of the Node object
	Journal string // random id made with the journal
}

// Block is a part of a pool that one node owns.
type Block struct {
	CIDR  netip.Prefix
	Pool  string
	Owner Owner
}

// Handle says for whom an address is held: one sandbox of one pod. A re-created
// pod of the same name has another Sandbox.
type Handle struct {
	Namespace, Pod string
	Sandbox        string // CNI container id
	Interface      string // in the pod, usually eth0
}

// Adopted reports whether h is of a pod that was found running and of which no
// journal knows the sandbox. Without Namespace, Pod is its host interface.
func (h Handle) Adopted() bool { return h.Sandbox == "" }

// What callers branch on.
var (
	// ErrNoPool: no enabled pool of the wanted family selects this node.
	ErrNoPool = errors.New("no usable IP pool")
	// ErrExhausted: the pools that may be used have no free address and no free block.
	ErrExhausted = errors.New("IP pools exhausted")
	// ErrConflict: the block exists already; somebody else was faster.
	ErrConflict = errors.New("block already claimed")
)
