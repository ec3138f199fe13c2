package gobgp

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/osrg/gobgp/v4/api"

	"github.com/koratnet/korat/bgp"
)

// program is the policy of a server in GoBGP's words. Its statements are tried in
// order, the first that accepts or rejects decides. What no import statement
// matches is taken, what no export statement matches is not told.
type program struct {
	sets             []*api.DefinedSet
	imports, exports []*api.Statement
}

// print is equal for programs that do the same, if their generation is.
func (p program) print() string { return key([]any{p.sets, p.imports, p.exports}) }

// compile writes the program of peers with these terms. generation makes names
// that no other program has.
//
// Peers with equal terms share statements; each statement asks first whether the
// peer is one of theirs. The largest group is named by who is not in it: in a
// mesh of thousands the sets stay short, which GoBGP walks for every path and peer.
func compile(generation int, peers map[netip.Addr]terms, known []label) program {
	b := &builder{prefix: fmt.Sprintf("%d/", generation)}
	b.guard(known)
	for _, g := range groups(peers, func(t terms) string { return key(t.in) }) {
		if len(g.terms.in) > 0 {
			b.peers = b.neighbours(g)
			b.dir = &b.out.imports
			b.importGroup(g.terms.in)
		}
	}
	b.dir = &b.out.exports
	for _, g := range groups(peers, func(t terms) string { return key(t.out) }) {
		b.peers = b.neighbours(g)
		b.exportGroup(g.terms.out, known)
	}
	return b.out
}

// group is the peers with equal terms.
type group struct {
	terms   terms
	peers   []netip.Addr
	others  []netip.Addr // set for the largest group
	largest bool
}

// groups puts peers with equal keys together, the largest group first.
func groups(peers map[netip.Addr]terms, key func(terms) string) []group {
	by := map[string]*group{}
	for addr, t := range peers {
		k := key(t)
		if by[k] == nil {
			by[k] = &group{terms: t}
		}
		by[k].peers = append(by[k].peers, addr)
	}
	keys := slices.SortedFunc(maps.Keys(by), func(a, b string) int {
		return cmp.Or(cmp.Compare(len(by[b].peers), len(by[a].peers)), cmp.Compare(a, b))
	})
	out := make([]group, 0, len(keys))
	for i, k := range keys {
		slices.SortFunc(by[k].peers, netip.Addr.Compare)
		if i > 0 {
			out[0].others = append(out[0].others, by[k].peers...)
		}
		by[k].largest = i == 0
		out = append(out, *by[k])
	}
	return out
}

// builder writes one program. peers and dir are of the group that is written.
type builder struct {
	prefix string
	n      int
	out    program
	peers  *api.MatchSet // nil: every peer
	note   string        // the set that holds the note, when there is one
	dir    *[]*api.Statement
}

func (b *builder) name() string {
	b.n++
	return b.prefix + strconv.Itoa(b.n)
}

func (b *builder) set(s *api.DefinedSet) string {
	s.Name = b.name()
	b.out.sets = append(b.out.sets, s)
	return s.Name
}

// neighbours is the condition that a peer is of g.
func (b *builder) neighbours(g group) *api.MatchSet {
	members, kind := g.peers, api.MatchSet_TYPE_ANY
	if g.largest {
		members, kind = g.others, api.MatchSet_TYPE_INVERT
	}
	if len(members) == 0 {
		return nil
	}
	s := &api.DefinedSet{DefinedType: api.DefinedType_DEFINED_TYPE_NEIGHBOR}
	for _, p := range members {
		s.List = append(s.List, netip.PrefixFrom(p.WithZone(""), p.BitLen()).String())
	}
	return &api.MatchSet{Type: kind, Name: b.set(s)}
}

// statement adds one for the group's peers. route NONE goes on with the next.
func (b *builder) statement(when *api.Conditions, do *api.Actions, route api.RouteAction) {
	when.NeighborSet, do.RouteAction = b.peers, route
	*b.dir = append(*b.dir, &api.Statement{Name: b.name(), Conditions: when, Actions: do})
}

const (
	accept = api.RouteAction_ROUTE_ACTION_ACCEPT
	reject = api.RouteAction_ROUTE_ACTION_REJECT
	goOn   = api.RouteAction_ROUTE_ACTION_UNSPECIFIED

	own      = api.Conditions_ROUTE_TYPE_LOCAL
	internal = api.Conditions_ROUTE_TYPE_INTERNAL
	external = api.Conditions_ROUTE_TYPE_EXTERNAL
)

// guard keeps what looks like a path of ours out, takes our notes off, and makes
// paths over routers that are about to go the last choice (RFC 8326).
func (b *builder) guard(known []label) {
	b.dir = &b.out.imports
	for i := range known {
		b.statement(&api.Conditions{RouteType: internal, LocalPrefEq: &api.LocalPrefEq{Value: math.MaxUint32 - uint32(i)}}, &api.Actions{}, reject)
	}
	b.statement(&api.Conditions{LargeCommunitySet: b.noted()}, &api.Actions{LargeCommunity: without(note)}, goOn)
	leaving := b.set(&api.DefinedSet{DefinedType: api.DefinedType_DEFINED_TYPE_COMMUNITY, List: []string{community(bgp.GracefulShutdown)}})
	b.statement(&api.Conditions{RouteType: external, CommunitySet: &api.MatchSet{Type: api.MatchSet_TYPE_ANY, Name: leaving}},
		&api.Actions{LocalPref: &api.LocalPrefAction{Value: lowestPref}}, goOn)
}

