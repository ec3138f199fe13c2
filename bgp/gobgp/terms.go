package gobgp

import (
	"encoding/json"
	"fmt"
	"math"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/bgp/filter"
)

// said is as what this node originates a prefix: by kind, or as belonging to
// advertisements. It is comparable; the zero said is not at all.
type said struct {
	kinds bgp.Advertise
	ads   string // "KIND NAME" lines, sorted
}

func (s said) with(p bgp.Path) said {
	if p.Advertisement == "" {
		s.kinds |= p.Kind
		return s
	}
	lines := s.lines()
	if i, there := slices.BinarySearch(lines, adLine(p)); !there {
		s.ads = strings.Join(slices.Insert(lines, i, adLine(p)), "\n")
	}
	return s
}

func (s said) without(p bgp.Path) said {
	if p.Advertisement == "" {
		s.kinds &^= p.Kind
		return s
	}
	s.ads = strings.Join(slices.DeleteFunc(s.lines(), func(l string) bool { return l == adLine(p) }), "\n")
	return s
}

func (s said) lines() []string {
	if s.ads == "" {
		return nil
	}
	return strings.Split(s.ads, "\n")
}

func adLine(p bgp.Path) string { return fmt.Sprintf("%d %s", p.Kind, p.Advertisement) }

// belongs reports whether the prefix belongs to the advertisement of that name.
func (s said) belongs(name string) bool {
	return slices.ContainsFunc(s.lines(), func(l string) bool {
		_, n, _ := strings.Cut(l, " ")
		return n == name
	})
}

// label is all that decides who is told a path of ours, and with what. It is on
// the path as its LOCAL_PREF, see labels.
type label struct {
	v4 bool
	said
}

// labels gives each label a LOCAL_PREF. These are the highest there are, which
// does two things at once: nothing learned is better than a path of our own, and
// the export policy tells labels apart by comparing an integer. They never leave:
// the export policy sets the preference that goes on the wire, and GoBGP takes
// the attribute off for other ASes.
type labels struct {
	list []label // the preference of list[i] is MaxUint32-i
}

// highestPref is the highest preference that a user may set: those above are
// for labels.
const highestPref = math.MaxUint32 - 1<<16

// pref returns the preference of k.
func (l *labels) pref(k label) uint32 {
	i := slices.Index(l.list, k)
	if i < 0 {
		i = len(l.list)
		l.list = append(l.list, k)
	}
	return math.MaxUint32 - uint32(i)
}

// terms are what holds for the paths between this node and a peer. Peers with
// equal terms share the statements of GoBGP's policy.
type terms struct {
	in  []rule // what is taken from the peer
	out outTerms
}

// outTerms are about what a peer is told.
type outTerms struct {
	External           bool
	SessionV4          bool
	Families           bgp.Families
	Told               bgp.Advertise
	Ads                []bgp.Advertisement // sorted by name
	Rules              []rule
	NextHop            bgp.NextHop
	NextHop4, NextHop6 netip.Addr
	LocalASN           uint32
	Draining, Reflects bool
}

// rule is a rule of a filter that can match on the session.
type rule struct {
	bgp.FilterRule
	// Nets are those on the links that FilterRule.Interfaces names; not nil when it
	// names any.
	Nets []netip.Prefix
}

// key is equal for equal terms.
func key(t any) string {
	b, err := json.Marshal(t)
	if err != nil {
		panic("bug: terms cannot be written: " + err.Error())
	}
	return string(b)
}

// termsOf works out the terms of p. links are the subnets of this node's links.
func termsOf(c bgp.Config, p bgp.Peer, links map[string][]netip.Prefix) terms {
	external := p.ASN != localASN(c, p)
	t := terms{
		in: rulesOf(c, p, filter.Import, links),
		out: outTerms{
			External: external, SessionV4: p.Addr.Is4(), Families: families(p), Told: p.Advertise,
			Rules: rulesOf(c, p, filter.Export, links), NextHop: p.NextHop, NextHop4: p.NextHop4, NextHop6: p.NextHop6,
			LocalASN: localASN(c, p), Draining: c.Draining, Reflects: c.ClusterID.IsValid(),
		},
	}
	for _, a := range c.Advertisements {
		if slices.Contains(p.Advertisements, a.Name) {
			t.out.Ads = append(t.out.Ads, a)
		}
	}
	return t
}

