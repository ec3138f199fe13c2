package calc

import (
	"net/netip"

	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/felix/event"
)

// fabric says which two nodes of an AS have a session, and which of them reflects
// routes to the other (RFC 4456). It is the same on every node.
//
//   - Without reflectors every two have one, if the mesh is wanted.
//   - Reflectors have one with each other, and none is the other's client: they
//     tell each other what their clients say, and nothing twice.
//   - Every other node is a client of the reflectors of its group, or of all where
//     it has no group with a living one: as a node that is new, or whose group lost
//     its last reflector before the controller knew.
//   - While nobody reflects, the mesh stays.
type fabric struct {
	mesh  bool
	parts map[string]part // by node; nil: nobody reflects
}

// part is what a node is among reflectors.
type part struct {
	reflector bool
	group     netip.Addr // cluster id; invalid: of no group
}

// newFabric looks at all nodes of the AS.
func newFabric(in *inputs, cluster *event.BGP, asn uint32) fabric {
	f := fabric{mesh: cluster.Mesh}
	if cluster.Reflectors == nil {
		return f
	}
	parts, living := map[string]part{}, map[netip.Addr]bool{}
	for name, n := range in.nodes.now {
		if asnOf(name, in, cluster) != asn {
			continue
		}
		p := partOf(n, in.networks.now[name], cluster.Reflectors)
		if parts[name] = p; p.reflector {
			living[p.group] = true
		}
	}
	if len(living) == 0 {
		return f
	}
	for name, p := range parts {
		if !living[p.group] {
			parts[name] = part{}
		}
	}
	f.parts = parts
	return f
}

func partOf(n *event.Node, network *event.NodeNetwork, r *event.Reflectors) part {
	switch {
	case r.Automatic && (network == nil || !network.Group.IsValid()):
		return part{}
	case r.Automatic:
		return part{reflector: network.Reflector, group: network.Group}
	case r.Nodes.Matches(n.Labels):
		return part{reflector: true, group: r.ClusterID}
	}
	return part{}
}

// linked reports whether two nodes of the AS have a session.
func (f fabric) linked(a, b string) bool {
	if f.parts == nil {
		return f.mesh
	}
	x, y := f.parts[a], f.parts[b]
	if x.reflector && y.reflector {
		return true
	}
	return f.client(a, b) || f.client(b, a)
}

// told says what nodes tell each other: blocks, and with reflectors the addresses of
// services too, because a router may have sessions with the reflectors alone. In a
// mesh nobody would pass them on.
func (f fabric) told() bgp.Advertise {
	if f.parts == nil {
		return bgp.Blocks
	}
	return bgp.Blocks | bgp.Services
}

// client reports whether node of is a client of the reflector.
func (f fabric) client(reflector, of string) bool {
	r, c := f.parts[reflector], f.parts[of]
	return r.reflector && !c.reflector && (!c.group.IsValid() || c.group == r.group)
}
