package calc

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/event"
)

// wayTo decides how a node is reached that the kernel reaches as reach says; nil:
// nobody knows. Across subnets is what this node's own prefix says, and also what
// that prefix calls the same subnet but the kernel sends to a router: a prefix may
// be wider than the link, or only as wide as the address.
func wayTo(m desired.Mode, reach *event.Reach) desired.Way {
	way := desired.Way{Encapsulation: m.Encapsulation}
	switch {
	case !m.CrossSubnet:
		way.Reason = desired.Always
	case reach == nil:
		way.Reason = desired.NoRoute
	case !reach.Source.Contains(reach.Addr):
		way.Reason = desired.OtherSubnet
	case reach.Gateway.IsValid():
		way.Reason = desired.BehindGateway
	default:
		way = desired.Way{Encapsulation: desired.Plain, Reason: desired.SameSubnet}
	}
	return way
}

// besideBGP is what holds for a pool without encapsulation on a node that speaks
// no BGP: nodes on the same link are reached, and no others.
var besideBGP = desired.Mode{Encapsulation: desired.Plain, CrossSubnet: true}

// poolMode is a pool as routes see it.
type poolMode struct {
	cidr   netip.Prefix
	name   string
	modes  event.PoolModes
	closed bool // nothing of it travels in clear
}

// poolModes returns all pools, narrow ones first, so that the first that contains
// an address is the one that it belongs to.
func poolModes(in *table[event.Pool], w encryptionWays) []poolMode {
	out := make([]poolMode, 0, len(in.now))
	for name, p := range in.now { // whole, because pools are few
		out = append(out, poolMode{p.CIDR, name, p.Modes, w.closes(p)})
	}
	slices.SortFunc(out, func(a, b poolMode) int {
		return cmp.Or(cmp.Compare(b.cidr.Bits(), a.cidr.Bits()), cmp.Compare(a.name, b.name))
	})
	return out
}

// taken are the modes in which packets may come, each once.
func (p poolMode) taken() []desired.Mode {
	modes := []desired.Mode{p.modes.Sends}
	for _, m := range []desired.Mode{p.modes.Wanted, p.modes.Before} {
		if !slices.Contains(modes, m) {
			modes = append(modes, m)
		}
	}
	return modes
}
