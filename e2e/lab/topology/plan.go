package topology

import (
	"fmt"
	"net/netip"
	"slices"
)

// ControlPlane is the name of the machine that runs the API server.
const ControlPlane = "cp"

// The positions of addresses in a subnet: routers from 1 up, machines from 11 up.
const (
	firstRouter  = 1
	firstMachine = 11

	controlPlanePosition = 200 // beyond all nodes of a rack
)

// Node is a node with its derived addresses.
type Node struct {
	Name     string
	Rack     *Rack
	Address  netip.Prefix // on the rack's subnet, with its length
	Address6 netip.Prefix // of the second family; zero without a subnet6
	// Management is the node's address on the segment of the API server.
	Management netip.Prefix
}

// Nodes lists all nodes, in the order of the file.
func (t *Topology) Nodes() []Node {
	var out []Node
	for i := range t.Racks {
		r := &t.Racks[i]
		for j, n := range r.Nodes {
			out = append(out, Node{
				Name: n, Rack: r,
				Address:    at(r.Subnet, firstMachine+j),
				Address6:   at(r.Subnet6, firstMachine+j),
				Management: at(t.Management.Subnet, firstMachine+len(out)),
			})
		}
	}
	return out
}

// ToR returns the router of that name, nil if there is none.
func (t *Topology) ToR(name string) *ToR {
	for i := range t.Racks {
		for j := range t.Racks[i].ToRs {
			if tor := &t.Racks[i].ToRs[j]; tor.Name == name {
				return tor
			}
		}
	}
	return nil
}

// APIServer is the address of the API server on the management segment.
func (t *Topology) APIServer() netip.Prefix { return at(t.Management.Subnet, firstRouter) }

// InRack are the addresses of the API server in the first rack, where labs with
// kubelets have it: it calls kubelets and pods. The second is zero without a subnet6.
func (t *Topology) InRack() (netip.Prefix, netip.Prefix) {
	return at(t.Racks[0].Subnet, controlPlanePosition), at(t.Racks[0].Subnet6, controlPlanePosition)
}

// Gateways are the addresses of the rack's routers, in their order; with v6 set
// those of its subnet6, none if it has no such subnet.
func (r *Rack) Gateways(v6 bool) []netip.Prefix {
	subnet := r.Subnet
	if v6 {
		subnet = r.Subnet6
	}
	if !subnet.IsValid() {
		return nil
	}
	var out []netip.Prefix
	for i := range r.ToRs {
		out = append(out, at(subnet, firstRouter+i))
	}
	return out
}

// Ends are the addresses of the link's two ends, in the order of Between.
func (l Link) Ends(v6 bool) [2]netip.Prefix {
	subnet := l.Subnet
	if v6 {
		subnet = l.Subnet6
	}
	return [2]netip.Prefix{at(subnet, 1), at(subnet, 2)}
}

// Address is the host's own address, with v6 set that of its subnet6.
func (h Host) Address(v6 bool) netip.Prefix { return at(h.subnet(v6), firstMachine) }

// Gateway is the address of the host's router on the host's subnet.
func (h Host) Gateway(v6 bool) netip.Prefix { return at(h.subnet(v6), firstRouter) }

func (h Host) subnet(v6 bool) netip.Prefix {
	if v6 {
		return h.Subnet6
	}
	return h.Subnet
}

// Interface is an address of a router, and the name of the link that has it.
type Interface struct {
	Name    string
	Address netip.Prefix
	// Address6 is zero where the segment has no IPv6.
	Address6 netip.Prefix
}

// Session is one BGP session as seen from a router.
type Session struct {
	Name     string
	Peer     netip.Addr
	ASNumber uint32
}

// Router is a router with all that follows from the topology.
type Router struct {
	ToR
	Rack  *Rack
	order int // among the routers
	BFD   int // Topology.BFD
	// Interfaces are its links: eth0 to the rack, then spine links, then hosts.
	Interfaces []Interface
	// Nodes and Spine are its sessions with the rack's nodes and with routers.
	Nodes, Spine []Session
}

// ID is the router's BGP identifier, which looks like an IPv4 address in every
// lab: its address in the rack where that is one.
func (r *Router) ID() netip.Addr {
	if a := r.Interfaces[0].Address.Addr(); a.Is4() {
		return a
	}
	return netip.AddrFrom4([4]byte{192, 0, 2, byte(r.order)})
}

// Routers lists all routers with their interfaces and sessions.
func (t *Topology) Routers() []Router {
	var out []Router
	nodes := t.Nodes()
	for i := range t.Racks {
		rack := &t.Racks[i]
		for j, tor := range rack.ToRs {
			r := Router{ToR: tor, Rack: rack, order: len(out) + 1, BFD: t.BFD}
			r.add(at(rack.Subnet, firstRouter+j), at(rack.Subnet6, firstRouter+j))
			for _, n := range nodes {
				if n.Rack != rack {
					continue
				}
				addrs := []netip.Prefix{n.Address}
				if t.Pool6.IsValid() {
					addrs = append(addrs, n.Address6)
				}
				r.Nodes = append(r.Nodes, sessions(n.Name, rack.ASNumber, addrs...)...)
			}
			t.joinSpine(&r)
			for _, h := range t.Hosts {
				if h.ToR == tor.Name {
					r.add(h.Gateway(false), h.Gateway(true))
				}
			}
			out = append(out, r)
		}
	}
	return out
}

func (t *Topology) joinSpine(r *Router) {
	for _, l := range t.Spine {
		for end, name := range l.Between {
			if name != r.Name {
				continue
			}
			v4, v6 := l.Ends(false), l.Ends(true)
			r.add(v4[end], v6[end])
			peer := t.ToR(l.Between[1-end])
			r.Spine = append(r.Spine, sessions(peer.Name, peer.ASNumber, v4[1-end], v6[1-end])...)
		}
	}
}

func (r *Router) add(v4, v6 netip.Prefix) {
	r.Interfaces = append(r.Interfaces, Interface{Name: fmt.Sprintf("eth%d", len(r.Interfaces)), Address: v4, Address6: v6})
}

// sessions makes a session for each family that the peer has an address of.
func sessions(peer string, as uint32, addrs ...netip.Prefix) []Session {
	var out []Session
	for _, a := range addrs {
		if !a.IsValid() {
			continue
		}
		family := 4
		if a.Addr().Is6() {
			family = 6
		}
		out = append(out, Session{Name: fmt.Sprintf("%s_%d", peer, family), Peer: a.Addr(), ASNumber: as})
	}
	return out
}

// at is the n-th address of p with p's length; zero if p is.
func at(p netip.Prefix, n int) netip.Prefix {
	if !p.IsValid() {
		return netip.Prefix{}
	}
	a := p.Masked().Addr()
	for range n {
		a = a.Next()
	}
	return netip.PrefixFrom(a, p.Bits())
}

// Keep returns the plan with n of its nodes, taken from all racks in turns, the
// first of each rack first. Routers, links and hosts stay.
func (t *Topology) Keep(n int) *Topology {
	out := *t
	out.Racks = slices.Clone(t.Racks)
	for i := range out.Racks {
		out.Racks[i].Nodes = nil
	}
	for turn, took := 0, true; took; turn++ {
		took = false
		for i, r := range t.Racks {
			if n > 0 && turn < len(r.Nodes) {
				out.Racks[i].Nodes = append(out.Racks[i].Nodes, r.Nodes[turn])
				n, took = n-1, true
			}
		}
	}
	return &out
}
