package calc

import (
	"hash/fnv"
	"net/netip"
	"slices"

	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/felix/event"
)

// speaker says who this node is to its neighbours and who they are. Both ends
// of a session of the mesh compute it from the same objects, so they agree.
type speaker struct {
	node string
	said words[bgp.Config]
}

func newSpeaker(node string) speaker {
	return speaker{node: node, said: words[bgp.Config]{same: bgp.Config.Equal}}
}

// drain makes the configuration anew when any node or BGP object changed. It
// walks all nodes: they change rarely, and the mesh is as long as their list.
func (s *speaker) drain(in *inputs) {
	if len(in.nodes.was)+len(in.networks.was)+len(in.peers.was)+len(in.bgp.was) > 0 {
		s.said.say(s.config(in))
	}
}

// config is zero, which means silence, while the node or the cluster's
// configuration is unknown.
func (s *speaker) config(in *inputs) bgp.Config {
	self := in.nodes.now[s.node]
	cluster := in.bgp.now["default"] // there is no other
	if self == nil || cluster == nil {
		return bgp.Config{}
	}
	c := bgp.Config{
		ASN:         asnOf(s.node, in, cluster),
		RouterID:    routerID(self),
		ListenPort:  cluster.ListenPort,
		RestartTime: cluster.RestartTime,
	}
	byAddr := map[netip.Addr]bgp.Peer{}
	if cluster.Mesh {
		mesh(byAddr, self, c.ASN, in, cluster)
	}
	named(byAddr, self, in)
	for _, p := range byAddr {
		c.Peers = append(c.Peers, p)
	}
	slices.SortFunc(c.Peers, func(a, b bgp.Peer) int { return a.Addr.Compare(b.Addr) })
	return c
}

func asnOf(node string, in *inputs, cluster *event.BGP) uint32 {
	if n := in.networks.now[node]; n != nil && n.ASN != 0 {
		return n.ASN
	}
	return cluster.ASN
}

// mesh adds a session with every other node of the same AS, one for each address
// family that both have. The side with the higher address waits.
func mesh(into map[netip.Addr]bgp.Peer, self *event.Node, asn uint32, in *inputs, cluster *event.BGP) {
	for name, n := range in.nodes.now {
		if n.Name == self.Name || asnOf(name, in, cluster) != asn {
			continue
		}
		for _, v4 := range []bool{true, false} {
			local, remote := addrOf(self, v4), addrOf(n, v4)
			if !local.IsValid() || !remote.IsValid() || slices.Contains(self.Addrs, remote) {
				continue
			}
			p := bgp.Peer{
				Name: "nodenetwork/" + name, Addr: remote, Port: cluster.ListenPort, ASN: asn, LocalAddr: local,
				Hold: bgp.MeshHold, Keepalive: bgp.MeshKeepalive,
				Advertise: bgp.Blocks, Passive: remote.Less(local),
			}
			prefer(into, p)
		}
	}
}

// named adds the neighbours of the BGPPeers that select this node. They replace
// a session of the mesh with the same address: what a person wrote goes first.
func named(into map[netip.Addr]bgp.Peer, self *event.Node, in *inputs) {
	mine := map[netip.Addr]bgp.Peer{}
	for name, p := range in.peers.now {
		local := addrOf(self, p.Addr.Is4())
		if !p.Nodes.Matches(self.Labels) || !local.IsValid() || slices.Contains(self.Addrs, p.Addr) {
			continue
		}
		prefer(mine, bgp.Peer{
			Name: "bgppeer/" + name, Addr: p.Addr, Port: p.Port, ASN: p.ASN, LocalAddr: local,
			Hold: p.Hold, Keepalive: p.Keepalive, Advertise: p.Advertise,
		})
	}
	for a, p := range mine {
		into[a] = p
	}
}

// prefer adds p, unless a neighbour of the same address has the smaller name.
func prefer(into map[netip.Addr]bgp.Peer, p bgp.Peer) {
	if other, taken := into[p.Addr]; !taken || p.Name < other.Name {
		into[p.Addr] = p
	}
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
