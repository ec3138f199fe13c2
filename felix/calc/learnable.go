package calc

import (
	"net/netip"
	"slices"
)

// learnable knows of which prefixes routes are taken from neighbours: those in
// pools, in the ranges of services, and in what people allow beside. A default
// route, which would lead all else, is taken only when it is allowed by itself.
// What this node announces of services it does not learn, or two nodes could send
// to each other what neither serves.
type learnable struct {
	pools      *pools
	advertised *advertised

	services cover
	extra    cover
	defaults map[netip.Prefix]bool
	allowed  []netip.Prefix // what extra and defaults are made of
	changed  bool           // in this flush
}

func newLearnable(pools *pools, advertised *advertised) learnable {
	return learnable{pools: pools, advertised: advertised, services: newCover(), extra: newCover(), defaults: map[netip.Prefix]bool{}}
}

func (l *learnable) drain(in *inputs) {
	l.changed = l.pools.changed
	if l.advertised.moved {
		l.changed, l.services = true, newCover()
		for _, p := range l.advertised.nets {
			l.services.add(p)
		}
	}
	var allowed []netip.Prefix
	if c := in.bgp.now["default"]; c != nil {
		allowed = c.Learn
	}
	if slices.Equal(allowed, l.allowed) {
		return
	}
	l.changed, l.allowed, l.extra = true, allowed, newCover()
	clear(l.defaults)
	for _, p := range allowed {
		if p.Bits() == 0 {
			l.defaults[p] = true
		} else {
			l.extra.add(p)
		}
	}
}

func (l *learnable) has(p netip.Prefix) bool {
	allowed := l.pools.cover.contains(p) || l.services.contains(p) || l.extra.contains(p) || l.defaults[p]
	return allowed && !l.advertised.has(p)
}

func (l *learnable) settle() { l.changed = false }
