package speakertest

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/bgp/filter"
)

// heard is a path as it goes over a session.
type heard struct {
	filter.Path
	nextHop netip.Addr
	over    []*Fake // who told it on, the first originated it
}

func (h heard) route(p bgp.Peer) bgp.Route {
	return bgp.Route{
		Peer: p.Name, Prefix: h.Prefix, NextHop: h.nextHop, ASPath: h.ASPath, Communities: h.Communities,
		LargeCommunities: h.LargeCommunities, LocalPref: h.LocalPref, MED: h.MED,
	}
}

// candidates are the paths that f would tell p, before filters.
func (f *Fake) candidates(p bgp.Peer) map[netip.Prefix]heard {
	out := map[netip.Prefix]heard{}
	own := map[netip.Prefix]struct{}{}
	for path := range f.paths {
		own[path.Prefix] = struct{}{}
		told := path.Advertisement == "" && path.Kind&p.Advertise != 0 ||
			path.Advertisement != "" && slices.Contains(p.Advertisements, path.Advertisement)
		if told && carries(p, path.Prefix) {
			out[path.Prefix] = heard{Path: filter.Path{Prefix: path.Prefix, Own: true}, nextHop: p.LocalAddr}
		}
	}
	for prefix, h := range out {
		out[prefix] = f.advertised(h, p)
	}
	if f.cfg.ClusterID.IsValid() {
		for prefix, h := range f.reflected(p) {
			if _, ours := own[prefix]; !ours && carries(p, prefix) {
				out[prefix] = h
			}
		}
	}
	return out
}

// advertised adds what the advertisements that h belongs to are told with.
func (f *Fake) advertised(h heard, p bgp.Peer) heard {
	for _, a := range f.cfg.Advertisements {
		if !slices.Contains(p.Advertisements, a.Name) || !slices.ContainsFunc(slices.Collect(maps.Keys(f.paths)), func(path bgp.Path) bool {
			return path.Prefix == h.Prefix && path.Advertisement == a.Name
		}) {
			continue
		}
		h.Communities = append(h.Communities, a.Communities...)
		h.LargeCommunities = append(h.LargeCommunities, a.LargeCommunities...)
		h.LocalPref = cmp.Or(h.LocalPref, a.LocalPref)
		h.MED = cmp.Or(h.MED, a.MED)
	}
	return h
}

// reflected are the best paths of others that a reflector tells p (RFC 4456).
func (f *Fake) reflected(p bgp.Peer) map[netip.Prefix]heard {
	out := map[netip.Prefix]heard{}
	for prefix, all := range f.ranked() {
		best := all[0]
		inside := outside(f, best.from)+outside(f, p) == 0
		if best.from.Addr == p.Addr || inside && !best.from.ReflectorClient && !p.ReflectorClient {
			continue
		}
		h := best.heard
		if p.NextHop == bgp.NextHopSelf || p.NextHop == bgp.NextHopAuto && outside(f, p) == 1 {
			h.nextHop = p.LocalAddr
		}
		out[prefix] = h
	}
	return out
}

// tells returns what f tells p.
func (f *Fake) tells(p bgp.Peer) map[netip.Prefix]heard {
	out := map[netip.Prefix]heard{}
	for prefix, h := range f.candidates(p) {
		path, ok, _ := f.ask(p.Export, filter.Export, p, h)
		if !ok {
			continue
		}
		if n := len(path.ASPath) - len(h.ASPath); outside(f, p) == 1 {
			path.ASPath = f.longer(path.ASPath[:n], h.ASPath)
		}
		h.Path = path
		h.over = append(slices.Clone(h.over), f)
		h.Own = false
		f.dress(&h, p)
		out[prefix] = h
	}
	return out
}

// longer is path as f tells it to another AS, with prepended in front. Our AS is
// the first always: many routers end the session else.
func (f *Fake) longer(prepended, path []uint32) []uint32 {
	out := slices.Concat(prepended, []uint32{f.cfg.ASN}, path)
	if out[0] != f.cfg.ASN {
		out = slices.Insert(out, 0, f.cfg.ASN)
	}
	return out
}

