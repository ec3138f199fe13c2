package calc

import (
	"maps"
	"slices"

	"github.com/koratnet/korat/felix/desired"
)

// sayWays tells how other nodes are reached, for people. It walks all nodes for
// every pool that this stage decides about: pools are few, and nodes seldom come,
// go or move.
func (t *tunnels) sayWays(in *inputs) {
	gone := maps.Clone(t.ways.last)
	for _, pool := range t.pools {
		delete(gone, pool.name)
		w := desired.PoolWays{Sends: pool.modes.Sends, Receives: pool.taken(), Generation: pool.modes.Generation}
		mode := pool.modes.Sends
		if mode.Encapsulation == desired.Plain {
			mode = besideBGP
		}
		if mode != besideBGP || t.silent || t.keyed {
			w.Nodes = t.nodesByWay(mode, &pool, in)
		}
		t.ways.say(pool.name, &w)
	}
	for name := range gone {
		t.ways.say(name, nil)
	}
}

func (t *tunnels) nodesByWay(mode desired.Mode, pool *poolMode, in *inputs) map[desired.Way][]string {
	out := map[desired.Way][]string{}
	for name, n := range in.nodes.now {
		a := addrOf(n, pool.cidr.Addr().Is4())
		if name == t.node || !a.IsValid() {
			continue
		}
		var way desired.Way
		switch {
		case t.encrypts(pool, name, in):
			way = desired.Way{Encapsulation: desired.WireGuard, Reason: desired.HasKey}
		case pool.closed:
			way = desired.Way{Encapsulation: desired.WireGuard, Reason: desired.NoKey}
		case mode == besideBGP && !t.silent:
			way = desired.Way{Encapsulation: desired.Plain, Reason: desired.NoKey}
		default:
			way = wayTo(mode, in.reach.now[a.String()])
		}
		out[way] = append(out[way], name)
	}
	for _, names := range out {
		slices.Sort(names)
	}
	return out
}

func sameWays(a, b *desired.PoolWays) bool {
	return a.Sends == b.Sends && a.Generation == b.Generation && slices.Equal(a.Receives, b.Receives) && maps.EqualFunc(a.Nodes, b.Nodes, slices.Equal[[]string])
}
