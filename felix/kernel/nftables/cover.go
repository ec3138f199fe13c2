package nftables

import (
	"encoding/binary"
	"math/bits"
)

// cover holds prefixes that may lie in one another, and knows those that lie in
// no other: the visible ones. It is a binary trie in which a way without
// branches is one step, so that a change costs as much as it changes: the length
// of the way down, and the prefixes that become visible or stop to be.
type cover struct {
	root *branch
	size int // bytes of an address
}

// branch is a node of the trie: a member, or where the ways of two part.
type branch struct {
	span
	member bool
	child  [2]*branch
}

// span is a prefix of at most 128 bits, left-aligned.
type span struct {
	hi, lo uint64
	bits   int
}

// add adds a member; one that is there already is fine. tell is called for what
// becomes visible, and for what does not stay so.
func (c *cover) add(k Key, tell func(k Key, visible bool)) {
	c.size = len(k) - 1
	s := spanOf(k)
	hidden := false
	at := &c.root
	for {
		b := *at
		if b == nil {
			*at = &branch{span: s, member: true}
			break
		}
		common := b.common(s)
		if common == b.bits && common == s.bits {
			if b.member {
				return
			}
			b.member = true
			break
		}
		if common == b.bits { // s lies in b
			hidden = hidden || b.member
			at = &b.child[s.bit(common)]
			continue
		}
		if common == s.bits { // b lies in s
			up := &branch{span: s, member: true}
			up.child[b.bit(common)] = b
			*at = up
			break
		}
		fork := &branch{span: s.cut(common)}
		fork.child[b.bit(common)] = b
		fork.child[s.bit(common)] = &branch{span: s, member: true}
		*at = fork
		break
	}
	if hidden {
		return
	}
	b := c.find(s)
	c.visible(b.child[0], func(k Key) { tell(k, false) })
	c.visible(b.child[1], func(k Key) { tell(k, false) })
	tell(k, true)
}

// remove takes a member out; one that is not there is fine. tell is called as by
// add.
func (c *cover) remove(k Key, tell func(k Key, visible bool)) {
	s := spanOf(k)
	hidden := false
	var way []**branch
	for at := &c.root; ; {
		b := *at
		if b == nil || b.common(s) < b.bits || b.bits > s.bits {
			return
		}
		way = append(way, at)
		if b.bits == s.bits {
			break
		}
		hidden = hidden || b.member
		at = &b.child[s.bit(b.bits)]
	}
	b := *way[len(way)-1]
	if !b.member {
		return
	}
	b.member = false
	if !hidden {
		tell(k, false)
		c.visible(b.child[0], func(k Key) { tell(k, true) })
		c.visible(b.child[1], func(k Key) { tell(k, true) })
	}
	for i := len(way) - 1; i >= 0; i-- { // what neither is a member nor parts ways
		b := *way[i]
		if b.member || b.child[0] != nil && b.child[1] != nil {
			return
		}
		*way[i] = b.child[0]
		if b.child[0] == nil {
			*way[i] = b.child[1]
		}
	}
}

// find returns the branch of a span that is in the trie.
func (c *cover) find(s span) *branch {
	b := c.root
	for b.bits != s.bits {
		b = b.child[s.bit(b.bits)]
	}
	return b
}

// visible calls tell for the outermost members under b.
func (c *cover) visible(b *branch, tell func(Key)) {
	switch {
	case b == nil:
	case b.member:
		tell(b.key(c.size))
	default:
		c.visible(b.child[0], tell)
		c.visible(b.child[1], tell)
	}
}

func spanOf(k Key) span {
	var b [16]byte
	copy(b[:], k[:len(k)-1])
	return span{binary.BigEndian.Uint64(b[:]), binary.BigEndian.Uint64(b[8:]), int(k[len(k)-1])}
}

func (s span) key(size int) Key {
	var b [17]byte
	binary.BigEndian.PutUint64(b[:], s.hi)
	binary.BigEndian.PutUint64(b[8:], s.lo)
	b[size] = byte(s.bits)
	return Key(b[:size+1])
}

// common returns how many leading bits s and o share, at most those they have.
func (s span) common(o span) int {
	n := bits.LeadingZeros64(s.hi ^ o.hi)
	if n == 64 {
		n += bits.LeadingZeros64(s.lo ^ o.lo)
	}
	return min(n, s.bits, o.bits)
}

// bit returns bit i of s, counted from the left.
func (s span) bit(i int) int {
	if i < 64 {
		return int(s.hi >> (63 - i) & 1)
	}
	return int(s.lo >> (127 - i) & 1)
}

// cut returns the first n bits of s.
func (s span) cut(n int) span {
	if n <= 64 {
		return span{s.hi &^ (^uint64(0) >> n), 0, n}
	}
	return span{s.hi, s.lo &^ (^uint64(0) >> (n - 64)), n}
}
