package iptables

import (
	"net/netip"
	"slices"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy/ir"
)

// wantSources keeps in mind from where pods may send beside their addresses.
func (f *Firewall) wantSources(iface string, e *desired.Endpoint) {
	var now []netip.Prefix
	if e != nil && ifaceName.MatchString(iface) {
		now = familyNets(e.Sources, f.cfg.Family)
	}
	if slices.Equal(now, f.sources[iface]) {
		return
	}
	f.restyled = true
	if delete(f.sources, iface); len(now) > 0 {
		f.sources[iface] = now
	}
}

// wantFixed keeps in mind whether the sets are there that our own rules name, and
// whether there is something in them.
func (f *Firewall) wantFixed(id ir.SetID, c *desired.SetChange) {
	switch id {
	case desired.NodesSet: // of these, only that it is there
		if _, known := f.fixed[id]; known == c.Gone {
			f.restyled = true
		}
		if delete(f.fixed, id); !c.Gone {
			f.fixed[id] = map[ir.Member]struct{}{}
		}
		return
	case desired.ServicesSet, desired.MasqueradeSet, desired.InsideSet, desired.EncryptedSet:
	default:
		return
	}
	if f.restyled = true; c.Gone {
		delete(f.fixed, id)
		return
	}
	if f.fixed[id] == nil {
		f.fixed[id] = map[ir.Member]struct{}{}
	}
	c.Apply(f.fixed[id])
}

// holds reports whether a fixed set has members of our family.
func (f *Firewall) holds(id ir.SetID) bool {
	for m := range f.fixed[id] {
		if f.cfg.Family.Is(m.Prefix.Addr()) {
			return true
		}
	}
	return false
}
