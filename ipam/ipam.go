// Package ipam is the vocabulary of address management: pools that an operator
// declares, blocks of them that nodes own, and the endpoints that hold single
// addresses. The truth about a block is its API object (create is claim); the
// truth about a single address is the journal of the block's owner.
package ipam

import (
	"cmp"
	"errors"
	"net/netip"
	"time"

	"github.com/koratnet/korat/policy/selector"
)

// Use is what an address is for; several are or-ed.
type Use uint8

// What pools may allow.
const (
	Pods Use = 1 << iota
	Tunnel
	LoadBalancer
	Floating
)

// DefaultUses are those of a pool that names none.
const DefaultUses = Pods | Tunnel

// DefaultCooldown is how long a freed address rests unless its pool says
// otherwise: longer than the SYN-SENT and the unreplied UDP timeouts of
// conntrack, so that packets for its last holder have died.
const DefaultCooldown = 30 * time.Second

// Pool is a range of addresses that blocks are cut from.
type Pool struct {
	Name      string
	CIDR      netip.Prefix // masked
	BlockSize int          // prefix length of its blocks
	Disabled  bool         // no new blocks and no new addresses; live ones stay
	// Nodes selects the nodes, by their labels, that may claim blocks; nil selects all.
	Nodes *selector.Selector
	// Namespaces selects the namespaces whose pods get addresses; nil selects all.
	Namespaces *selector.Selector
	Manual     bool          // only who names the pool, or an address in it, gets one
	Uses       Use           // 0: DefaultUses
	Cooldown   time.Duration // 0: DefaultCooldown
	MaxBlocks  int           // that one node may claim; 0: any number
}

// Allows reports whether p has addresses for u.
func (p Pool) Allows(u Use) bool { return cmp.Or(p.Uses, DefaultUses)&u != 0 }

// Rests returns how long the pool's addresses rest.
func (p Pool) Rests() time.Duration { return cmp.Or(p.Cooldown, DefaultCooldown) }

// Restricted reports whether the pool is not for everybody on the nodes that it
// selects. While nobody can tell who somebody is, nothing is handed out of it.
func (p Pool) Restricted() bool { return p.Manual || p.Namespaces != nil || !p.Allows(Pods) }

// Request is what is asked for an attachment. The zero Request asks for one pod
// address of each family that the pools of the node have.
type Request struct {
	Use Use // 0: Pods
	// Namespace are the labels of the pod's namespace, which pools select; nil,
	// with Known false, when nobody could tell them.
	Namespace selector.Labels
	Known     bool
	// Pools4 and Pools6 name the pools of a family, in the order in which they are
	// to be used. Selectors do not matter then. Empty: pools by their selectors.
	Pools4, Pools6 []string
	// Addrs are the very addresses that are asked for, at most one of a family.
	Addrs []netip.Addr
	// Families are the wanted ones as address lengths, 32 and 128; empty: those of
	// the pools that may be used.
	Families []int
	// Keep is how long the addresses are held, after their release, for the
	// return of a pod of the same name; 0: not at all.
	Keep time.Duration
}

// Pools returns the pools that r names for addresses of bits bits.
func (r Request) Pools(bits int) []string {
	if bits == 32 {
		return r.Pools4
	}
	return r.Pools6
}

// Owner is who may hand out the addresses of a block. Name alone is not enough:
// a re-created node, or a second agent that was given the same name, has
// another UID or journal and must take the block over before it assigns.
type Owner struct {
	Node    string // Kubernetes node name
	UID     string // of the Node object
	Journal string // random id made with the journal
}

// Block is a part of a pool that one node owns. A block may lie inside another:
// its owner was given it by that one's, who has no say in it any more. So an
// address belongs to the narrowest block that contains it.
type Block struct {
	CIDR  netip.Prefix
	Pool  string
	Owner Owner
}

// Standing is what nodes tell each other about a block.
type Standing struct {
	Free  int    // addresses that could be handed out, as of some seconds ago
	Wants []Want // what others ask of the owner
	// Kept are addresses that are held for the return of a pod, as namespace/name.
	Kept map[netip.Addr]string
}

// Want is what another node asks of a block's owner: to give up a part of it,
// or, from an agent of the same node name, all of it.
type Want struct {
	By Owner
	// CIDR is the very part; not valid: any part with addresses, as large as Bits
	// says or smaller.
	CIDR    netip.Prefix
	Bits    int
	Pod     string // namespace/name that it is for, or empty
	Number  int64  // tells what a node asks now from what it asked before
	Refused string // why the owner does not give it; empty: not answered yet
}

// Same reports whether w and o ask for the same, whatever the answer.
func (w Want) Same(o Want) bool {
	w.Refused, o.Refused = "", ""
	return w == o
}

// Handle says for whom an address is held: one sandbox of one pod. A re-created
// pod of the same name has another Sandbox.
type Handle struct {
	Namespace, Pod string
	Sandbox        string // CNI container id
	Interface      string // in the pod, usually eth0
}

// tunnelSandbox is the Sandbox of the node itself.
const tunnelSandbox = "tunnel"

// TunnelHandle returns the handle of the node's own address on one of its interfaces.
func TunnelHandle(device string) Handle {
	return Handle{Pod: device, Sandbox: tunnelSandbox, Interface: device}
}

// OfTunnel reports whether h is the node's own and no pod's.
func (h Handle) OfTunnel() bool { return h.Namespace == "" && h.Sandbox == tunnelSandbox }

// Adopted reports whether h is of a pod that was found running and of which no
// journal knows the sandbox. Without Namespace, Pod is its host interface.
func (h Handle) Adopted() bool { return h.Sandbox == "" }

// PodName returns the pod as namespace/name; of an interface of the node itself
// the namespace is empty.
func (h Handle) PodName() string { return h.Namespace + "/" + h.Pod }

// What callers branch on.
var (
	// ErrNoPool: no enabled pool of the wanted family selects this node.
	ErrNoPool = errors.New("no usable IP pool")
	// ErrExhausted: the pools that may be used have no free address and no free block.
	ErrExhausted = errors.New("IP pools exhausted")
	// ErrConflict: the block exists already; somebody else was faster.
	ErrConflict = errors.New("block already claimed")
	// ErrTaken: the address that is asked for is not to be had now.
	ErrTaken = errors.New("address not available")
	// ErrRival: another agent runs under the name of this node.
	ErrRival = errors.New("another agent runs under this node name")
	// ErrGone: there is no such block in the API.
	ErrGone = errors.New("block is gone")
)
