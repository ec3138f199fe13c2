// Package convert turns API objects of BGP into the words of bgp. Agents use what
// it makes, and the controller tells authors what of an object means nothing. It
// is pure; what the schema of an object promises it does not check again.
package convert

import (
	"fmt"
	"maps"
	"net/netip"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/policy/selector"
)

// Filter converts a BGPFilter. The problem is what of it means nothing, with the
// path of its field: such a filter is not to be used. Empty: there is none.
func Filter(o *koratv1.BGPFilter) (f bgp.Filter, problem string) {
	f.Name = o.Name
	if f.Import, problem = rules("spec.import", o.Spec.Import); problem != "" {
		return f, problem
	}
	f.Export, problem = rules("spec.export", o.Spec.Export)
	return f, problem
}

func rules(field string, list []koratv1.BGPFilterRule) (out []bgp.FilterRule, problem string) {
	for i := range list {
		r, problem := rule(&list[i])
		if problem != "" {
			return nil, fmt.Sprintf("%s[%d].%s", field, i, problem)
		}
		out = append(out, r)
	}
	return out, ""
}

var (
	families  = map[koratv1.IPFamily]bgp.Families{koratv1.FamilyIPv4: bgp.IPv4, koratv1.FamilyIPv6: bgp.IPv6}
	sources   = map[koratv1.RouteSource]bgp.Source{koratv1.SourceOwn: bgp.SourceOwn, koratv1.SourceLearned: bgp.SourceLearned}
	peerTypes = map[koratv1.PeerType]bgp.PeerType{koratv1.PeerTypeIBGP: bgp.PeerInternal, koratv1.PeerTypeEBGP: bgp.PeerExternal}
)

func rule(r *koratv1.BGPFilterRule) (out bgp.FilterRule, problem string) {
	out = bgp.FilterRule{
		Accept: r.Action == koratv1.FilterAccept, Families: families[r.Family], Source: sources[r.Source],
		Interfaces: r.Interfaces, PeerType: peerTypes[r.PeerType], ASPath: asPath(r.ASPathPrefix),
	}
	if out.Prefixes, problem = prefixes("prefixes", r.Prefixes); problem != "" {
		return out, problem
	}
	if out.NotPrefixes, problem = prefixes("notPrefixes", r.NotPrefixes); problem != "" {
		return out, problem
	}
	if out.Communities, out.LargeCommunities, problem = Communities(r.Communities); problem != "" {
		return out, "communities: " + problem
	}
	if r.Set == nil {
		return out, ""
	}
	s := &out.Set
	s.Prepend, s.LocalPref, s.MED = asPath(r.Set.PrependASPath), Number(r.Set.LocalPreference), Number(r.Set.MED)
	if s.AddCommunities, s.AddLargeCommunities, problem = Communities(r.Set.AddCommunities); problem != "" {
		return out, "set.addCommunities: " + problem
	}
	if s.RemoveCommunities, s.RemoveLargeCommunities, problem = Communities(r.Set.RemoveCommunities); problem != "" {
		return out, "set.removeCommunities: " + problem
	}
	return out, ""
}

// prefixes: lengths of a list of prefixes are as routers have them: none is the
// prefix itself, a least one alone goes to the longest, a greatest one alone
// begins at the prefix.
func prefixes(field string, list []koratv1.PrefixMatch) (out []bgp.PrefixRange, problem string) {
	for i, m := range list {
		p, err := netip.ParsePrefix(string(m.CIDR))
		if err != nil {
			return nil, fmt.Sprintf("%s[%d].cidr: %q: expected a prefix such as 10.0.0.0/8", field, i, m.CIDR)
		}
		least, longest := int32(p.Bits()), int32(p.Addr().BitLen())
		r := struct{ min, max int32 }{least, least}
		if m.MinLength != nil {
			r.min, r.max = *m.MinLength, longest
		}
		if m.MaxLength != nil {
			r.max = *m.MaxLength
		}
		switch {
		case r.min < least || r.min > longest:
			return nil, fmt.Sprintf("%s[%d].minLength: %d: expected a length of prefixes inside %s, %d to %d", field, i, r.min, p, least, longest)
		case r.max < r.min || r.max > longest:
			return nil, fmt.Sprintf("%s[%d].maxLength: %d: expected a length of prefixes inside %s, %d to %d", field, i, r.max, p, r.min, longest)
		}
		out = append(out, bgp.PrefixRange{Prefix: p.Masked(), Min: uint8(r.min), Max: uint8(r.max)})
	}
	return out, ""
}

