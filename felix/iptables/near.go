package iptables

import (
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"slices"
)

// near is a shorter way to the chain of a pod than the trie over the names of all
// interfaces: the pod's address leads to a few interfaces, one of which is its
// own. A packet that none of them matches returns with a mark, and is led to the
// trie, which alone knows what is unknown. No leaf leads to the trie itself: after a
// change of anything, nf_tables walks through all that packets can reach, and older
// kernels do in each way in which they can. To compare a part of an address costs it a
// fraction of what it costs to compare the name of an interface.
type near struct {
	root, address string // the first chain; the option that names the address
	astray        uint32 // the mark
	trie          trie
}

// place is an address and the interface of the pod that has it.
type place struct {
	address netip.Addr
	iface   string
}

// maxNear is how many addresses stand together in one chain.
const maxNear = 4

// chains returns the root and the chains below it. places is sorted by address.
func (n near) chains(places []place) []chain {
	if len(places) <= maxLeaf { // the trie is as short
		return []chain{newChain(n.root, specs("-g "+n.trie.root))}
	}
	return n.branch(n.root, places)
}

// branch splits places by the bits behind what all of them share. The last part
// takes whatever is left: the interface decides in the end.
func (n near) branch(name string, places []place) []chain {
	parts := split(places)
	if len(places) <= maxNear || len(parts) == 1 {
		return []chain{newChain(name, n.leaf(places))}
	}
	var rules []rule
	var below []chain
	for i, part := range parts {
		child := n.root + "-" + prefixID(part.prefix)
		match := n.address + " " + part.prefix.String()
		if i == len(parts)-1 {
			match = ""
		}
		rules = append(rules, rule{spec: words(match, "-g "+child)})
		below = append(below, n.branch(child, part.places)...)
	}
	return append([]chain{newChain(name, rules)}, below...)
}

func (n near) leaf(places []place) []rule {
	var rules []rule
	for _, p := range places {
		r := rule{spec: n.trie.flag + " " + p.iface + " -g " + n.trie.leaf + p.iface}
		if !slices.Contains(rules, r) {
			rules = append(rules, r)
		}
	}
	return append(rules, rule{spec: setMark(n.astray)})
}

// prefixID names a prefix in a chain's name.
func prefixID(p netip.Prefix) string {
	sum := sha256.Sum256([]byte(p.String()))
	return hex.EncodeToString(sum[:5])
}

// part are the places within a prefix.
type part struct {
	prefix netip.Prefix
	places []place
}

// split groups sorted places by the three bits behind those that all have in common.
func split(places []place) []part {
	first, last := places[0].address, places[len(places)-1].address
	shared := 0
	for shared < first.BitLen() && netip.PrefixFrom(first, shared+1).Contains(last) {
		shared++
	}
	length := min(shared+3, first.BitLen())
	var parts []part
	for _, p := range places {
		prefix := netip.PrefixFrom(p.address, length).Masked()
		if n := len(parts); n == 0 || parts[n-1].prefix != prefix {
			parts = append(parts, part{prefix: prefix})
		}
		parts[len(parts)-1].places = append(parts[len(parts)-1].places, p)
	}
	return parts
}
