package gobgp

import (
	"context"
	"fmt"
	"math"
	"net/netip"
	"slices"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/bgp/filter"
)

// explainer says why paths are not used or not told. It judges by bgp/filter:
// GoBGP knows only that a path was rejected.
type explainer struct {
	cfg    bgp.Config
	links  map[string][]netip.Prefix // set if a filter looks at links
	labels []label
	own    map[netip.Addr]struct{}
}

func (s *Speaker) explainer() explainer {
	e := explainer{cfg: s.cfg, labels: s.labels.list, own: s.learned.ownAddrs()}
	if usesLinks(s.cfg) {
		e.links = linksHere()
	}
	return e
}

// refused returns why what p said is not used; empty: it may be.
func (e explainer) refused(p bgp.Peer, r bgp.Route, attrs []packet.PathAttributeInterface) string {
	loops := 0
	for _, asn := range r.ASPath {
		if asn == localASN(e.cfg, p) {
			loops++
		}
	}
	session := sessionType(e.cfg, p)
	_, self := e.own[r.NextHop]
	switch {
	case loops > int(p.AllowOwnAS):
		return "the AS path has our AS"
	case session == bgp.PeerInternal && originator(attrs) == e.cfg.RouterID:
		return "this node said it first"
	case session == bgp.PeerInternal && r.LocalPref != nil && uint64(*r.LocalPref)+uint64(len(e.labels)) > math.MaxUint32:
		return "the local preference is one of our own"
	case self:
		return "the next hop is this node"
	}
	if _, ok, why := filter.Ask(filtersOf(e.cfg, p.Import), filter.Import, session, e.path(p, r, false)); !ok {
		return why
	}
	return ""
}

func originator(attrs []packet.PathAttributeInterface) netip.Addr {
	for _, a := range attrs {
		if o, ok := a.(*packet.PathAttributeOriginatorId); ok {
			return o.Value
		}
	}
	return netip.Addr{}
}

// keptBack returns which filter keeps the path from p; empty: none.
func (e explainer) keptBack(p bgp.Peer, r bgp.Route, own bool) string {
	path := e.path(p, r, own)
	if _, ok, why := filter.Ask(filtersOf(e.cfg, p.Export), filter.Export, sessionType(e.cfg, p), path); !ok {
		return why
	}
	return ""
}

func (e explainer) path(p bgp.Peer, r bgp.Route, own bool) filter.Path {
	out := filter.Path{
		Prefix: r.Prefix, Own: own, ASPath: r.ASPath, Communities: r.Communities, LargeCommunities: r.LargeCommunities,
		LocalPref: r.LocalPref, MED: r.MED,
	}
	hop := r.NextHop
	if own {
		hop = p.LocalAddr
	}
	if hop.IsLinkLocalUnicast() && p.Interface != "" {
		out.Links = []string{p.Interface}
	}
	for name, nets := range e.links {
		if slices.ContainsFunc(nets, func(n netip.Prefix) bool { return !n.Addr().IsLinkLocalUnicast() && n.Contains(hop) }) {
			out.Links = append(out.Links, name)
		}
	}
	return out
}

// accepted counts how many prefixes of p's the filters let in. Without filters
// that is counted by GoBGP; with them it is counted again only after p said
// something or they changed.
func (s *Speaker) accepted(p applied, state *api.PeerState, byGoBGP int, explain func() explainer) (int, error) {
	if len(p.Import) == 0 {
		return byGoBGP, nil
	}
	now := tally{rules: key(s.policy.terms[p.Addr].in), updates: state.GetMessages().GetReceived().GetUpdate()}
	if old := s.tallies[p.Addr]; old.rules == now.rules && old.updates == now.updates {
		return old.accepted, nil
	}
	e := explain()
	for _, f := range []packet.Family{packet.RF_IPv4_UC, packet.RF_IPv6_UC} {
		err := eachPath(s.srv, bgp.Routes{}, apiutil.ListPathRequest{
			TableType: api.TableType_TABLE_TYPE_ADJ_IN, Name: p.Addr.String(), Family: f,
		}, func(prefix netip.Prefix, path *apiutil.Path) {
			if e.refused(p.Peer, routeOf(prefix, path), path.Attrs) == "" {
				now.accepted++
			}
		})
		if err != nil {
			return 0, fmt.Errorf("count what %s said: %w", p.Name, err)
		}
	}
	s.tallies[p.Addr] = now
	return now.accepted, nil
}

// tally is how many prefixes were accepted, and of what state that was true.
type tally struct {
	rules    string
	updates  uint64
	accepted int
}

// Routes returns the paths that neighbours told and were told, and our own.
func (s *Speaker) Routes(_ context.Context, which bgp.Routes) ([]bgp.Route, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.srv == nil {
		return nil, nil
	}
	l := lister{
		srv: s.srv, which: which, best: map[bestKey]struct{}{}, explain: s.explainer(),
		paths: s.paths, reflects: s.cfg.ClusterID.IsValid(),
	}
	for _, family := range []packet.Family{packet.RF_IPv4_UC, packet.RF_IPv6_UC} {
		l.table(family)
		for _, p := range sortedPeers(s.peers) {
			if which.Peer == "" || which.Peer == p.Name {
				l.heard(p, family)
				if s.sessions.up(p.Addr) {
					l.told(p, family)
					l.keptBack(p, s.policy.terms[p.Addr].out, family)
				}
			}
		}
	}
	if l.err != nil {
		return nil, l.err
	}
	slices.SortFunc(l.out, bgp.Route.Compare)
	return l.out, nil
}
