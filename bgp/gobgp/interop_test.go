package gobgp_test

import (
	"fmt"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
)

// The node stands between an FRR and a BIRD router, each in an AS of its own:
//
//	FRR AS 65001 ── 192.0.2.0/24, 2001:db8:2::/64 ── node AS 64512 ── 198.51.100.0/24 ── BIRD AS 65002
//	      .1                                    .10      .10                      .1
//
// Only the node calls, so that no session begins twice. FRR must not be the one: while
// it keeps routes over a restart it calls once, and then waits to be called.
const frrConfig = `
router bgp 65001
 bgp router-id 192.0.2.1
 no bgp ebgp-requires-policy
 no bgp network import-check
 bgp graceful-restart
 neighbor 192.0.2.10 remote-as 64512
 neighbor 192.0.2.10 passive
 neighbor 2001:db8:2::10 remote-as 64512
 neighbor 2001:db8:2::10 passive
 address-family ipv4 unicast
  network 203.0.113.0/25
  network 203.0.113.128/25
 exit-address-family
 address-family ipv6 unicast
  neighbor 2001:db8:2::10 activate
  network 2001:db8:f::/48
 exit-address-family
`

const birdConfig = `
router id 198.51.100.1;
protocol device { scan time 1; }
protocol direct { ipv4; ipv6; }
protocol kernel { scan time 3600; ipv4 { export where source = RTS_BGP; import none; }; }
protocol static { ipv4; route 203.0.113.128/25 blackhole; route 203.0.113.64/26 blackhole; }
protocol bgp node {
	local 198.51.100.1 as 65002;
	neighbor 198.51.100.10 as 64512;
	passive on; error wait time 1, 2;
	graceful restart on;
	ipv4 { import all; export where source = RTS_STATIC; };
}
`

var (
	nodeToFRR  = netip.MustParseAddr("192.0.2.10")
	nodeToFRR6 = netip.MustParseAddr("2001:db8:2::10")
	nodeToBIRD = netip.MustParseAddr("198.51.100.10")

	block    = bgp.Path{Prefix: netip.MustParsePrefix("10.244.0.0/26"), Kind: bgp.Blocks}
	block2   = bgp.Path{Prefix: netip.MustParsePrefix("10.244.0.64/26"), Kind: bgp.Blocks}
	block6   = bgp.Path{Prefix: netip.MustParsePrefix("fd00:10:244::/122"), Kind: bgp.Blocks}
	pod      = bgp.Path{Prefix: netip.MustParsePrefix("10.244.0.5/32"), Kind: bgp.Hosts}
	pod2     = bgp.Path{Prefix: netip.MustParsePrefix("10.244.0.6/32"), Kind: bgp.Hosts}
	pod6     = bgp.Path{Prefix: netip.MustParsePrefix("fd00:10:244::5/128"), Kind: bgp.Hosts}
	allPaths = []bgp.Path{block, block2, block6, pod, pod2, pod6}
)

// between is the node's configuration: FRR asks for blocks, BIRD for hosts.
func between() *bgp.Config {
	return &bgp.Config{
		ASN: 64512, RouterID: nodeToFRR, ListenPort: 179, RestartTime: 60 * time.Second,
		Peers: []bgp.Peer{
			{
				Name: "bgppeer/frr", Addr: netip.MustParseAddr("192.0.2.1"), Port: 179, ASN: 65001,
				LocalAddr: nodeToFRR, Advertise: bgp.Blocks,
			},
			{
				Name: "bgppeer/bird", Addr: netip.MustParseAddr("198.51.100.1"), Port: 179, ASN: 65002,
				LocalAddr: nodeToBIRD, Advertise: bgp.Hosts,
			},
			{
				Name: "bgppeer/frr6", Addr: netip.MustParseAddr("2001:db8:2::1"), Port: 179, ASN: 65001,
				LocalAddr: nodeToFRR6, Advertise: bgp.Blocks | bgp.Hosts,
			},
		},
	}
}

func joined(t *testing.T, a, b *kerneltest.Namespace, link string, addrs map[*kerneltest.Namespace][]string) {
	t.Helper()
	kerneltest.Veth(a, link, b, link)
	for _, ns := range []*kerneltest.Namespace{a, b} {
		// FRR refuses IPv6 sessions until the interface has a link-local address.
		ns.Run("sysctl", "-qw", "net.ipv6.conf."+link+".accept_dad=0")
	}
	for ns, list := range addrs {
		for _, addr := range list {
			ns.Run("ip", "addr", "add", addr, "dev", link, "nodad")
		}
		ns.Up(link)
	}
}

