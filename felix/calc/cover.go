package calc

import "net/netip"

// cover is a set of prefixes that answers whether one of them contains another
// prefix. Prefixes are counted, so that two objects may name the same one.
type cover struct {
	count  map[netip.Prefix]int
	length [129]int // how many prefixes are that long, both families together
}

func newCover() cover { return cover{count: map[netip.Prefix]int{}} }

func (c *cover) add(p netip.Prefix) {
	c.count[p]++
	c.length[p.Bits()]++
}

func (c *cover) remove(p netip.Prefix) {
	if c.count[p]--; c.count[p] == 0 {
		delete(c.count, p)
	}
	c.length[p.Bits()]--
}

func (c *cover) has(p netip.Prefix) bool { return c.count[p] > 0 }

// contains reports whether p lies in a prefix of c or is one of them.
func (c *cover) contains(p netip.Prefix) bool { return c.narrowest(p) >= 0 }

// narrowest returns the length of the longest prefix of c that p lies in or is,
// -1 if there is none.
func (c *cover) narrowest(p netip.Prefix) int {
	for bits := p.Bits(); bits >= 0; bits-- {
		if c.length[bits] > 0 && c.has(netip.PrefixFrom(p.Addr(), bits).Masked()) {
			return bits
		}
	}
	return -1
}

// single returns the prefix of full length that holds only a.
func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
