package interop

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/koratnet/korat/bgp"
)

// notReflected: what is about other ASes.
var notReflected = map[string]string{"reflector": "Sessions with a reflector are within an AS."}

// pathIs waits until the router has a prefix by a path of ASes.
func (c *cell) pathIs(r router, prefix, path string) {
	c.Helper()
	eventually(c.T, "path of "+prefix, func() string {
		if all := r.routes(false); all[prefix].Path != path {
			return fmt.Sprintf("routes %+v, want it by %q; %s", all, path, c.n1.sessions())
		}
		return ""
	})
}

// localAS: to this router the node is of an AS of which it is to nobody else.
func localAS(c *cell) {
	r := c.plain(func(s *spec, p *bgp.Peer) { s.Neighbours[0].AS, p.LocalASN = 64999, 64999 })
	c.n1.learns(theirs, c.r1.addr)
	eventually(c.T, "path of "+ours, func() string {
		if all := r.routes(false); !strings.HasPrefix(all[ours].Path, "64999") {
			return fmt.Sprintf("routes %+v, want a path that begins with 64999", all)
		}
		return ""
	})
}

// allowOwnAS: two racks of one AS learn each other's routes from the router.
func allowOwnAS(c *cell) {
	n2 := c.node("n2")
	c.start(c.r1, c.role.spec(c.r1, c.n1, n2))
	n2.speak(config(c.role.peer(c.r1, n2)), block(other))
	p := c.role.peer(c.r1, c.n1)
	c.n1.speak(config(p), block(ours))
	n2.session(c.r1.addr, func(s bgp.Session) bool { return s.Advertised == 1 && s.Received >= 1 })
	c.n1.learns(theirs, c.r1.addr)
	c.n1.learns(other)
	p.AllowOwnAS = 1
	c.n1.speak(config(p), block(ours))
	c.n1.learns(other, n2.addr)
}

// between lets the node, which passes on what it hears, speak with two routers: r1
// and one of another AS, which tells a route of its own. It returns r1's.
func (c *cell) between(asn, second uint32, change func(*bgp.Peer)) router {
	c.Helper()
	r2 := c.machine("r2")
	conf := bgp.Config{ASN: asn, ClusterID: netip.MustParseAddr("244.0.0.1")}
	var runs []router
	for i, m := range []*machine{c.r1, r2} {
		s, p := c.role.spec(m, c.n1), c.role.peer(m, c.n1)
		s.Neighbours[0].AS = asn
		if i == 1 {
			s.AS, p.ASN, s.Networks = second, second, []string{"198.51.100.0/25"}
		}
		change(&p)
		runs, conf.Peers = append(runs, c.start(m, s)), append(conf.Peers, p)
	}
	c.n1.speak(conf, block(ours))
	return runs[0]
}

// replaceAS: the router of one rack hears of that of another, which is of its AS, and
// would not take its own.
func replaceAS(c *cell) {
	r := c.between(nodeAS, torAS, func(p *bgp.Peer) { p.ReplaceAS = true })
	c.pathIs(r, "198.51.100.0/25", fmt.Sprintf("%d %d", nodeAS, nodeAS))
}

// removePrivateAS: a public AS hears of a private one as ours.
func removePrivateAS(c *cell) {
	const public = 3333
	r := c.between(public, 65002, func(p *bgp.Peer) { p.RemovePrivateAS = true })
	c.pathIs(r, "198.51.100.0/25", fmt.Sprint(public))
}

// hopsAway: the router is behind another, which takes one from the TTL. At a TTL of
// one there is no session.
func hopsAway(c *cell) {
	far := netip.MustParseAddr("198.18.0.1")
	hop := c.machine("hop")
	hop.ns.Run("sysctl", "-qw", "net.ipv4.ip_forward=1")
	hop.ns.Run("sysctl", "-qw", "net.ipv4.conf.eth0.send_redirects=0")
	hop.ns.Run("ip", "route", "add", far.String(), "via", c.r1.addr.String())
	c.r1.ns.Run("ip", "addr", "add", far.String()+"/32", "dev", "lo")
	c.r1.ns.Run("ip", "link", "set", "lo", "up")
	c.r1.ns.Run("ip", "route", "add", c.n1.addr.String(), "via", hop.addr.String())
	c.n1.ns.Run("ip", "route", "add", far.String(), "via", hop.addr.String())
	s, p := c.role.spec(c.r1, c.n1), c.role.peer(c.r1, c.n1)
	s.Neighbours[0].Local, s.Neighbours[0].Hops = far, 2
	p.Addr, p.TTL = far, 1
	r := c.start(c.r1, s)
	c.n1.speak(config(p), block(ours))
	c.n1.session(far, func(s bgp.Session) bool { return strings.Contains(s.LastError, "no route") })
	p.TTL = 2
	c.n1.speak(config(p), block(ours))
	c.n1.session(far, up)
	c.hears(r, ours, c.n1.addr)
}

// others are two nodes behind the reflector that tell the same prefix.
func (c *cell) others() (n2, n3 *node) {
	n2, n3 = c.node("n2"), c.node("n3")
	for _, n := range []*node{n2, n3} {
		n.speak(config(c.role.peer(c.r1, n)), block(other))
	}
	return n2, n3
}

func addPath(c *cell) {
	n2, n3 := c.others()
	s, p := c.role.spec(c.r1, c.n1, n2, n3), c.role.peer(c.r1, c.n1)
	s.Neighbours[0].AddPaths, p.AddPaths = true, true
	c.start(c.r1, s)
	c.n1.speak(config(p), block(ours))
	c.n1.learns(other, n2.addr, n3.addr)
}

func reflection(c *cell) {
	n2 := c.node("n2")
	r := c.start(c.r1, c.role.spec(c.r1, c.n1, n2))
	c.n1.speak(config(c.role.peer(c.r1, c.n1)), block(ours))
	n2.speak(config(c.role.peer(c.r1, n2)), block(other))
	c.n1.learns(other, n2.addr)
	n2.learns(ours, c.n1.addr)
	c.hears(r, ours, c.n1.addr)
}

// TestItem77RoutersHearOfServicesFromReflectors: a router that has a session with the
// reflector alone learns which node serves an address, and sends to that node.
func TestItem77RoutersHearOfServicesFromReflectors(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	c := &cell{lab: l, daemon: frrDaemon{}, role: tor, n1: l.node("n1"), r1: l.machine("r1")}
	n2 := c.node("n2")
	r := c.start(c.r1, c.role.spec(c.r1, c.n1))
	router, client := c.role.peer(c.r1, c.n1), reflector.peer(n2.machine, c.n1)
	router.NextHop = bgp.NextHopKeep
	client.ReflectorClient, client.Passive = true, true
	conf := config(router, client)
	conf.ClusterID = netip.MustParseAddr("244.0.0.1")
	c.n1.speak(conf, block(ours))
	server := reflector.peer(c.n1.machine, n2)
	server.Advertise |= bgp.Services
	const vip = "198.51.100.7/32"
	n2.speak(config(server), block(other), bgp.Path{Prefix: netip.MustParsePrefix(vip), Kind: bgp.Services})
	c.n1.learns(vip, n2.addr)
	c.hears(r, vip, n2.addr)
	c.hears(r, ours, c.n1.addr)
}