// rulesOf returns the rules of the filters that p names which can match.
func rulesOf(c bgp.Config, p bgp.Peer, d filter.Direction, links map[string][]netip.Prefix) []rule {
	names, session := p.Import, sessionType(c, p)
	if d == filter.Export {
		names = p.Export
	}
	var out []rule
	for _, f := range filtersOf(c, names) {
		list := f.Import
		if d == filter.Export {
			list = f.Export
		}
		for _, r := range list {
			if r.PeerType != bgp.PeerAny && r.PeerType != session || d == filter.Import && r.Source == bgp.SourceOwn {
				continue
			}
			one := rule{FilterRule: r}
			if len(r.Interfaces) > 0 {
				one.Nets = netsOn(r.Interfaces, p, links)
			}
			out = append(out, one)
		}
	}
	return out
}

// filtersOf returns the filters of those names, in the order of names. One that
// is not there lets nothing through: what it would have rejected is not known.
func filtersOf(c bgp.Config, names []string) []bgp.Filter {
	out := make([]bgp.Filter, 0, len(names))
	for _, name := range names {
		i := slices.IndexFunc(c.Filters, func(f bgp.Filter) bool { return f.Name == name })
		if i < 0 {
			nothing := []bgp.FilterRule{{Accept: false}}
			out = append(out, bgp.Filter{Name: name, Import: nothing, Export: nothing})
			continue
		}
		out = append(out, c.Filters[i])
	}
	return out
}

// netsOn returns the subnets on the links that patterns name. Link-local next
// hops are on the link of an unnumbered peer.
func netsOn(patterns []string, p bgp.Peer, links map[string][]netip.Prefix) []netip.Prefix {
	out := []netip.Prefix{}
	for name, nets := range links {
		if !filter.OnLink(patterns, name) {
			continue
		}
		for _, n := range nets {
			if !n.Addr().IsLinkLocalUnicast() {
				out = append(out, n)
			}
		}
	}
	if p.Interface != "" && filter.OnLink(patterns, p.Interface) {
		out = append(out, netip.MustParsePrefix("fe80::/10"))
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return slices.Compact(out)
}

// linksHere reads the subnets of this node's links.
func linksHere() map[string][]netip.Prefix {
	out := map[string][]netip.Prefix{}
	all, err := net.Interfaces()
	if err != nil {
		return out // a rule that names links matches nothing then
	}
	for _, l := range all {
		addrs, err := l.Addrs()
		if err != nil {
			continue // the link is gone
		}
		for _, a := range addrs {
			if subnet, err := netip.ParsePrefix(a.String()); err == nil {
				out[l.Name] = append(out[l.Name], subnet.Masked())
			}
		}
	}
	return out
}

// usesLinks reports whether a filter looks at links.
func usesLinks(c bgp.Config) bool {
	names := func(r bgp.FilterRule) bool { return len(r.Interfaces) > 0 }
	return slices.ContainsFunc(c.Filters, func(f bgp.Filter) bool {
		return slices.ContainsFunc(f.Import, names) || slices.ContainsFunc(f.Export, names)
	})
}

func localASN(c bgp.Config, p bgp.Peer) uint32 {
	if p.LocalASN != 0 {
		return p.LocalASN
	}
	return c.ASN
}

func sessionType(c bgp.Config, p bgp.Peer) bgp.PeerType {
	if p.ASN == localASN(c, p) {
		return bgp.PeerInternal
	}
	return bgp.PeerExternal
}

func families(p bgp.Peer) bgp.Families {
	switch {
	case p.Families != 0:
		return p.Families
	case p.Addr.Is4():
		return bgp.IPv4
	default:
		return bgp.IPv6
	}
}

// tells reports whether a path of label k is told, and with what.
func (t outTerms) tells(k label) (bgp.Attributes, bool) {
	family := bgp.IPv6
	if k.v4 {
		family = bgp.IPv4
	}
	if t.Families&family == 0 || !k.v4 && t.SessionV4 && !t.NextHop6.IsValid() {
		return bgp.Attributes{}, false
	}
	var out bgp.Attributes
	told := k.kinds&t.Told != 0
	for _, a := range t.Ads {
		if !k.belongs(a.Name) {
			continue
		}
		told = true
		out.Communities = append(out.Communities, a.Communities...)
		out.LargeCommunities = append(out.LargeCommunities, a.LargeCommunities...)
		if out.LocalPref == nil {
			out.LocalPref = a.LocalPref
		}
		if out.MED == nil {
			out.MED = a.MED
		}
	}
	return out, told
}

// nextHop is what a path of label k is told with, the zero Addr for the
// session's own.
func (t outTerms) nextHop(k label) netip.Addr {
	switch {
	case k.v4 == t.SessionV4:
		return netip.Addr{}
	case k.v4:
		return t.NextHop4
	default:
		return t.NextHop6
	}
}
