package gobgp

import (
	"slices"

	"github.com/osrg/gobgp/v4/api"

	"github.com/koratnet/korat/bgp"
)

// note is a large community that a path carries from the statement that found
// the rule to match until the last statement of the rule. It never leaves, and is
// taken off what arrives.
const note = "4294967295:4294967295:4294967295"

// rule writes the statements of r. last is done to what it accepts, after its own
// operations. ours is the AS number that paths may begin with already, or 0.
//
// One statement is enough where it can say all of it. Else the conditions put a
// note on the path, the prefixes that must not be take it off again, and the
// operations follow on paths with the note.
func (b *builder) rule(r rule, last bgp.Operations, ours uint32) {
	if r.Nets != nil && len(r.Nets) == 0 {
		return // on no link of this node
	}
	steps := []bgp.Operations{{}}
	route := reject
	if r.Accept {
		steps, route = split(ourASFirst(r.Set, ours), last), accept
	}
	when := b.conditions(r, ours)
	if len(steps) == 1 && (len(r.Prefixes) == 0 || len(r.NotPrefixes) == 0) {
		for _, w := range when {
			b.statement(w, operations(steps[0]), route)
		}
		return
	}
	for _, w := range when {
		b.statement(w, &api.Actions{LargeCommunity: with(note)}, goOn)
	}
	if len(r.Prefixes) > 0 {
		for _, v4 := range []bool{true, false} {
			if set := b.prefixes(r.NotPrefixes, v4); set != "" {
				b.statement(&api.Conditions{LargeCommunitySet: b.noted(), PrefixSet: anyOf(set)}, &api.Actions{LargeCommunity: without(note)}, goOn)
			}
		}
	}
	for _, s := range steps {
		b.statement(&api.Conditions{LargeCommunitySet: b.noted()}, operations(s), goOn)
	}
	b.statement(&api.Conditions{LargeCommunitySet: b.noted()}, &api.Actions{LargeCommunity: without(note)}, route)
}

// ourASFirst keeps our AS the first of what another AS is told: many routers end
// the session else.
func ourASFirst(o bgp.Operations, ours uint32) bgp.Operations {
	if ours != 0 && len(o.Prepend) > 0 && o.Prepend[0] != ours {
		o.Prepend = slices.Insert(slices.Clone(o.Prepend), 0, ours)
	}
	return o
}

// noted is the condition that a path carries the note.
func (b *builder) noted() *api.MatchSet {
	if b.note == "" {
		b.note = b.set(&api.DefinedSet{DefinedType: api.DefinedType_DEFINED_TYPE_LARGE_COMMUNITY, List: []string{note}})
	}
	return anyOf(b.note)
}

// conditions returns those of r: any of the returned ones, since one statement
// asks for prefixes of one family and for one source.
func (b *builder) conditions(r rule, ours uint32) []*api.Conditions {
	var out []*api.Conditions
	for _, v4 := range []bool{true, false} {
		family, bit := &api.Family{Afi: api.Family_AFI_IP6, Safi: api.Family_SAFI_UNICAST}, bgp.IPv6
		if v4 {
			family.Afi, bit = api.Family_AFI_IP, bgp.IPv4
		}
		if r.Families != 0 && r.Families&bit == 0 {
			continue
		}
		c := &api.Conditions{AfiSafiIn: []*api.Family{family}}
		wanted, refused := b.prefixes(r.Prefixes, v4), ""
		switch {
		case wanted != "":
			c.PrefixSet = anyOf(wanted)
		case len(r.Prefixes) > 0:
			continue // all of another family
		default:
			refused = b.prefixes(r.NotPrefixes, v4)
		}
		if refused != "" {
			c.PrefixSet = &api.MatchSet{Type: api.MatchSet_TYPE_INVERT, Name: refused}
		}
		b.attributes(c, r, ours)
		out = append(out, bySource(c, r.Source)...)
	}
	return out
}