// TestBetweenFRRAndBIRD is one story, because each session takes seconds to come
// up: who hears what, changes on running sessions, restarts, an ordered end.
func TestBetweenFRRAndBIRD(t *testing.T) {
	node, tor1, tor2 := kerneltest.New(t), kerneltest.New(t), kerneltest.New(t)
	joined(t, node, tor1, "frr", map[*kerneltest.Namespace][]string{
		node: {"192.0.2.10/24", "2001:db8:2::10/64"}, tor1: {"192.0.2.1/24", "2001:db8:2::1/64"},
	})
	joined(t, node, tor2, "bird", map[*kerneltest.Namespace][]string{node: {"198.51.100.10/24"}, tor2: {"198.51.100.1/24"}})
	f, b := frr(t, tor1, frrConfig), bird(t, tor2, birdConfig)
	s := startSpeaker(t, node, false)
	s.ask(request{Announce: allPaths})
	s.ask(request{Configure: between()})

	viaFRR, viaFRR6, viaBIRD := nodeToFRR.String(), nodeToFRR6.String(), nodeToBIRD.String()
	frrSees := func(want map[string]string) {
		t.Helper()
		eventually(t, "routes in FRR", want, func() any { return f.frrRoutes("ipv4") })
	}
	frr6Sees := func(want map[string]string) {
		t.Helper()
		eventually(t, "IPv6 routes in FRR", want, func() any { return f.frrRoutes("ipv6") })
	}
	birdSees := func(want map[string]string) {
		t.Helper()
		eventually(t, "routes in BIRD", want, func() any { return b.birdRoutes("node") })
	}
	learns := func(s *process, want map[string]string) {
		t.Helper()
		eventually(t, "learned", want, func() any { return s.learned() })
	}
	fromFRR := map[string]string{"203.0.113.0/25": "192.0.2.1", "203.0.113.128/25": "192.0.2.1", "2001:db8:f::/48": "2001:db8:2::1"}
	fromBoth := map[string]string{
		"203.0.113.0/25": "192.0.2.1", "203.0.113.128/25": "192.0.2.1 198.51.100.1",
		"203.0.113.64/26": "198.51.100.1", "2001:db8:f::/48": "2001:db8:2::1",
	}
	blocks := map[string]string{"10.244.0.0/26": viaFRR, "10.244.0.64/26": viaFRR}
	blocks6 := map[string]string{"fd00:10:244::/122": viaFRR6, "fd00:10:244::5/128": viaFRR6}
	hosts := map[string]string{"10.244.0.5/32": viaBIRD, "10.244.0.6/32": viaBIRD}

	// Each is told what it asked for, and nothing of what the other said.
	frrSees(blocks)
	birdSees(hosts)
	frr6Sees(blocks6)
	// A prefix that both announce has two next hops.
	learns(s, fromBoth)
	for peer, want := range map[string]string{"bgppeer/frr": "true 2 2", "bgppeer/frr6": "true 1 2", "bgppeer/bird": "true 2 2"} {
		eventually(t, "session "+peer, want, func() any {
			got := s.session(peer)
			return fmt.Sprint(got.Established, got.Received, got.Advertised, got.LastError)
		})
	}

	// One path goes and comes.
	s.ask(request{Withdraw: []bgp.Path{block2, pod2}})
	frrSees(map[string]string{"10.244.0.0/26": viaFRR})
	birdSees(map[string]string{"10.244.0.5/32": viaBIRD})
	s.ask(request{Announce: []bgp.Path{block2, pod2}})
	frrSees(blocks)
	birdSees(hosts)

	// What FRR is told changes, and BIRD is no peer for a while: no session of FRR ends.
	up, up6 := f.frrSessions("192.0.2.10"), f.frrSessions("2001:db8:2::10")
	changed := between()
	changed.Peers[0].Advertise = bgp.Hosts
	changed.Peers = append(changed.Peers[:1], changed.Peers[2])
	s.ask(request{Configure: changed})
	frrSees(map[string]string{"10.244.0.5/32": viaFRR, "10.244.0.6/32": viaFRR})
	birdSees(map[string]string{})
	learns(s, fromFRR)
	s.ask(request{Configure: between()})
	frrSees(blocks)
	birdSees(hosts)
	learns(s, fromBoth)
	if a, b := f.frrSessions("192.0.2.10"), f.frrSessions("2001:db8:2::10"); a != up || b != up6 {
		t.Errorf("sessions of FRR came up and went down %s, %s times; want %s, %s: they were reset", a, b, up, up6)
	}

	// Restarts: first killed, then closed in order. Nobody forwards less meanwhile.
	for _, end := range []struct {
		name string
		by   func()
	}{{"killed", s.kill}, {"closed", func() { s.close() }}} {
		m1, m2 := tor1.Monitor(), tor2.Monitor()
		// Nothing is stale any more of an earlier restart: that would go now.
		frr6Sees(blocks6)
		end.by()
		frrSees(stale(blocks))
		frr6Sees(stale(blocks6))
		eventually(t, "session of BIRD", "restarts", func() any { return b.birdSession("node") })
		birdSees(hosts)
		s = startSpeaker(t, node, true)
		// What was deleted meanwhile is gone after the restart, and nothing else.
		s.ask(request{Announce: []bgp.Path{block, block6, pod, pod6}})
		s.ask(request{Configure: between()})
		frrSees(map[string]string{"10.244.0.0/26": viaFRR})
		birdSees(map[string]string{"10.244.0.5/32": viaBIRD})
		learns(s, fromBoth)
		eventually(t, "synced", true, func() any {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.synced
		})
		var deleted [2]int
		count := func() any {
			deleted[0] += deletions(m1)
			deleted[1] += deletions(m2)
			return deleted
		}
		eventually(t, end.name+": kernel routes deleted by FRR and BIRD", [2]int{1, 1}, count)
		s.ask(request{Announce: []bgp.Path{block2, pod2}})
		frrSees(blocks)
		birdSees(hosts)
		if count(); deleted != [2]int{1, 1} {
			t.Errorf("%s: FRR and BIRD deleted %v kernel routes, want 1 each", end.name, deleted)
		}
	}

	// A router that ends in order takes its paths along, and says why.
	if err := b.run.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	learns(s, fromFRR)
	if got := s.session("bgppeer/bird"); got.Established || got.LastError != "the neighbour says: administrative shutdown" {
		t.Errorf("session %+v", got)
	}
}
