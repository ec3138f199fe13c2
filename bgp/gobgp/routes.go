package gobgp

import (
	"cmp"
	"fmt"
	"net/netip"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/koratnet/korat/bgp"
)

// lister gathers routes out of GoBGP's tables. It stops at the first error.
type lister struct {
	srv   tables
	which bgp.Routes
	best  map[bestKey]struct{}
	known []learnedBest // of the family, for reflectors
	out   []bgp.Route
	err   error

	explain  explainer
	paths    map[netip.Prefix]said
	reflects bool
}

// learnedBest is a path that a reflector tells on.
type learnedBest struct {
	bgp.Route
	from netip.Addr
}

type tables interface {
	ListPath(apiutil.ListPathRequest, func(packet.NLRI, []*apiutil.Path)) error
}

// bestKey names a path in the local table.
type bestKey struct {
	prefix netip.Prefix
	from   netip.Addr
	id     uint32
}

// table reads which paths are in use, and lists our own.
func (l *lister) table(family packet.Family) {
	l.known = nil
	l.list(apiutil.ListPathRequest{TableType: api.TableType_TABLE_TYPE_GLOBAL, Family: family}, func(prefix netip.Prefix, p *apiutil.Path) {
		own := !p.PeerAddress.IsValid()
		if p.Best && !own {
			l.best[bestKey{prefix, p.PeerAddress.Unmap(), p.RemoteID}] = struct{}{}
			if l.reflects {
				l.known = append(l.known, learnedBest{routeOf(prefix, p), p.PeerAddress.Unmap()})
			}
		}
		if own && l.which.Peer == "" {
			l.out = append(l.out, bgp.Route{Prefix: prefix, Best: true})
		}
	})
}

// heard lists what the neighbour said.
func (l *lister) heard(p applied, family packet.Family) {
	l.list(apiutil.ListPathRequest{
		TableType: api.TableType_TABLE_TYPE_ADJ_IN, Name: p.Addr.String(), Family: family,
	}, func(prefix netip.Prefix, path *apiutil.Path) {
		r := routeOf(prefix, path)
		r.Peer, r.Stale = p.Name, path.Stale
		_, r.Best = l.best[bestKey{prefix, p.Addr, path.RemoteID}]
		r.Rejected = l.explain.refused(p.Peer, r, path.Attrs)
		l.out = append(l.out, r)
	})
}

// told lists what the neighbour was told. GoBGP does not keep it: it sends all
// paths through the policy again.
func (l *lister) told(p applied, family packet.Family) {
	l.list(apiutil.ListPathRequest{
		TableType: api.TableType_TABLE_TYPE_ADJ_OUT, Name: p.Addr.String(), Family: family,
	}, func(prefix netip.Prefix, path *apiutil.Path) {
		r := routeOf(prefix, path)
		r.Peer, r.Told = p.Name, true
		l.out = append(l.out, r)
	})
}

// keptBack lists what p would be told but for a filter.
func (l *lister) keptBack(p applied, t outTerms, family packet.Family) {
	if len(p.Export) == 0 {
		return
	}
	add := func(r bgp.Route, own bool) {
		if !l.which.Within(r.Prefix) {
			return
		}
		if why := l.explain.keptBack(p.Peer, r, own); why != "" {
			l.out = append(l.out, bgp.Route{Peer: p.Name, Told: true, Prefix: r.Prefix, Rejected: why})
		}
	}
	for prefix, as := range l.paths {
		if v4 := prefix.Addr().Is4(); v4 == (family == packet.RF_IPv4_UC) {
			if a, told := t.tells(label{v4, as}); told {
				add(bgp.Route{
					Prefix: prefix, Communities: a.Communities, LargeCommunities: a.LargeCommunities, LocalPref: a.LocalPref, MED: a.MED,
				}, true)
			}
		}
	}
	for _, r := range l.known {
		if r.from != p.Addr {
			add(r.Route, false)
		}
	}
}

func (l *lister) list(r apiutil.ListPathRequest, each func(netip.Prefix, *apiutil.Path)) {
	if l.err != nil {
		return
	}
	if err := eachPath(l.srv, l.which, r, each); err != nil {
		l.err = fmt.Errorf("list %s of %s: %w", r.TableType, cmp.Or(r.Name, "this node"), err)
	}
}

// eachPath calls each for every path of a table that is within which.Prefix.
func eachPath(srv tables, which bgp.Routes, r apiutil.ListPathRequest, each func(netip.Prefix, *apiutil.Path)) error {
	if which.Prefix.IsValid() {
		if v4 := r.Family == packet.RF_IPv4_UC; v4 != which.Prefix.Addr().Is4() {
			return nil
		}
		r.Prefixes = []*apiutil.LookupPrefix{{Prefix: which.Prefix.String(), LookupOption: apiutil.LOOKUP_LONGER}}
	}
	return srv.ListPath(r, func(n packet.NLRI, paths []*apiutil.Path) {
		if nlri, ok := n.(*packet.IPAddrPrefix); ok && which.Within(nlri.Prefix) {
			for _, p := range paths {
				each(nlri.Prefix, p)
			}
		}
	})
}

// routeOf reads the attributes of a path.
func routeOf(prefix netip.Prefix, p *apiutil.Path) bgp.Route {
	r := bgp.Route{Prefix: prefix, NextHop: nextHop(p.Attrs)}
	for _, a := range p.Attrs {
		switch a := a.(type) {
		case *packet.PathAttributeAsPath:
			for _, s := range a.Value {
				r.ASPath = append(r.ASPath, s.GetAS()...)
			}
		case *packet.PathAttributeCommunities:
			for _, c := range a.Value {
				r.Communities = append(r.Communities, bgp.Community(c))
			}
		case *packet.PathAttributeLargeCommunities:
			for _, c := range a.Values {
				r.LargeCommunities = append(r.LargeCommunities, bgp.LargeCommunity{Global: c.ASN, Local1: c.LocalData1, Local2: c.LocalData2})
			}
		case *packet.PathAttributeLocalPref:
			r.LocalPref = &a.Value
		case *packet.PathAttributeMultiExitDisc:
			r.MED = &a.Value
		}
	}
	return r
}
