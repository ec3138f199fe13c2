package calc

import (
	"net/netip"

	"github.com/koratnet/korat/felix/event"
)

// blocks knows the blocks that this node owns, and those inside of them that it
// gave to others: an address belongs to the narrowest block that contains it.
type blocks struct {
	node    string
	own     cover
	others  cover
	changed map[netip.Prefix]struct{} // own ones, and parts of these, that came or went in this flush

	owner map[netip.Prefix]string   // of others
	moved map[netip.Prefix]struct{} // of others that came, went or have another owner in this flush
}

func newBlocks(node string) blocks {
	return blocks{
		node: node, own: newCover(), others: newCover(), changed: map[netip.Prefix]struct{}{},
		owner: map[netip.Prefix]string{}, moved: map[netip.Prefix]struct{}{},
	}
}

func (b *blocks) drain(in *table[event.Block]) {
	for name, was := range in.was {
		is := in.now[name]
		if was != nil {
			b.of(was).remove(was.CIDR)
			b.mark(was)
		}
		if is != nil {
			b.of(is).add(is.CIDR)
			b.mark(is)
		}
		b.remember(was, is)
	}
}

// remember keeps who owns the blocks of others. Blocks are named after their
// prefixes, so that there is one of a prefix.
func (b *blocks) remember(was, is *event.Block) {
	if was != nil && was.Owner.Node != b.node {
		delete(b.owner, was.CIDR)
		b.moved[was.CIDR] = struct{}{}
	}
	if is != nil && is.Owner.Node != b.node {
		b.owner[is.CIDR] = is.Owner.Node
		b.moved[is.CIDR] = struct{}{}
	}
}

func (b *blocks) of(x *event.Block) *cover {
	if x.Owner.Node == b.node {
		return &b.own
	}
	return &b.others
}

// mark notes what changes what this node speaks for.
func (b *blocks) mark(x *event.Block) {
	if x.Owner.Node == b.node || b.own.contains(x.CIDR) {
		b.changed[x.CIDR] = struct{}{}
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
	owner, owned = b.owner[block]
	return block, owner, owned
}

func (b *blocks) settle() {
	forget(&b.changed)
	forget(&b.moved)
}
