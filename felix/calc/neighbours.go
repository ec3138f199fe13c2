package calc

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/felix/event"
)

// longestPassword is what TCP takes (RFC 2385 as Linux has it), in bytes.
const longestPassword = 80

// end identifies a neighbour: two sessions with one end there cannot be.
type end struct {
	addr  netip.Addr
	iface string
}

// neighbours is a configuration while it is put together. A session that cannot
// be as its author wrote it, because something that it names is missing, is not:
// closed says why.
type neighbours struct {
	in      *inputs
	self    *event.Node
	cluster *event.BGP
	fabric  fabric
	// advertisements are those that this node takes part in, by name.
	advertisements map[string]*event.Advertisement
	toldNodes      []string     // the advertisements that other nodes are told
	claimed        map[end]bool // somebody asked for a session with it

	config   bgp.Config
	closed   []bgp.Session
	gateways map[netip.Prefix]netip.Addr
}

// complete sorts the peers, and adds what they name.
func (n *neighbours) complete() {
	filters, advertisements := map[string]bool{}, map[string]bool{}
	for _, p := range n.config.Peers {
		for _, name := range slices.Concat(p.Import, p.Export) {
			filters[name] = true
		}
		for _, name := range p.Advertisements {
			advertisements[name] = true
		}
	}
	slices.SortFunc(n.config.Peers, func(a, b bgp.Peer) int {
		return cmp.Or(a.Addr.Compare(b.Addr), strings.Compare(a.Interface, b.Interface))
	})
	for _, name := range slices.Sorted(maps.Keys(filters)) {
		n.config.Filters = append(n.config.Filters, n.in.filters.now[name].Filter)
	}
	for _, name := range slices.Sorted(maps.Keys(advertisements)) {
		a := bgp.Advertisement{Name: name}
		if o := n.advertisements[name]; o != nil {
			a.Attributes = o.Attributes
		}
		n.config.Advertisements = append(n.config.Advertisements, a)
	}
}

// offer is a session as somebody wants it.
type offer struct {
	bgp.Peer
	gateway  netip.Addr // leads to the neighbour; invalid: nodes reach it anyway
	password *event.SecretKey
	field    string // that names the password
	problem  string // why it cannot be; empty: nothing is known yet
}

// find adds the sessions that BGPPeers ask for, in the order of their names, and
// then those of the fabric. The first that asks for an end has it, also if it
// cannot be: nobody gets a session without the password or filter that was meant.
func (n *neighbours) find() {
	others := n.others()
	for _, name := range slices.Sorted(maps.Keys(n.in.peers.now)) {
		p := n.in.peers.now[name]
		if p.Session.Addr.IsValid() || p.Session.Interface != "" {
			n.outside(p)
			continue
		}
		here, there := p.Nodes.Matches(n.self.Labels), p.Others.Matches(n.self.Labels)
		if !here && !there {
			continue
		}
		o := n.offer(p)
		for _, other := range others {
			if here && p.Others.Matches(other.Labels) || there && p.Nodes.Matches(other.Labels) {
				n.withNode(other, o)
			}
		}
	}
	for _, other := range others {
		if asnOf(other.Name, n.in, n.cluster) == n.config.ASN && n.fabric.linked(n.self.Name, other.Name) {
			n.withNode(other, offer{
				Peer:     bgp.Peer{Name: "nodenetwork/" + other.Name, Hold: bgp.MeshHold, Keepalive: bgp.MeshKeepalive, Advertise: n.fabric.told()},
				password: n.cluster.Password, field: "BGPConfiguration default: spec.meshPassword",
			})
		}
	}
}

// others returns the other nodes that can be told from this one, by name: of two
// with one address the first counts.
func (n *neighbours) others() []*event.Node {
	var out []*event.Node
	for _, name := range slices.Sorted(maps.Keys(n.in.nodes.now)) {
		other := n.in.nodes.now[name]
		if other.Name != n.self.Name && !n.double(other) {
			out = append(out, other)
		}
	}
	return out
}

// double tells of another node with an address of this one: no session would
// find it, and packets for one reach the other.
func (n *neighbours) double(other *event.Node) bool {
	found := false
	for _, a := range other.Addrs {
		if slices.Contains(n.self.Addrs, a) {
			found = true
			n.close(bgp.Peer{Name: "nodenetwork/" + other.Name, Addr: a, ASN: asnOf(other.Name, n.in, n.cluster)},
				fmt.Sprintf("node %s has the address %s of this node, expected one of its own", other.Name, a))
		}
	}
	return found
}

