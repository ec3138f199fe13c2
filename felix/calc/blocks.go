package calc

import (
	"net/netip"

	"github.com/koratnet/korat/felix/event"
)

// blocks knows the blocks that this node owns.
type blocks struct {
	node    string
	own     cover
	changed map[netip.Prefix]struct{} // came or went in this flush
}

func newBlocks(node string) blocks {
	return blocks{node: node, own: newCover(), changed: map[netip.Prefix]struct{}{}}
}

func (b *blocks) drain(in *table[event.Block]) {
	for name, was := range in.was {
		is := in.now[name]
		if was != nil && was.Owner.Node == b.node {
			b.own.remove(was.CIDR)
			b.changed[was.CIDR] = struct{}{}
		}
		if is != nil && is.Owner.Node == b.node {
			b.own.add(is.CIDR)
			b.changed[is.CIDR] = struct{}{}
		}
	}
}

func (b *blocks) settle() { forget(&b.changed) }