// attributes adds what r asks of attributes to c.
func (b *builder) attributes(c *api.Conditions, r rule, ours uint32) {
	if len(r.Communities) > 0 {
		c.CommunitySet = allOf(b.set(&api.DefinedSet{
			DefinedType: api.DefinedType_DEFINED_TYPE_COMMUNITY, List: texts(r.Communities, community),
		}))
	}
	if len(r.LargeCommunities) > 0 {
		c.LargeCommunitySet = allOf(b.set(&api.DefinedSet{
			DefinedType: api.DefinedType_DEFINED_TYPE_LARGE_COMMUNITY, List: texts(r.LargeCommunities, largeCommunity),
		}))
	}
	if len(r.ASPath) > 0 {
		c.AsPathSet = anyOf(b.set(&api.DefinedSet{
			DefinedType: api.DefinedType_DEFINED_TYPE_AS_PATH, List: []string{pathBegins(r.ASPath, ours)},
		}))
	}
	for _, n := range r.Nets {
		c.NextHopInList = append(c.NextHopInList, n.String())
	}
}

// bySource splits c where it takes two statements.
func bySource(c *api.Conditions, s bgp.Source) []*api.Conditions {
	switch s {
	case bgp.SourceOwn:
		c.RouteType = own
	case bgp.SourceLearned:
		other := &api.Conditions{
			AfiSafiIn: c.AfiSafiIn, PrefixSet: c.PrefixSet, CommunitySet: c.CommunitySet, LargeCommunitySet: c.LargeCommunitySet,
			AsPathSet: c.AsPathSet, NextHopInList: c.NextHopInList, RouteType: external,
		}
		c.RouteType = internal
		return []*api.Conditions{c, other}
	}
	return []*api.Conditions{c}
}

// prefixes defines the set of those ranges that are of the family; it returns
// "" if there are none.
func (b *builder) prefixes(ranges []bgp.PrefixRange, v4 bool) string {
	s := &api.DefinedSet{DefinedType: api.DefinedType_DEFINED_TYPE_PREFIX}
	for _, r := range ranges {
		if r.Prefix.Addr().Is4() == v4 {
			s.Prefixes = append(s.Prefixes, &api.Prefix{
				IpPrefix: r.Prefix.Masked().String(), MaskLengthMin: uint32(r.Min), MaskLengthMax: uint32(r.Max),
			})
		}
	}
	if len(s.Prefixes) == 0 {
		return ""
	}
	return b.set(s)
}

func anyOf(set string) *api.MatchSet { return &api.MatchSet{Type: api.MatchSet_TYPE_ANY, Name: set} }

func allOf(set string) *api.MatchSet { return &api.MatchSet{Type: api.MatchSet_TYPE_ALL, Name: set} }

// split spreads o and then last over as many steps as it takes, each of which one
// statement can do. There is at least one.
func split(o, last bgp.Operations) []bgp.Operations {
	removes := bgp.Operations{RemoveCommunities: o.RemoveCommunities, RemoveLargeCommunities: o.RemoveLargeCommunities}
	rest := bgp.Operations{
		AddCommunities: slices.Concat(o.AddCommunities, last.AddCommunities), AddLargeCommunities: o.AddLargeCommunities,
		LocalPref: o.LocalPref, MED: o.MED,
	}
	if last.LocalPref != nil {
		rest.LocalPref = last.LocalPref
	}
	if len(rest.AddCommunities) == 0 {
		rest.RemoveCommunities, removes.RemoveCommunities = removes.RemoveCommunities, nil
	}
	if len(rest.AddLargeCommunities) == 0 {
		rest.RemoveLargeCommunities, removes.RemoveLargeCommunities = removes.RemoveLargeCommunities, nil
	}
	var steps []bgp.Operations
	if len(removes.RemoveCommunities)+len(removes.RemoveLargeCommunities) > 0 {
		steps = append(steps, removes)
	}
	// What is leftmost is prepended last.
	for left := o.Prepend; len(left) > 0; {
		asn := left[len(left)-1]
		n := 0
		for n < len(left) && left[len(left)-1-n] == asn {
			n++
		}
		run := left[len(left)-n:]
		left = left[:len(left)-n]
		if len(left) == 0 {
			rest.Prepend = run
			break
		}
		steps = append(steps, bgp.Operations{Prepend: run})
	}
	return append(steps, rest)
}
