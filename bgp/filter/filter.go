// Package filter is the meaning of bgp.Filter: what a list of filters does with
// a path. bgp/gobgp has its router do the same and asks here why a path was
// rejected; bgp/speakertest filters with it. It is pure.
package filter

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/koratnet/korat/bgp"
)

// Direction is which of a filter's lists is asked.
type Direction uint8

// The directions.
const (
	Import Direction = iota // from the neighbour
	Export                  // to the neighbour
)

// Path is what rules look at and change.
type Path struct {
	Prefix           netip.Prefix
	Own              bool     // this node originates it
	Links            []string // that the next hop is on
	ASPath           []uint32 // without the AS that we add when we tell it
	Communities      []bgp.Community
	LargeCommunities []bgp.LargeCommunity
	LocalPref, MED   *uint32
}

// Ask asks filters in order what becomes of p on a session of the given type.
// It returns the path as changed, whether it is let through, and the rule that
// decided, such as "filter lab rule 2"; empty if none did, which lets it through.
// p is not changed.
func Ask(filters []bgp.Filter, d Direction, session bgp.PeerType, p Path) (Path, bool, string) {
	for _, f := range filters {
		for i, r := range rules(f, d) {
			if !matches(r, session, p) {
				continue
			}
			name := fmt.Sprintf("filter %s rule %d", f.Name, i+1)
			if !r.Accept {
				return p, false, name
			}
			return apply(r.Set, p), true, name
		}
	}
	return p, true, ""
}

func rules(f bgp.Filter, d Direction) []bgp.FilterRule {
	if d == Import {
		return f.Import
	}
	return f.Export
}

func matches(r bgp.FilterRule, session bgp.PeerType, p Path) bool {
	family := bgp.IPv6
	if p.Prefix.Addr().Is4() {
		family = bgp.IPv4
	}
	return (r.Families == 0 || r.Families&family != 0) &&
		(r.PeerType == bgp.PeerAny || r.PeerType == session) &&
		(r.Source == bgp.SourceAny || (r.Source == bgp.SourceOwn) == p.Own) &&
		(len(r.Prefixes) == 0 || inAny(r.Prefixes, p.Prefix)) &&
		!inAny(r.NotPrefixes, p.Prefix) &&
		(len(r.Interfaces) == 0 || slices.ContainsFunc(p.Links, func(l string) bool { return OnLink(r.Interfaces, l) })) &&
		len(p.ASPath) >= len(r.ASPath) && slices.Equal(p.ASPath[:len(r.ASPath)], r.ASPath) &&
		containsAll(p.Communities, r.Communities) &&
		containsAll(p.LargeCommunities, r.LargeCommunities)
}

// OnLink reports whether one of patterns, which may have *, is the name of link.
func OnLink(patterns []string, link string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return glob(p, link) })
}

func glob(pattern, name string) bool {
	first, rest, star := strings.Cut(pattern, "*")
	if !star {
		return pattern == name
	}
	name, ok := strings.CutPrefix(name, first)
	if !ok {
		return false
	}
	for {
		if glob(rest, name) {
			return true
		}
		if name == "" {
			return false
		}
		name = name[1:]
	}
}

func inAny(ranges []bgp.PrefixRange, p netip.Prefix) bool {
	return slices.ContainsFunc(ranges, func(r bgp.PrefixRange) bool {
		n := p.Bits()
		return r.Prefix.Bits() <= n && int(r.Min) <= n && n <= int(r.Max) && r.Prefix.Contains(p.Addr())
	})
}

func containsAll[T comparable](have, want []T) bool {
	return !slices.ContainsFunc(want, func(w T) bool { return !slices.Contains(have, w) })
}

func apply(o bgp.Operations, p Path) Path {
	p.Communities = change(p.Communities, o.RemoveCommunities, o.AddCommunities)
	p.LargeCommunities = change(p.LargeCommunities, o.RemoveLargeCommunities, o.AddLargeCommunities)
	if len(o.Prepend) > 0 {
		p.ASPath = slices.Concat(o.Prepend, p.ASPath)
	}
	if o.LocalPref != nil {
		p.LocalPref = o.LocalPref
	}
	if o.MED != nil {
		p.MED = o.MED
	}
	return p
}

// change removes and then adds, so that what is in both lists is there after.
func change[T comparable](have, remove, add []T) []T {
	if len(remove) == 0 && len(add) == 0 {
		return have
	}
	out := slices.DeleteFunc(slices.Clone(have), func(c T) bool { return slices.Contains(remove, c) })
	for _, c := range add {
		if !slices.Contains(out, c) {
			out = append(out, c)
		}
	}
	return out
}
