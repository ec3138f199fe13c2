package gobgp

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/koratnet/korat/bgp"
)

// Routes returns the paths that neighbours told and were told, and our own.
func (s *Speaker) Routes(_ context.Context, which bgp.Routes) ([]bgp.Route, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.srv == nil {
		return nil, nil
	}
	l := lister{srv: s.srv, which: which, best: map[bestKey]struct{}{}}
	for _, family := range []packet.Family{packet.RF_IPv4_UC, packet.RF_IPv6_UC} {
		l.table(family)
		for _, p := range sortedPeers(s.peers) {
			if which.Peer == "" || which.Peer == p.Name {
				l.peer(p, family)
			}
		}
	}
	if l.err != nil {
		return nil, l.err
	}
	slices.SortFunc(l.out, compareRoutes)
	return l.out, nil
}

// lister gathers routes out of GoBGP's tables. It stops at the first error.
type lister struct {
	srv   tables
	which bgp.Routes
	best  map[bestKey]struct{}
	out   []bgp.Route
	err   error
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
	l.list(apiutil.ListPathRequest{TableType: api.TableType_TABLE_TYPE_GLOBAL, Family: family}, func(prefix netip.Prefix, p *apiutil.Path) {
		own := !p.PeerAddress.IsValid()
		if p.Best && !own {
			l.best[bestKey{prefix, p.PeerAddress.Unmap(), p.RemoteID}] = struct{}{}
		}
		if own && l.which.Peer == "" {
			l.out = append(l.out, bgp.Route{Prefix: prefix, Best: true})
		}
	})
}

// peer lists what the neighbour said and was told.
func (l *lister) peer(p applied, family packet.Family) {
	for _, table := range []api.TableType{api.TableType_TABLE_TYPE_ADJ_IN, api.TableType_TABLE_TYPE_ADJ_OUT} {
		told := table == api.TableType_TABLE_TYPE_ADJ_OUT
		l.list(apiutil.ListPathRequest{TableType: table, Name: p.Addr.String(), Family: family}, func(prefix netip.Prefix, path *apiutil.Path) {
			r := routeOf(prefix, path)
			r.Peer, r.Told = p.Name, told
			if !told {
				_, r.Best = l.best[bestKey{prefix, p.Addr, path.RemoteID}]
				r.Stale = path.Stale
			}
			l.out = append(l.out, r)
		})
	}
}

func (l *lister) list(r apiutil.ListPathRequest, each func(netip.Prefix, *apiutil.Path)) {
	if l.err != nil {
		return
	}
	if l.which.Prefix.IsValid() {
		if v4 := r.Family == packet.RF_IPv4_UC; v4 != l.which.Prefix.Addr().Is4() {
			return
		}
		r.Prefixes = []*apiutil.LookupPrefix{{
			Prefix: l.which.Prefix.String(), LookupOption: apiutil.LOOKUP_LONGER,
		}}
	}
	err := l.srv.ListPath(r, func(n packet.NLRI, paths []*apiutil.Path) {
		nlri, ok := n.(*packet.IPAddrPrefix)
		if !ok {
			return
		}
		for _, p := range paths {
			each(nlri.Prefix, p)
		}
	})
	if err != nil {
		l.err = fmt.Errorf("list %s of %s: %w", r.TableType, cmp.Or(r.Name, "this node"), err)
	}
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

func compareRoutes(a, b bgp.Route) int {
	told := func(r bgp.Route) int {
		if r.Told {
			return 1
		}
		return 0
	}
	return cmp.Or(
		a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()),
		cmp.Compare(told(a), told(b)), cmp.Compare(a.Peer, b.Peer), a.NextHop.Compare(b.NextHop),
	)
}

// Break ends the session with the peer at addr without keeping what it said.
// GoBGP has no word for it but to forget the peer: the neighbour gets a
// NOTIFICATION, if it still hears, and the session is set up from the beginning.
func (s *Speaker) Break(ctx context.Context, addr netip.Addr, why string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.peers[addr]
	if !ok || s.srv == nil {
		return nil
	}
	if err := s.removePeer(ctx, p); err != nil {
		return err
	}
	if err := s.addPeer(ctx, p); err != nil {
		return err
	}
	s.sessions.broken(addr, why)
	return nil
}
