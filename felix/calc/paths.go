package calc

import (
	"net/netip"

	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/felix/desired"
)

// paths is what this node says to its neighbours: the blocks it owns, used or
// not, and the addresses of its pods. What it learned it never says again. Each
// peer is told the kinds that it asks for, which is the speaker's business.
type paths struct {
	said said[desired.PathKey, bgp.Path]
}

func newPaths() paths {
	return paths{said: newSaid[desired.PathKey](identical[bgp.Path])}
}

func (p *paths) drain(blocks *blocks, holders *holders) {
	for cidr := range blocks.changed {
		p.originate(cidr, bgp.Blocks, blocks.own.has(cidr))
	}
	for a := range holders.changed {
		_, held := holders.winner(a)
		p.originate(single(a), bgp.Hosts, held)
	}
}

func (p *paths) originate(prefix netip.Prefix, kind bgp.Advertise, do bool) {
	var path *bgp.Path
	if do {
		path = &bgp.Path{Prefix: prefix, Kind: kind}
	}
	p.said.say(desired.PathKey{Prefix: prefix, Kind: kind}, path)
}