// importGroup takes what the rules let in.
func (b *builder) importGroup(rules []rule) {
	for _, r := range rules {
		b.rule(r, bgp.Operations{}, 0)
	}
}

// exportGroup tells what t says. Without rules a path is told by one statement;
// with rules first what must not be told is rejected and the rest is made as it
// goes on the wire, then the rules have their say, then the rest is told.
func (b *builder) exportGroup(t outTerms, known []label) {
	then := accept
	if len(t.Rules) > 0 {
		then = goOn
	}
	var last bgp.Operations
	if t.Draining {
		low := uint32(lowestPref)
		last = bgp.Operations{AddCommunities: []bgp.Community{bgp.GracefulShutdown}, LocalPref: &low}
	}
	for i, k := range known {
		when := &api.Conditions{RouteType: own, LocalPrefEq: &api.LocalPrefEq{Value: math.MaxUint32 - uint32(i)}}
		attrs, told := t.tells(k)
		if !told {
			if then == goOn {
				b.statement(when, &api.Actions{}, reject)
			}
			continue
		}
		b.statement(when, tellOwn(attrs, t.nextHop(k), last), then)
	}
	if t.Reflects {
		b.tellLearned(t, last, then)
	} else if then == goOn {
		b.statement(&api.Conditions{RouteType: internal}, &api.Actions{}, reject)
		b.statement(&api.Conditions{RouteType: external}, &api.Actions{}, reject)
	}
	if then == accept {
		return
	}
	for _, r := range t.Rules {
		asn := uint32(0)
		if t.External {
			asn = t.LocalASN
		}
		b.rule(r, last, asn)
	}
	b.statement(&api.Conditions{}, operations(last), accept)
}

func (b *builder) tellLearned(t outTerms, last bgp.Operations, then api.RouteAction) {
	for _, from := range []api.Conditions_RouteType{internal, external} {
		do := operations(last)
		switch t.NextHop {
		case bgp.NextHopSelf:
			do.Nexthop = &api.NexthopAction{Self: true}
		case bgp.NextHopKeep:
			do.Nexthop = &api.NexthopAction{Unchanged: true}
		}
		b.statement(&api.Conditions{RouteType: from}, do, then)
	}
}

// tellOwn makes a path of ours as it goes on the wire.
func tellOwn(a bgp.Attributes, nextHop netip.Addr, last bgp.Operations) *api.Actions {
	pref := uint32(preferOnTheWire)
	if a.LocalPref != nil {
		pref = *a.LocalPref
	}
	o := bgp.Operations{
		AddCommunities:      slices.Concat(a.Communities, last.AddCommunities),
		AddLargeCommunities: a.LargeCommunities, LocalPref: &pref, MED: a.MED,
	}
	if last.LocalPref != nil {
		o.LocalPref = last.LocalPref
	}
	do := operations(o)
	if nextHop.IsValid() {
		do.Nexthop = &api.NexthopAction{Address: nextHop.String()}
	}
	return do
}

const (
	preferOnTheWire = 100
	// lowestPref is the lowest preference that GoBGP's policies can set: they take
	// 0 to mean "leave it".
	lowestPref = 1
)

// operations are those of o that one statement can do: of removing and adding
// communities it can do only one, and prepend only one AS number.
func operations(o bgp.Operations) *api.Actions {
	do := &api.Actions{}
	if len(o.AddCommunities) > 0 {
		do.Community = with(texts(o.AddCommunities, community)...)
	} else if len(o.RemoveCommunities) > 0 {
		do.Community = without(texts(o.RemoveCommunities, community)...)
	}
	if len(o.AddLargeCommunities) > 0 {
		do.LargeCommunity = with(texts(o.AddLargeCommunities, largeCommunity)...)
	} else if len(o.RemoveLargeCommunities) > 0 {
		do.LargeCommunity = without(texts(o.RemoveLargeCommunities, largeCommunity)...)
	}
	if len(o.Prepend) > 0 {
		do.AsPrepend = &api.AsPrependAction{Asn: o.Prepend[0], Repeat: uint32(len(o.Prepend))}
	}
	if o.LocalPref != nil {
		do.LocalPref = &api.LocalPrefAction{Value: min(max(*o.LocalPref, lowestPref), highestPref)}
	}
	if o.MED != nil {
		do.Med = &api.MedAction{Type: api.MedAction_TYPE_REPLACE, Value: int64(*o.MED)}
	}
	return do
}

func with(list ...string) *api.CommunityAction {
	return &api.CommunityAction{Type: api.CommunityAction_TYPE_ADD, Communities: list}
}

func without(list ...string) *api.CommunityAction {
	return &api.CommunityAction{Type: api.CommunityAction_TYPE_REMOVE, Communities: list}
}

func texts[T any](list []T, text func(T) string) []string {
	out := make([]string, 0, len(list))
	for _, v := range list {
		out = append(out, text(v))
	}
	return out
}

func community(c bgp.Community) string {
	return fmt.Sprintf("%d:%d", uint32(c)>>16, uint32(c)&math.MaxUint16)
}

func largeCommunity(c bgp.LargeCommunity) string {
	return fmt.Sprintf("%d:%d:%d", c.Global, c.Local1, c.Local2)
}

// pathBegins is an AS path pattern for paths that begin with asns, behind our
// own AS number where the path may carry it already.
func pathBegins(asns []uint32, ours uint32) string {
	var s strings.Builder
	s.WriteString("^")
	if ours != 0 {
		fmt.Fprintf(&s, "(%d )?", ours)
	}
	for _, a := range asns {
		fmt.Fprintf(&s, "%d_", a)
	}
	return s.String()
}
