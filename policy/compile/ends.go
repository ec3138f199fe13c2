package compile

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// end is what a rule says about one end of a packet.
type end struct {
	peer *policy.Peer // nil: anything
	// names is where the names of ports are looked up, if they are.
	names    policy.Scope
	hasNames bool
}

// ends returns the alternatives for one end. Where nothing else is said, names
// of ports are looked up in scope.
func ends(peers []policy.Peer, scope policy.Scope) []end {
	if peers == nil {
		return []end{{names: scope, hasNames: true}}
	}
	var out []end
	for i := range peers {
		p := &peers[i]
		if p.Empty() {
			continue
		}
		e := end{peer: p}
		if s := cmp.Or(p.Scope, p.Names); s != nil {
			e.names, e.hasNames = *s, true
		}
		out = append(out, e)
	}
	return out
}

// nets returns the criteria on the address of e in a rule of family f, the
// family of packets that can satisfy them, and whether any can.
func (e end) nets(f ir.Family) (in, notIn []netip.Prefix, family ir.Family, ok bool) {
	if e.peer == nil {
		return nil, nil, f, true
	}
	for _, n := range e.peer.Nets {
		if f.Is(n.Addr()) && !swallowed(n, e.peer.Except) {
			in = append(in, n)
		}
	}
	if len(in) == 0 && len(e.peer.Nets) > 0 {
		return nil, nil, f, false
	}
	for _, x := range e.peer.Except {
		inside := func(n netip.Prefix) bool { return x.Overlaps(n) }
		if f.Is(x.Addr()) && (len(in) == 0 || slices.ContainsFunc(in, inside)) {
			notIn = append(notIn, x)
		}
	}
	return sorted(in), sorted(notIn), common(f, in), true
}

// swallowed reports whether an exception leaves nothing of net n.
func swallowed(n netip.Prefix, except []netip.Prefix) bool {
	return slices.ContainsFunc(except, func(x netip.Prefix) bool {
		return x.Bits() <= n.Bits() && x.Contains(n.Addr())
	})
}

func sorted(nets []netip.Prefix) []netip.Prefix {
	slices.SortFunc(nets, netip.Prefix.Compare)
	return slices.Compact(nets)
}

// common returns the one family of all nets, or f where there is none.
func common(f ir.Family, nets []netip.Prefix) ir.Family {
	all := func(f ir.Family) bool {
		return !slices.ContainsFunc(nets, func(n netip.Prefix) bool { return !f.Is(n.Addr()) })
	}
	switch {
	case f != ir.AnyFamily || len(nets) == 0:
		return f
	case all(ir.IPv4):
		return ir.IPv4
	case all(ir.IPv6):
		return ir.IPv6
	}
	return f
}
