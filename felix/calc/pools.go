package calc

import (
	"net/netip"
	"slices"

	"github.com/koratnet/korat/felix/event"
)

// pools knows which addresses belong to Korat at all. A disabled pool counts:
// its live addresses stay.
type pools struct {
	cover   cover
	changed bool // in this flush
	cidrs   words[[]netip.Prefix]
}

func newPools() pools {
	return pools{cover: newCover(), cidrs: words[[]netip.Prefix]{same: slices.Equal[[]netip.Prefix]}}
}

func (p *pools) drain(in *table[event.Pool]) {
	for name, was := range in.was {
		if was != nil {
			p.cover.remove(was.CIDR)
		}
		if is := in.now[name]; is != nil {
			p.cover.add(is.CIDR)
		}
		p.changed = true
	}
	if !p.changed {
		return
	}
	cidrs := make([]netip.Prefix, 0, len(p.cover.count))
	for cidr := range p.cover.count { // whole, because pools are few and told whole
		cidrs = append(cidrs, cidr)
	}
	slices.SortFunc(cidrs, netip.Prefix.Compare)
	p.cidrs.say(cidrs)
}

func (p *pools) settle() { p.changed = false }
