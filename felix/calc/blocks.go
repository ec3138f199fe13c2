package calc

import (
	"cmp"
	"net/netip"

	"github.com/koratnet/korat/felix/event"
)

// blocks knows the blocks that this node owns, and those of others: an address
// belongs to the narrowest block that contains it. A floating address that leads
// to another node is as a block of that node, with this address alone, unless the
// API has one.
type blocks struct {
	node    string
	own     cover
	others  cover
	changed map[netip.Prefix]struct{} // own ones, and parts of these, that came or went in this flush

	claimed map[netip.Prefix]string // owners, as the API has them
	owner   map[netip.Prefix]string // the same, floating addresses among them
	moved   map[netip.Prefix]string // who owned what came, went or has another owner in this flush; "": nobody
}

func newBlocks(node string) blocks {
	return blocks{
		node: node, own: newCover(), others: newCover(), changed: map[netip.Prefix]struct{}{},
		claimed: map[netip.Prefix]string{}, owner: map[netip.Prefix]string{}, moved: map[netip.Prefix]string{},
	}
}

// drain takes over what changed. Blocks are named after their prefixes, so that
// there is one of a prefix.
func (b *blocks) drain(in *table[event.Block], floats *floats) {
	touched := map[netip.Prefix]struct{}{}
	for name, was := range in.was {
		if was != nil {
			delete(b.claimed, was.CIDR)
			touched[was.CIDR] = struct{}{}
		}
		if is := in.now[name]; is != nil {
			b.claimed[is.CIDR] = is.Owner.Node
			touched[is.CIDR] = struct{}{}
		}
	}
	for a := range floats.changed {
		touched[single(a)] = struct{}{}
	}
	for p := range touched {
		b.give(p, cmp.Or(b.claimed[p], floats.nodeOf(p)))
	}
}

// give makes a node the owner of p, "": nobody.
func (b *blocks) give(p netip.Prefix, to string) {
	from := b.owner[p]
	if from == to {
		return
	}
	b.moved[p] = from
	if from != "" {
		delete(b.owner, p)
		b.of(from).remove(p)
		b.mark(p, from)
	}
	if to != "" {
		b.owner[p] = to
		b.of(to).add(p)
		b.mark(p, to)
	}
}

func (b *blocks) of(owner string) *cover {
	if owner == b.node {
		return &b.own
	}
	return &b.others
}

// mark notes what changes what this node speaks for.
func (b *blocks) mark(p netip.Prefix, owner string) {
	if owner == b.node || b.own.contains(p) {
		b.changed[p] = struct{}{}
	}
}

// mine reports whether the addresses of p are this node's to speak for.
func (b *blocks) mine(p netip.Prefix) bool {
	own := b.own.narrowest(p)
	return own >= 0 && own >= b.others.narrowest(p)
}

// around returns the narrowest block of another node that contains p, and that node.
func (b *blocks) around(p netip.Prefix) (block netip.Prefix, owner string, owned bool) {
	bits := b.others.narrowest(p)
	if bits < 0 {
		return block, "", false
	}
	block = netip.PrefixFrom(p.Addr(), bits).Masked()
	return block, b.owner[block], true
}

func (b *blocks) settle() {
	forget(&b.changed)
	forget(&b.moved)
}
