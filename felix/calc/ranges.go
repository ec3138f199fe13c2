package calc

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy/ir"
)

// ranges keeps the sets that are there whatever policies say: the members of
// desired.MasqueradeSet and those after it. Pools, nodes and nets overlap, so
// members are counted, as those of other sets are.
type ranges struct {
	masquerade, inside, nodes, services, encrypted *addrSet

	said    bool
	counted inside         // what of settings is in the set
	served  []netip.Prefix // what of services is
	closed  []netip.Prefix // what of encrypted is
	news    map[ir.SetID]*desired.SetChange
}

func newRanges() ranges {
	of := func(id ir.SetID) *addrSet { return &addrSet{id: id, kind: ir.Nets, members: map[ir.Member]struct{}{}} }
	return ranges{
		masquerade: of(desired.MasqueradeSet), inside: of(desired.InsideSet),
		nodes: of(desired.NodesSet), services: of(desired.ServicesSet), encrypted: of(desired.EncryptedSet),
	}
}

func (r *ranges) all() [5]*addrSet {
	return [...]*addrSet{r.masquerade, r.inside, r.nodes, r.services, r.encrypted}
}

func (r *ranges) drain(in *inputs, settings *settings, advertised *advertised) {
	for name, was := range in.pools.was {
		if was != nil {
			r.inside.leave(netEnds(was.CIDR))
			if was.Masquerade {
				r.masquerade.leave(netEnds(was.CIDR))
			}
		}
		if is := in.pools.now[name]; is != nil {
			r.inside.join(netEnds(is.CIDR))
			if is.Masquerade {
				r.masquerade.join(netEnds(is.CIDR))
			}
		}
	}
	r.follow(in)
	if want := settings.inside; want.nodes != r.counted.nodes {
		r.counted.nodes = want.nodes
		for _, n := range in.nodes.now { // whole, because a person asked for it
			if want.nodes {
				r.inside.join(nodeThing(n).ends)
			} else {
				r.inside.leave(nodeThing(n).ends)
			}
		}
	}
	if want := settings.inside.nets; !slices.Equal(want, r.counted.nets) {
		r.inside.leave(netEnds(r.counted.nets...))
		r.inside.join(netEnds(want...))
		r.counted.nets = want
	}
	if advertised.moved {
		r.services.leave(netEnds(r.served...))
		r.services.join(netEnds(advertised.nets...))
		r.served = advertised.nets
	}
	r.close(in, settings.encryption)
	r.say()
}

// close takes over which pools never travel in clear. It walks all pools, which are
// few.
func (r *ranges) close(in *inputs, w encryptionWays) {
	var closed []netip.Prefix
	for _, p := range in.pools.now {
		if w.closes(p) {
			closed = append(closed, p.CIDR)
		}
	}
	slices.SortFunc(closed, netip.Prefix.Compare)
	if !slices.Equal(closed, r.closed) {
		r.encrypted.leave(netEnds(r.closed...))
		r.encrypted.join(netEnds(closed...))
		r.closed = closed
	}
}

// follow takes over changed nodes.
func (r *ranges) follow(in *inputs) {
	sets := []*addrSet{r.nodes}
	if r.counted.nodes {
		sets = append(sets, r.inside)
	}
	for name, was := range in.nodes.was {
		for _, set := range sets {
			if was != nil {
				set.leave(nodeThing(was).ends)
			}
			if is := in.nodes.now[name]; is != nil {
				set.join(nodeThing(is).ends)
			}
		}
	}
}

// say tells of the sets that changed, and of all when nobody has heard of them.
func (r *ranges) say() {
	for _, set := range r.all() {
		switch {
		case !r.said:
			set.change() // is in it
			r.tell(set, set.whole())
		case len(set.add)+len(set.del) > 0:
			r.tell(set, set.change())
		}
	}
	r.said = true
}

func (r *ranges) tell(set *addrSet, c *desired.SetChange) {
	if r.news == nil {
		r.news = map[ir.SetID]*desired.SetChange{}
	}
	r.news[set.id] = c
}

// take adds the news to those of other sets.
func (r *ranges) take(others map[ir.SetID]*desired.SetChange) map[ir.SetID]*desired.SetChange {
	news := r.news
	r.news = nil
	if others == nil {
		return news
	}
	maps.Copy(others, news)
	return others
}

func netEnds(nets ...netip.Prefix) ends { return ends{nets: nets} }
