package addresses

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	koratv1 "github.com/koratnet/korat/api/v1"
)

// Problem is where the books disagree.
type Problem struct {
	// Kind is one word to count by: Doubled, Leaked, Unrecorded, Foreign, Orphaned,
	// Counts, Unaccepted, Overlap or Node.
	Kind    string `json:"kind"`
	Message string `json:"message"`
}

// Check compares the books with each other; it returns nothing if all agree. The
// API is some seconds behind what happens, so only what two readings a while apart
// have in common is wrong.
func (b *Books) Check() []Problem {
	c := checker{books: b, blocks: b.blocks(), pools: map[string]netip.Prefix{}}
	c.checkPools()
	c.checkBlocks()
	c.checkPods()
	c.checkAgents()
	slices.SortFunc(c.found, func(x, y Problem) int { return strings.Compare(x.Kind+x.Message, y.Kind+y.Message) })
	return slices.Compact(c.found)
}

// Both returns what two checks have in common.
func Both(first, second []Problem) (out []Problem) {
	for _, p := range second {
		if slices.Contains(first, p) {
			out = append(out, p)
		}
	}
	return out
}

type checker struct {
	books  *Books
	blocks []block
	pools  map[string]netip.Prefix
	found  []Problem
}

func (c *checker) say(kind, format string, args ...any) {
	c.found = append(c.found, Problem{kind, fmt.Sprintf(format, args...)})
}

func (c *checker) checkPools() {
	for i := range c.books.Pools {
		p := &c.books.Pools[i]
		cidr, err := netip.ParsePrefix(string(p.Spec.CIDR))
		if err != nil {
			continue
		}
		for name, other := range c.pools {
			if other.Overlaps(cidr) {
				c.say("Overlap", "pools %s and %s overlap: %s and %s", min(name, p.Name), max(name, p.Name), min(other.String(), cidr.String()), max(other.String(), cidr.String()))
			}
		}
		c.pools[p.Name] = cidr
	}
}

func (c *checker) checkBlocks() {
	holder := map[netip.Addr]string{}
	for _, b := range c.blocks {
		if pool, known := c.pools[b.Spec.Pool]; b.Name != koratv1.BlockName(b.cidr) || !known || !pool.Overlaps(b.cidr) || b.cidr.Bits() < pool.Bits() {
			c.say("Unaccepted", "block %s does not fit its name or its pool %s", b.Name, b.Spec.Pool)
		}
		if uid, known := c.books.Nodes[b.Spec.Node]; !known || uid != b.Spec.NodeUID {
			c.say("Orphaned", "block %s is of node %s (uid %s), which is gone: the controller deletes it, or \"koratctl ipam release %s\"", b.Name, b.Spec.Node, b.Spec.NodeUID, b.cidr)
		}
		s := b.Status
		size := 1 << (b.cidr.Addr().BitLen() - b.cidr.Bits())
		if sum := int(s.Allocated + s.Quarantined + s.Free + s.Reserved + s.Given); sum != 0 && sum != size {
			c.say("Counts", "block %s counts %d addresses, and has %d", b.Name, sum, size)
		}
		if int(s.Allocated) != len(s.Addresses) {
			c.say("Counts", "block %s has %d pods' addresses, and names %d", b.Name, s.Allocated, len(s.Addresses))
		}
		for a, pod := range entries(s.Addresses) {
			if other, twice := holder[a]; twice {
				c.say("Doubled", "%s is of pod %s in one block and of pod %s in another", a, min(pod, other), max(pod, other))
			}
			holder[a] = pod
			if own, _ := narrowest(c.blocks, a); own.Name != b.Name {
				c.say("Foreign", "block %s gives %s to pod %s, and the address belongs to block %s", b.Name, a, pod, own.Name)
			}
		}
	}
}

func (c *checker) checkPods() {
	held := map[netip.Addr]string{}
	for _, p := range c.books.pods() {
		name := p.Namespace + "/" + p.Name
		for _, a := range addrsOf(p) {
			if other, twice := held[a]; twice {
				c.say("Doubled", "%s is the address of pod %s and of pod %s", a, min(name, other), max(name, other))
			}
			held[a] = name
			b, found := narrowest(c.blocks, a)
			switch recorded := entries(b.statusAddresses())[a]; {
			case !found && c.inPool(a):
				c.say("Unrecorded", "pod %s has %s, which is in no block", name, a)
			case !found: // another network's
			case recorded == "":
				c.say("Unrecorded", "pod %s has %s, and block %s does not know it", name, a, b.Name)
			case recorded != name:
				c.say("Doubled", "%s is the address of pod %s, and of pod %s in block %s", a, name, recorded, b.Name)
			case p.Spec.NodeName != b.Spec.Node:
				c.say("Foreign", "pod %s on node %s has %s of block %s, which is of node %s", name, p.Spec.NodeName, a, b.Name, b.Spec.Node)
			}
		}
	}
	for _, b := range c.blocks {
		for a, pod := range entries(b.Status.Addresses) {
			if held[a] == "" && !strings.HasPrefix(pod, "/") { // what is of no namespace is the node's own
				c.say("Leaked", "block %s of node %s holds %s for pod %s, which the API server does not know, or without the address", b.Name, b.Spec.Node, a, pod)
			}
		}
	}
}

// statusAddresses is the list of b, or of no block.
func (b block) statusAddresses() []koratv1.BlockAddress {
	if b.Block == nil {
		return nil
	}
	return b.Status.Addresses
}

func (c *checker) inPool(a netip.Addr) bool {
	for _, cidr := range c.pools {
		if cidr.Contains(a) {
			return true
		}
	}
	return false
}

// checkAgents compares what agents say with the API.
func (c *checker) checkAgents() {
	for _, n := range c.books.Agents {
		for _, text := range n.Problems() {
			c.say("Node", "%s", text)
		}
		published := map[netip.Addr]string{}
		for _, b := range c.blocks {
			if b.Spec.Node != n.Node {
				continue
			}
			if b.Spec.JournalID != n.Journal {
				c.say("Node", "block %s is of journal %s, and node %s has journal %s", b.Name, b.Spec.JournalID, n.Node, n.Journal)
			}
			if !slices.Contains(n.Blocks, b.cidr) {
				c.say("Node", "block %s is of node %s, whose journal does not know it", b.Name, n.Node)
			}
			for a, pod := range entries(b.Status.Addresses) {
				published[a] = pod
			}
		}
		for _, at := range n.Attachments {
			for _, a := range at.Addrs {
				if published[a] != at.Pod {
					c.say("Node", "node %s has %s for pod %s in its journal, and the API has %q", n.Node, a, at.Pod, published[a])
				}
				delete(published, a)
			}
		}
		for a, pod := range published {
			c.say("Node", "the API has %s for pod %s, and the journal of node %s does not", a, pod, n.Node)
		}
	}
}
