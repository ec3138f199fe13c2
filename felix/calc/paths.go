package calc

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/event"
)

// nodesOnly is the advertisement of what is told to nodes alone. No object can
// have this name.
const nodesOnly = "(nodes)"

// paths is what this node says to its neighbours: the blocks it owns, used or
// not, the addresses of its pods, floating ones too, and what advertisements name. What it learned it
// never says again. Each peer is told the kinds and advertisements that it asks
// for, which is the speaker's business.
type paths struct {
	node  string
	dirty map[origin]struct{}
	told  map[origin][]string // the advertisements under which each is said
	said  said[desired.PathKey, bgp.Path]
}

// origin is something that a path can be said of.
type origin struct {
	prefix netip.Prefix
	kind   bgp.Advertise
}

func newPaths(node string) paths {
	return paths{
		node: node, dirty: map[origin]struct{}{}, told: map[origin][]string{},
		said: newSaid[desired.PathKey](identical[bgp.Path]),
	}
}

func (p *paths) drain(in *inputs, blocks *blocks, holders *holders, floats *floats) {
	for cidr := range blocks.changed {
		p.dirty[origin{cidr, bgp.Blocks}] = struct{}{}
	}
	for a := range holders.changed {
		p.dirty[origin{single(a), bgp.Hosts}] = struct{}{}
	}
	for a := range floats.changed { // told as what it is, and as a block where peers are told these alone
		p.dirty[origin{single(a), bgp.Hosts}] = struct{}{}
		p.dirty[origin{single(a), bgp.Blocks}] = struct{}{}
	}
	_, self := in.nodes.was[p.node]
	if self || len(in.advertisements.was)+len(in.pools.was) > 0 {
		// Whole, because a person changed what is announced: it is as long as this
		// node's pods and blocks.
		for o := range p.told {
			p.dirty[o] = struct{}{}
		}
		for _, a := range in.advertisements.now {
			for _, prefix := range a.Prefixes {
				p.dirty[origin{prefix, bgp.Prefixes}] = struct{}{}
			}
		}
	}
	if len(p.dirty) == 0 {
		return
	}
	mine := advertisements(in, in.nodes.now[p.node])
	for o := range p.dirty {
		var under []string
		switch {
		case o.kind == bgp.Blocks && blocks.own.has(o.prefix), o.kind == bgp.Hosts && held(holders, o.prefix), o.kind != bgp.Prefixes && floats.has(o.prefix):
			under = pooled(o, in, mine)
		case o.kind == bgp.Prefixes:
			under = naming(o.prefix, mine)
		}
		p.say(o, under)
	}
}

func held(h *holders, p netip.Prefix) bool {
	_, held := h.winner(p.Addr())
	return held
}

// say makes these the advertisements under which o is said.
func (p *paths) say(o origin, under []string) {
	for _, name := range p.told[o] {
		if !slices.Contains(under, name) {
			p.said.say(desired.PathKey{Prefix: o.prefix, Kind: o.kind, Advertisement: name}, nil)
		}
	}
	for _, name := range under {
		p.said.say(desired.PathKey{Prefix: o.prefix, Kind: o.kind, Advertisement: name}, &bgp.Path{Prefix: o.prefix, Kind: o.kind, Advertisement: name})
	}
	if p.told[o] = under; len(under) == 0 {
		delete(p.told, o)
	}
}

func (p *paths) settle() { forget(&p.dirty) }

// pooled returns under which advertisements a block or a pod is said: under none,
// which peers are told by kind, or to nodes alone; and under those that name its
// pool.
func pooled(o origin, in *inputs, mine map[string]*event.Advertisement) []string {
	pool := poolOf(o.prefix, in)
	if pool == nil {
		return []string{""}
	}
	under := []string{""}
	if pool.Silent {
		under[0] = nodesOnly
	}
	for _, name := range slices.Sorted(maps.Keys(mine)) {
		if a := mine[name]; a.PoolRoutes&o.kind != 0 && slices.Contains(a.Pools, pool.Name) {
			under = append(under, name)
		}
	}
	return under
}

// poolOf returns the narrowest pool that p lies in, of equals the first by name,
// nil if there is none. Pools are few.
func poolOf(p netip.Prefix, in *inputs) (best *event.Pool) {
	for _, x := range in.pools.now {
		if x.CIDR.Bits() > p.Bits() || !x.CIDR.Contains(p.Addr()) {
			continue
		}
		if best == nil || x.CIDR.Bits() > best.CIDR.Bits() || x.CIDR.Bits() == best.CIDR.Bits() && x.Name < best.Name {
			best = x
		}
	}
	return best
}

// naming returns the advertisements that name a prefix.
func naming(p netip.Prefix, mine map[string]*event.Advertisement) []string {
	var under []string
	for _, name := range slices.Sorted(maps.Keys(mine)) {
		if slices.Contains(mine[name].Prefixes, p) {
			under = append(under, name)
		}
	}
	return under
}

// advertisements returns those that a node takes part in, by name.
func advertisements(in *inputs, node *event.Node) map[string]*event.Advertisement {
	out := map[string]*event.Advertisement{}
	for name, a := range in.advertisements.now {
		if node != nil && a.Nodes.Matches(node.Labels) {
			out[name] = a
		}
	}
	return out
}

// toldNodes returns the advertisements that nodes are told of each other.
func toldNodes(in *inputs) []string {
	for _, p := range in.pools.now {
		if p.Silent {
			return []string{nodesOnly}
		}
	}
	return nil
}