// Communities converts communities of both sorts. The problem is about the first
// that is none.
func Communities(list []koratv1.Community) (normal []bgp.Community, large []bgp.LargeCommunity, problem string) {
	for _, c := range list {
		var n [3]uint64
		parts := strings.Split(string(c), ":")
		bits := 16
		if len(parts) == 3 {
			bits = 32
		}
		ok := len(parts) == 2 || len(parts) == 3
		for i := 0; ok && i < len(parts); i++ {
			var err error
			n[i], err = strconv.ParseUint(parts[i], 10, bits)
			ok = err == nil
		}
		switch {
		case !ok:
			return nil, nil, fmt.Sprintf("%q: expected a community such as 65000:120 or 65000:1:120", c)
		case len(parts) == 2:
			normal = append(normal, bgp.Community(n[0]<<16|n[1]))
		default:
			large = append(large, bgp.LargeCommunity{Global: uint32(n[0]), Local1: uint32(n[1]), Local2: uint32(n[2])})
		}
	}
	return normal, large, ""
}

// Number converts a number that may be left out.
func Number(n *int64) *uint32 {
	if n == nil {
		return nil
	}
	v := uint32(*n)
	return &v
}

func asPath(list []koratv1.ASNumber) (out []uint32) {
	for _, n := range list {
		out = append(out, uint32(n))
	}
	return out
}

var (
	nextHops   = map[koratv1.NextHopMode]bgp.NextHop{koratv1.NextHopSelf: bgp.NextHopSelf, koratv1.NextHopKeep: bgp.NextHopKeep}
	advertises = map[koratv1.Advertise]bgp.Advertise{
		koratv1.AdvertiseBlocks: bgp.Blocks, koratv1.AdvertiseHosts: bgp.Hosts, koratv1.AdvertiseServices: bgp.Services,
	}
)

// Session returns what a BGPPeer says of each of its sessions, whoever has it: no
// names, no addresses of nodes, no password. An address that does not parse is the
// zero Addr.
func Session(s *koratv1.BGPPeerSpec) bgp.Peer {
	addr, _ := netip.ParseAddr(s.Address)
	p := bgp.Peer{
		Addr: addr.Unmap(), Interface: s.Interface, Port: uint16(s.Port), ASN: uint32(s.ASNumber), LocalASN: uint32(s.LocalASNumber),
		Hold: Duration(s.HoldTime, koratv1.DefaultHoldTime), TTL: uint8(s.TTL), GTSM: uint8(s.TTLSecurity),
		AllowOwnAS: uint8(s.AllowOwnAS), MaxPrefixes: uint32(s.MaxPrefixes), NextHop: nextHops[s.NextHop],
		ReplaceAS: s.ReplaceAS, RemovePrivateAS: s.RemovePrivateAS, AddPaths: s.AddPaths,
		OnePath: s.AddPathsCapability == koratv1.SwitchDisabled, BFD: bfd(s.BFD),
	}
	p.Keepalive = Duration(s.KeepaliveTime, p.Hold/3)
	for _, a := range s.Advertise {
		p.Advertise |= advertises[a]
	}
	for _, f := range s.Families {
		p.Families |= families[f]
	}
	if p.Interface != "" && p.Families == 0 {
		p.Families = bgp.IPv4 | bgp.IPv6
	}
	if gr := s.GracefulRestart; gr != nil {
		p.RestartTime, p.LongLived = Duration(gr.RestartTime, 0), Duration(gr.LongLivedStaleTime, 0)
	}
	return p
}

func bfd(b *koratv1.BFD) bgp.BFD {
	if b == nil {
		return bgp.BFD{}
	}
	hops := max(b.Hops, 1)
	out := bgp.BFD{
		Enabled:  true,
		Transmit: Duration(b.TransmitInterval, koratv1.DefaultBFDInterval), Receive: Duration(b.ReceiveInterval, koratv1.DefaultBFDInterval),
		Multiplier: uint8(b.Multiplier), Multihop: hops > 1, MinTTL: uint8(256 - hops),
	}
	if out.Multiplier == 0 {
		out.Multiplier = koratv1.DefaultBFDMultiplier
	}
	return out
}

// Duration converts a duration that may be left out.
func Duration(d *metav1.Duration, unset time.Duration) time.Duration {
	if d == nil {
		return unset
	}
	return d.Duration
}

// PeerLabels are those of the object and its name, by which an advertisement can
// choose one.
func PeerLabels(o *koratv1.BGPPeer) selector.Labels {
	labels := maps.Clone(o.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	labels[koratv1.PeerNameLabel] = o.Name
	return selector.MakeLabels(labels)
}
