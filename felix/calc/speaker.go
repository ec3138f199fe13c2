package calc

import (
	"cmp"
	"hash/fnv"
	"net/netip"
	"slices"
	"strings"

	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/felix/event"
)

// speaker says who this node is to its neighbours and who they are. Both ends
// of a session between nodes compute it from the same objects, so they agree.
type speaker struct {
	node   string
	said   words[bgp.Config]
	closed words[[]bgp.Session]

	// gateways lead to neighbours that nothing else leads to.
	gateways map[netip.Prefix]netip.Addr
	moved    map[netip.Prefix]struct{} // gateways changed in this flush
}

func newSpeaker(node string) speaker {
	return speaker{
		node: node, said: words[bgp.Config]{same: bgp.Config.Equal},
		closed:   words[[]bgp.Session]{same: slices.Equal[[]bgp.Session]},
		gateways: map[netip.Prefix]netip.Addr{}, moved: map[netip.Prefix]struct{}{},
	}
}

// drain makes the configuration anew when any node or BGP object changed. It
// walks all nodes: they change rarely, and the mesh is as long as their list.
func (s *speaker) drain(in *inputs) {
	if len(in.nodes.was)+len(in.networks.was)+len(in.peers.was)+len(in.bgp.was)+
		len(in.filters.was)+len(in.advertisements.was)+len(in.secrets.was)+len(in.pools.was) == 0 {
		return
	}
	n := s.neighbours(in)
	s.lead(n.gateways)
	s.said.say(n.config)
	slices.SortFunc(n.closed, func(a, b bgp.Session) int {
		return cmp.Or(a.Addr.Compare(b.Addr), strings.Compare(a.Peer, b.Peer), strings.Compare(a.LastError, b.LastError))
	})
	s.closed.say(slices.Compact(n.closed))
}

// lead takes over the gateways, and notes which are other than before.
func (s *speaker) lead(now map[netip.Prefix]netip.Addr) {
	for p, g := range s.gateways {
		if now[p] != g {
			s.moved[p] = struct{}{}
		}
	}
	for p, g := range now {
		if s.gateways[p] != g {
			s.moved[p] = struct{}{}
		}
	}
	s.gateways = now
}

func (s *speaker) settle() { forget(&s.moved) }

// neighbours finds out the configuration, which is zero, silence, while the node
// or the cluster's configuration is unknown.
func (s *speaker) neighbours(in *inputs) *neighbours {
	self := in.nodes.now[s.node]
	cluster := in.bgp.now["default"] // there is no other
	n := &neighbours{in: in, self: self, cluster: cluster, gateways: map[netip.Prefix]netip.Addr{}, claimed: map[end]bool{}}
	if self == nil || cluster == nil {
		return n
	}
	n.config = bgp.Config{
		ASN: asnOf(s.node, in, cluster), RouterID: routerID(self), ListenPort: cluster.ListenPort,
		RestartTime: cluster.RestartTime, LongLived: cluster.LongLived,
		Draining: self.Draining || cluster.DrainCordoned && self.Cordoned,
	}
	n.fabric = newFabric(in, cluster, n.config.ASN)
	if part := n.fabric.parts[s.node]; part.reflector {
		n.config.ClusterID = part.group
	}
	n.advertisements, n.toldNodes = advertisements(in, self), toldNodes(in)
	n.find()
	n.complete()
	return n
}

func asnOf(node string, in *inputs, cluster *event.BGP) uint32 {
	if n := in.networks.now[node]; n != nil && n.ASN != 0 {
		return n.ASN
	}
	return cluster.ASN
}

// addrOf returns the node's first address of a family, invalid when it has none.
func addrOf(n *event.Node, v4 bool) netip.Addr {
	for _, a := range n.Addrs {
		if a.Is4() == v4 {
			return a
		}
	}
	return netip.Addr{}
}

// routerID returns the node's IPv4 address, or one made of its name where it has
// none: four bytes that need not be reachable but unique (RFC 6286). The first
// is 1 to 126, because some speakers refuse multicast and class E.
func routerID(n *event.Node) netip.Addr {
	if a := addrOf(n, true); a.IsValid() {
		return a
	}
	h := fnv.New32a()
	h.Write([]byte(n.Name))
	sum := h.Sum32()
	return netip.AddrFrom4([4]byte{byte(sum>>24)%126 + 1, byte(sum >> 16), byte(sum >> 8), byte(sum)})
}