// withNode adds sessions with another node, one for each address family that both
// have. The side with the higher address waits for the other.
func (n *neighbours) withNode(other *event.Node, o offer) {
	o.Advertisements = slices.Concat(n.toldNodes, o.Advertisements)
	for _, v4 := range []bool{true, false} {
		local, remote := addrOf(n.self, v4), addrOf(other, v4)
		if !local.IsValid() || !remote.IsValid() {
			continue
		}
		o := o
		o.Addr, o.LocalAddr, o.Port = remote, local, n.cluster.ListenPort
		o.ASN = asnOf(other.Name, n.in, n.cluster)
		o.Passive = remote.Less(local)
		o.ReflectorClient = o.ASN == n.config.ASN && n.fabric.client(n.self.Name, other.Name)
		o.AddPaths = o.AddPaths || o.ASN == n.config.ASN && n.config.ClusterID.IsValid()
		n.open(o)
		if o.Families != 0 {
			return // one session carries what was asked for
		}
	}
}

// outside adds the session with a BGPPeer outside of the cluster.
func (n *neighbours) outside(p *event.Peer) {
	if !p.Nodes.Matches(n.self.Labels) || slices.Contains(n.self.Addrs, p.Session.Addr) {
		return
	}
	o := n.offer(p)
	o.gateway = p.Gateway
	if o.Interface == "" && p.FromNode {
		o.LocalAddr = addrOf(n.self, o.Addr.Is4())
		if !o.LocalAddr.IsValid() && o.problem == "" {
			o.problem = fmt.Sprintf("spec.address: node %s has no address of the family of %s", n.self.Name, o.Addr)
		}
	}
	n.open(o)
}

// offer returns what p says of sessions.
func (n *neighbours) offer(p *event.Peer) offer {
	o := offer{Peer: p.Session, password: p.Password, field: "spec.password"}
	o.Name = "bgppeer/" + p.Name
	for name, a := range n.advertisements {
		if a.Peers.Matches(p.Labels) {
			o.Advertisements = append(o.Advertisements, name)
		}
	}
	slices.Sort(o.Advertisements)
	for i, name := range p.Filters {
		f := n.in.filters.now[name]
		switch {
		case f == nil:
			o.problem = cmp.Or(o.problem, fmt.Sprintf("spec.filters[%d]: BGPFilter %q does not exist", i, name))
			continue
		case f.Problem != "":
			o.problem = cmp.Or(o.problem, fmt.Sprintf("spec.filters[%d]: BGPFilter %q is not accepted: %s", i, name, f.Problem))
			continue
		}
		if len(f.Import) > 0 {
			o.Import = append(o.Import, name)
		}
		if len(f.Export) > 0 {
			o.Export = append(o.Export, name)
		}
	}
	return o
}

// open adds a session if nobody has its end and nothing that it needs is missing.
func (n *neighbours) open(o offer) {
	at := end{o.Addr, o.Interface}
	if n.claimed[at] {
		return
	}
	n.claimed[at] = true
	if o.gateway.IsValid() {
		n.gateways[single(o.Addr)] = o.gateway
	}
	if o.password != nil && o.problem == "" {
		var problem string
		if o.Password, problem = n.password(*o.password); problem != "" {
			o.problem = o.field + ": " + problem
		}
	}
	if o.problem != "" {
		n.close(o.Peer, o.problem)
		return
	}
	n.crossing(&o.Peer)
	n.config.Peers = append(n.config.Peers, o.Peer)
}

// crossing gives a session that carries the other family the next hop for it.
// At an interface both families have the link's own.
func (n *neighbours) crossing(s *bgp.Peer) {
	if s.Interface != "" {
		return
	}
	if s.Addr.Is4() && s.Families&bgp.IPv6 != 0 {
		s.NextHop6 = addrOf(n.self, false)
	}
	if !s.Addr.Is4() && s.Families&bgp.IPv4 != 0 {
		s.NextHop4 = addrOf(n.self, true)
	}
}

// password looks a password up, or says what is wrong with it.
func (n *neighbours) password(k event.SecretKey) (bgp.Password, string) {
	secret := n.in.secrets.now[k.Secret]
	if secret == nil {
		return "", fmt.Sprintf("Secret %q does not exist in the namespace of the agents, or they may not read it", k.Secret)
	}
	value, there := secret.Values[k.Key]
	switch {
	case !there:
		return "", fmt.Sprintf("Secret %q has no key %q", k.Secret, k.Key)
	case value == "":
		return "", fmt.Sprintf("key %q of Secret %q is empty, expected a password", k.Key, k.Secret)
	case len(value) > longestPassword:
		return "", fmt.Sprintf("key %q of Secret %q has %d bytes, expected at most %d", k.Key, k.Secret, len(value), longestPassword)
	}
	return value, ""
}

// close says that there is no such session, and why.
func (n *neighbours) close(s bgp.Peer, why string) {
	n.closed = append(n.closed, bgp.Session{Peer: s.Name, Addr: s.Addr, ASN: s.ASN, State: "Idle", LastError: why})
}