// dress makes h as it goes on the wire to p.
func (f *Fake) dress(h *heard, p bgp.Peer) {
	if f.cfg.Draining {
		low := uint32(0)
		h.LocalPref, h.Communities = &low, append(slices.Clone(h.Communities), bgp.GracefulShutdown)
	}
	if outside(f, p) == 1 {
		h.LocalPref = nil
	} else if h.LocalPref == nil {
		usual := uint32(100)
		h.LocalPref = &usual
	}
}

// keepsBack returns what filters keep from p, and which.
func (f *Fake) keepsBack(p bgp.Peer) map[netip.Prefix]string {
	out := map[netip.Prefix]string{}
	for prefix, h := range f.candidates(p) {
		if _, ok, why := f.ask(p.Export, filter.Export, p, h); !ok {
			out[prefix] = why
		}
	}
	return out
}

func (f *Fake) ask(names []string, d filter.Direction, p bgp.Peer, h heard) (filter.Path, bool, string) {
	var filters []bgp.Filter
	for _, name := range names {
		for _, one := range f.cfg.Filters {
			if one.Name == name {
				filters = append(filters, one)
			}
		}
	}
	session := bgp.PeerInternal
	if outside(f, p) == 1 {
		session = bgp.PeerExternal
	}
	return filter.Ask(filters, d, session, h.Path)
}

// accept reports what becomes of what p said, and why if nothing does.
func (f *Fake) accept(p bgp.Peer, h heard) (filter.Path, bool, string) {
	if slices.Contains(h.ASPath, f.cfg.ASN) && p.AllowOwnAS == 0 || slices.Contains(h.over, f) {
		return h.Path, false, "loop"
	}
	return f.ask(p.Import, filter.Import, p, h)
}

// accepts returns what f takes from p.
func (f *Fake) accepts(p bgp.Peer) map[netip.Prefix]heard {
	out := map[netip.Prefix]heard{}
	for prefix, h := range f.sessions[p.Addr].heard {
		if path, ok, _ := f.accept(p, h); ok {
			h.Path = path
			out[prefix] = h
		}
	}
	return out
}

// candidate is a path that f may use.
type candidate struct {
	heard
	from bgp.Peer
	ebgp int
}

// ranked returns the paths that f may use, the best first.
func (f *Fake) ranked() map[netip.Prefix][]candidate {
	out := map[netip.Prefix][]candidate{}
	for _, p := range f.cfg.Peers {
		for prefix, h := range f.accepts(p) {
			out[prefix] = append(out[prefix], candidate{h, p, outside(f, p)})
		}
	}
	for _, list := range out {
		slices.SortFunc(list, func(a, b candidate) int { return cmp.Or(rank(a, b), a.from.Addr.Compare(b.from.Addr)) })
	}
	return out
}

// rank orders by preference, the length of the AS path, and MED.
func rank(a, b candidate) int {
	value := func(v *uint32, otherwise uint32) uint32 {
		if v == nil {
			return otherwise
		}
		return *v
	}
	return cmp.Or(
		cmp.Compare(value(b.LocalPref, 100), value(a.LocalPref, 100)), cmp.Compare(len(a.ASPath), len(b.ASPath)),
		cmp.Compare(value(a.MED, 0), value(b.MED, 0)), cmp.Compare(b.ebgp, a.ebgp),
	)
}

// best returns the best paths. Our own hide all others.
func (f *Fake) best() map[netip.Prefix]bgp.Learned {
	out := map[netip.Prefix]bgp.Learned{}
	for prefix, list := range f.ranked() {
		l := bgp.Learned{Prefix: prefix}
		for _, c := range list {
			if rank(c, list[0]) == 0 {
				l.NextHops = append(l.NextHops, c.nextHop)
			}
		}
		slices.SortFunc(l.NextHops, netip.Addr.Compare)
		l.NextHops = slices.Compact(l.NextHops)
		out[prefix] = l
	}
	for p := range f.paths {
		delete(out, p.Prefix)
	}
	return out
}

// carries reports whether the session with p carries the prefix's family.
func carries(p bgp.Peer, prefix netip.Prefix) bool {
	if p.Families == 0 {
		return prefix.Addr().Is4() == p.Addr.Is4()
	}
	if prefix.Addr().Is4() {
		return p.Families&bgp.IPv4 != 0
	}
	return p.Families&bgp.IPv6 != 0
}
