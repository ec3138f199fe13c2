package peering

import (
	"fmt"

	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/felix/desired"
)

func sessionOf(s bgp.Session) *Session {
	out := &Session{
		Peer: s.Peer, AS: s.ASN, State: s.State, Received: s.Received, Accepted: s.Accepted, Advertised: s.Advertised,
		BFD: s.BFD, Error: s.LastError,
	}
	if s.Addr.IsValid() {
		out.Address = s.Addr.String()
	}
	if !s.Since.IsZero() {
		out.Since = &s.Since
	}
	return out
}

func routeOf(r bgp.Route) *Route {
	out := &Route{
		Peer: r.Peer, Told: r.Told, Prefix: r.Prefix.String(), ASPath: r.ASPath, LocalPreference: r.LocalPref, MED: r.MED,
		Best: r.Best, Stale: r.Stale, Rejected: r.Rejected,
	}
	if r.NextHop.IsValid() {
		out.NextHop = r.NextHop.String()
	}
	for _, c := range r.Communities {
		out.Communities = append(out.Communities, fmt.Sprintf("%d:%d", c>>16, c&0xffff))
	}
	for _, c := range r.LargeCommunities {
		out.Communities = append(out.Communities, fmt.Sprintf("%d:%d:%d", c.Global, c.Local1, c.Local2))
	}
	return out
}

var kinds = map[desired.RouteKind]string{
	desired.Local: "local", desired.Unreachable: "unreachable", desired.Via: "via", desired.Tunneled: "tunnel", desired.Closed: "closed",
}

func entryOf(r *desired.Route) *Entry {
	out := &Entry{Prefix: r.Prefix.String(), Kind: kinds[r.Kind], Interface: r.Interface}
	for _, h := range r.NextHops {
		out.NextHops = append(out.NextHops, h.String())
	}
	return out
}
