package gobgp_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
)

// pair is the node and one router on a link called tor: 192.0.2.10 and .1,
// 2001:db8:2::10 and ::1.
func pair(t *testing.T) (node, tor *kerneltest.Namespace) {
	t.Helper()
	node, tor = kerneltest.New(t), kerneltest.New(t)
	joined(t, node, tor, "tor", map[*kerneltest.Namespace][]string{
		node: {"192.0.2.10/24", "2001:db8:2::10/64"}, tor: {"192.0.2.1/24", "2001:db8:2::1/64"},
	})
	return node, tor
}

func one(p bgp.Peer) *bgp.Config {
	p.Name, p.Port = "bgppeer/tor", 179
	if p.ASN == 0 && p.Interface == "" {
		p.ASN = 65001
	}
	return &bgp.Config{
		ASN: 64512, RouterID: nodeToFRR, ListenPort: 179, RestartTime: 60 * time.Second, Peers: []bgp.Peer{p},
	}
}

// over is a peer on an address of the pair's router.
func over(addr string) bgp.Peer {
	p := bgp.Peer{Addr: netip.MustParseAddr(addr), LocalAddr: nodeToFRR, Advertise: bgp.Blocks}
	if p.Addr.Is6() {
		p.LocalAddr = nodeToFRR6
	}
	return p
}

const frrBegin = `
router bgp 65001
 bgp router-id 192.0.2.1
 no bgp ebgp-requires-policy
 no bgp network import-check
 bgp graceful-restart
`

const frrNetworks = `
 address-family ipv4 unicast
  network 203.0.113.0/25
 exit-address-family
 address-family ipv6 unicast
  network 2001:db8:f::/48
 exit-address-family
`

func birdBegin(channels string) string {
	return `
router id 192.0.2.1;
protocol device { scan time 1; }
protocol direct { ipv4; ipv6; }
protocol kernel { scan time 3600; ipv4 { export where source = RTS_BGP; import none; }; }
protocol static { ipv4; route 203.0.113.0/25 blackhole; }
protocol static { ipv6; route 2001:db8:f::/48 blackhole; }
protocol bgp node {
	connect delay time 1; connect retry time 1; error wait time 1, 2;
` + channels + "}\n"
}

var bothFamilies = bgp.IPv4 | bgp.IPv6

func via(hop4, hop6 string) map[string]string {
	return map[string]string{"203.0.113.0/25": hop4, "2001:db8:f::/48": hop6}
}

// TestBothFamiliesOverOneSession: IPv4 with next hops of IPv6 (RFC 8950), and each
// family with next hops of its own.
func TestBothFamiliesOverOneSession(t *testing.T) {
	frrOver := func(addr string) string {
		return frrBegin + fmt.Sprintf(`
 neighbor %[1]s remote-as 64512
 neighbor %[1]s timers connect 1
 neighbor %[1]s capability extended-nexthop
 address-family ipv4 unicast
  neighbor %[1]s activate
 exit-address-family
 address-family ipv6 unicast
  neighbor %[1]s activate
  neighbor %[1]s route-map own out
 exit-address-family
`, addr) + frrNetworks + `
route-map own permit 1
 set ipv6 next-hop global 2001:db8:2::1
`
	}
	six := over("2001:db8:2::1")
	six.Families = bothFamilies
	four := over("192.0.2.1")
	four.Families, four.NextHop6 = bothFamilies, nodeToFRR6
	sixOwn4 := six
	sixOwn4.NextHop4 = nodeToFRR
	for name, tc := range map[string]struct {
		peer         bgp.Peer
		frr, bird    string
		told4, heard string // next hops for IPv4
	}{
		"over IPv6": {
			six, frrOver("2001:db8:2::10"),
			"local 2001:db8:2::1 as 65001; neighbor 2001:db8:2::10 as 64512; ipv4 { extended next hop on; import all; export where source = RTS_STATIC; }; ipv6 { import all; export where source = RTS_STATIC; };",
			nodeToFRR6.String(), "2001:db8:2::1",
		},
		"over IPv6, own next hop": {
			sixOwn4, frrOver("2001:db8:2::10"), "", nodeToFRR.String(), "2001:db8:2::1",
		},
		"over IPv4": {
			four, frrOver("192.0.2.10"), "", nodeToFRR.String(), "192.0.2.1",
		},
	} {
		for _, kind := range []string{"FRR", "BIRD"} {
			if kind == "BIRD" && tc.bird == "" {
				continue
			}
			t.Run(name+" with "+kind, func(t *testing.T) {
				node, tor := pair(t)
				var told func() map[string]string
				if kind == "FRR" {
					r := frr(t, tor, tc.frr)
					told = func() map[string]string {
						out := r.frrRoutes("ipv4")
						for k, v := range r.frrRoutes("ipv6") {
							out[k] = v
						}
						return out
					}
				} else {
					r := bird(t, tor, birdBegin(tc.bird))
					told = func() map[string]string { return r.birdRoutes("node") }
				}
				s := startSpeaker(t, node, false)
				s.ask(request{Announce: []bgp.Path{block, block6}})
				s.ask(request{Configure: one(tc.peer)})
				eventually(t, "learned", via(tc.heard, "2001:db8:2::1"), func() any { return s.learned() })
				eventually(t, "told", map[string]string{"10.244.0.0/26": tc.told4, "fd00:10:244::/122": nodeToFRR6.String()},
					func() any { return told() })
			})
		}
	}
}

// TestUnnumberedPeer: the router is found by what it advertises on the link,
// and its next hops are on that link.
func TestUnnumberedPeer(t *testing.T) {
	node, tor := kerneltest.New(t), kerneltest.New(t)
	joined(t, node, tor, "tor", map[*kerneltest.Namespace][]string{})
	node.Up("tor")
	tor.Up("tor")
	r := frr(t, tor, frrBegin+`
 neighbor tor interface remote-as external
 neighbor tor timers connect 1
 address-family ipv6 unicast
  neighbor tor activate
 exit-address-family
`+frrNetworks)
	s := startSpeaker(t, node, false)
	s.ask(request{Announce: []bgp.Path{block, block6}})
	s.ask(request{Configure: one(bgp.Peer{Interface: "nowhere", Advertise: bgp.Blocks, Families: bothFamilies})})
	if got := s.session("bgppeer/tor"); got.Established || got.LastError == "" {
		t.Errorf("session on a link that is not there: %+v", got)
	}
	s.ask(request{Configure: one(bgp.Peer{Interface: "tor", Advertise: bgp.Blocks, Families: bothFamilies})})
	remote := linkLocal(t, tor, "tor") + "%tor"
	eventually(t, "learned", via(remote, remote), func() any { return s.learned() })
	local := linkLocal(t, node, "tor")
	eventually(t, "IPv4 in FRR", true, func() any { return strings.Contains(r.vtysh("show bgp ipv4 unicast"), "10.244.0.0/26") })
	eventually(t, "next hop in FRR", true, func() any { return strings.Contains(r.vtysh("show bgp ipv4 unicast 10.244.0.0/26"), local) })
	eventually(t, "session", remote+" 65001 true", func() any {
		got := s.session("bgppeer/tor")
		return fmt.Sprint(got.Addr, got.ASN, got.Established)
	})
}

func linkLocal(t *testing.T, ns *kerneltest.Namespace, link string) string {
	t.Helper()
	f := strings.Fields(ns.Run("ip", "-o", "-6", "addr", "show", "dev", link, "scope", "link"))
	i := slices.Index(f, "inet6")
	if i < 0 {
		t.Fatalf("no link-local address on %s: %v", link, f)
	}
	addr, _, _ := strings.Cut(f[i+1], "/")
	return addr
}

// TestItem69Password: a wrong password is suspected in words, and a new one
// touches only its peer.
func TestItem69Password(t *testing.T) {
	node, tor := pair(t)
	r := frr(t, tor, frrBegin+`
 neighbor 192.0.2.10 remote-as 64512
 neighbor 192.0.2.10 timers connect 1
 neighbor 192.0.2.10 password first
 neighbor 2001:db8:2::10 remote-as 64512
 neighbor 2001:db8:2::10 passive
 address-family ipv6 unicast
  neighbor 2001:db8:2::10 activate
 exit-address-family
`+frrNetworks)
	c := one(over("192.0.2.1"))
	six := over("2001:db8:2::1")
	six.Name, six.Port, six.ASN = "bgppeer/six", 179, 65001
	c.Peers = append(c.Peers, six)
	s := startSpeaker(t, node, false)
	s.ask(request{Announce: []bgp.Path{block, block6}})
	with := func(password string) {
		t.Helper()
		s.ask(request{Configure: c, Passwords: map[string]string{"bgppeer/tor": password}})
	}
	with("other")
	eventually(t, "words", true, func() any { return strings.Contains(s.session("bgppeer/tor").LastError, "password") })
	eventually(t, "learned", map[string]string{"2001:db8:f::/48": "2001:db8:2::1"}, func() any { return s.learned() })
	up := r.frrSessions("2001:db8:2::10")
	with("first")
	eventually(t, "learned", via("192.0.2.1", "2001:db8:2::1"), func() any { return s.learned() })
	r.vtysh("configure terminal", "router bgp 65001", "neighbor 192.0.2.10 password second")
	with("second")
	eventually(t, "session with the new password", true, func() any { return s.session("bgppeer/tor").Established })
	eventually(t, "told", map[string]string{"10.244.0.0/26": nodeToFRR.String()}, func() any { return r.frrRoutes("ipv4") })
	r.vtysh("configure terminal", "router bgp 65001", "no neighbor 192.0.2.10 password")
	with("")
	eventually(t, "told without a password", map[string]string{"10.244.0.0/26": nodeToFRR.String()}, func() any { return r.frrRoutes("ipv4") })
	eventually(t, "learned without a password", via("192.0.2.1", "2001:db8:2::1"), func() any { return s.learned() })
	if now := r.frrSessions("2001:db8:2::10"); now != up {
		t.Errorf("sessions of the other peer %s, want %s", now, up)
	}
}

// TestItem69GTSM: a peer that must be on the link is not heard when it is not.
func TestItem69GTSM(t *testing.T) {
	node, tor := pair(t)
	frr(t, tor, frrBegin+`
 neighbor 192.0.2.10 remote-as 64512
 neighbor 192.0.2.10 timers connect 1
 neighbor 192.0.2.10 ttl-security hops 1
`+frrNetworks)
	near := over("192.0.2.1")
	near.GTSM = 1
	s := startSpeaker(t, node, false)
	s.ask(request{Configure: one(near)})
	eventually(t, "learned", map[string]string{"203.0.113.0/25": "192.0.2.1"}, func() any { return s.learned() })
	far := over("192.0.2.1")
	s.ask(request{Configure: one(far)}) // sends with TTL 1: FRR drops it
	eventually(t, "learned from one that is too far", map[string]string{}, func() any { return s.learned() })
	s.ask(request{Configure: one(near)})
	eventually(t, "learned", map[string]string{"203.0.113.0/25": "192.0.2.1"}, func() any { return s.learned() })
}

func TestTooManyPrefixes(t *testing.T) {
	node, tor := pair(t)
	r := frr(t, tor, frrBegin+`
 neighbor 192.0.2.10 remote-as 64512
 neighbor 192.0.2.10 timers connect 1
`+frrNetworks)
	p := over("192.0.2.1")
	p.MaxPrefixes = 2
	s := startSpeaker(t, node, false)
	s.ask(request{Configure: one(p)})
	eventually(t, "learned", map[string]string{"203.0.113.0/25": "192.0.2.1"}, func() any { return s.learned() })
	r.vtysh("configure terminal", "router bgp 65001", "address-family ipv4 unicast", "network 203.0.113.128/26", "network 203.0.113.192/26")
	eventually(t, "learned from one that says too much", map[string]string{}, func() any { return s.learned() })
	eventually(t, "words", true, func() any {
		return strings.HasPrefix(s.session("bgppeer/tor").LastError, "too many prefixes: more than 2")
	})
}

// TestItem75SecondRestart: two restarts in a row, the second before the first is
// over, take nothing away, whether the neighbour speaks RFC 8538 or not.
func TestItem75SecondRestart(t *testing.T) {
	node, tor1, tor2 := kerneltest.New(t), kerneltest.New(t), kerneltest.New(t)
	joined(t, node, tor1, "frr", map[*kerneltest.Namespace][]string{
		node: {"192.0.2.10/24", "2001:db8:2::10/64"}, tor1: {"192.0.2.1/24", "2001:db8:2::1/64"},
	})
	joined(t, node, tor2, "bird", map[*kerneltest.Namespace][]string{node: {"198.51.100.10/24"}, tor2: {"198.51.100.1/24"}})
	f, b := frr(t, tor1, frrConfig), bird(t, tor2, birdConfig)
	c := between()
	// Somebody who is not there: nothing may wait for them.
	c.Peers = append(c.Peers, bgp.Peer{
		Name: "bgppeer/absent", Addr: netip.MustParseAddr("198.51.100.99"), Port: 179, ASN: 65009, LocalAddr: nodeToBIRD, Advertise: bgp.Blocks,
	})
	slices.SortFunc(c.Peers, func(a, b bgp.Peer) int { return a.Addr.Compare(b.Addr) })
	begin := func(restarted bool) *process {
		s := startSpeaker(t, node, restarted)
		s.ask(request{Announce: allPaths})
		s.ask(request{Configure: c})
		return s
	}
	blocks := map[string]string{"10.244.0.0/26": nodeToFRR.String(), "10.244.0.64/26": nodeToFRR.String()}
	blocks6 := map[string]string{"fd00:10:244::/122": nodeToFRR6.String(), "fd00:10:244::5/128": nodeToFRR6.String()}
	hosts := map[string]string{"10.244.0.5/32": nodeToBIRD.String(), "10.244.0.6/32": nodeToBIRD.String()}
	s := begin(false)
	eventually(t, "routes in FRR", blocks, func() any { return f.frrRoutes("ipv4") })
	eventually(t, "IPv6 routes in FRR", blocks6, func() any { return f.frrRoutes("ipv6") })
	eventually(t, "routes in BIRD", hosts, func() any { return b.birdRoutes("node") })
	m1, m2 := tor1.Monitor(), tor2.Monitor()
	for range 3 {
		// RFC 4724, 4.2: what is still stale when a session ends again goes. So each
		// neighbour has to notice that the session ended, and be told its routes again,
		// before the next kill; the restart itself goes on.
		s.kill()
		eventually(t, "routes in FRR", stale(blocks), func() any { return f.frrRoutes("ipv4") })
		eventually(t, "IPv6 routes in FRR", stale(blocks6), func() any { return f.frrRoutes("ipv6") })
		eventually(t, "session of BIRD", "restarts", func() any { return b.birdSession("node") })
		s = begin(true)
		eventually(t, "session of BIRD", "up", func() any { return b.birdSession("node") })
		eventually(t, "routes in FRR", blocks, func() any { return f.frrRoutes("ipv4") })
		eventually(t, "IPv6 routes in FRR", blocks6, func() any { return f.frrRoutes("ipv6") })
	}
	if d1, d2 := deletions(m1), deletions(m2); d1+d2 != 0 {
		t.Errorf("FRR deleted %d and BIRD %d kernel routes", d1, d2)
	}
}

// TestLongLivedRestart: routes stay, less preferred, after the restart time; for
// us at the neighbour, and for the neighbour with us.
func TestLongLivedRestart(t *testing.T) {
	const bothRoles = `local 192.0.2.1 as 65001; neighbor 192.0.2.10 as 64512;
	graceful restart on; graceful restart time 1; long lived graceful restart on; long lived stale time 60;
	ipv4 { import all; export where source = RTS_STATIC; };`
	node, tor := pair(t)
	r := bird(t, tor, birdBegin(bothRoles))
	begin := func(restarted bool) *process {
		c := one(over("192.0.2.1"))
		c.RestartTime, c.LongLived = time.Second, time.Minute
		c.Peers[0].Passive = true // when both call, a session may begin twice
		s := startSpeaker(t, node, restarted)
		s.ask(request{Announce: []bgp.Path{block}})
		s.ask(request{Configure: c})
		return s
	}
	s := begin(false)
	told := map[string]string{"10.244.0.0/26": nodeToFRR.String()}
	heard := map[string]string{"203.0.113.0/25": "192.0.2.1"}
	eventually(t, "told", told, func() any { return r.birdRoutes("node") })
	eventually(t, "learned", heard, func() any { return s.learned() })
	s.kill()
	// BIRD shows it when the time for a short restart is over.
	eventually(t, "stale at BIRD", true, func() any { return strings.Contains(r.birdc("show", "route", "all", "protocol", "node"), "(65535,6)") })
	s = begin(true)
	eventually(t, "fresh at BIRD", false, func() any { return strings.Contains(r.birdc("show", "route", "all", "protocol", "node"), "(65535,6)") })
	eventually(t, "told", told, func() any { return r.birdRoutes("node") })
	eventually(t, "learned", heard, func() any { return s.learned() })

	if err := r.run.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	stale := func() any {
		routes := s.ask(request{Routes: &bgp.Routes{Peer: "bgppeer/tor"}}).Routes
		return len(routes) == 1 && slices.Contains(routes[0].Communities, 0xffff0006)
	}
	eventually(t, "stale here", true, stale)
	s.mu.Lock()
	withdrawn := slices.Clone(s.withdrawn)
	s.mu.Unlock()
	if len(withdrawn) != 0 || fmt.Sprint(s.learned()) != fmt.Sprint(heard) {
		t.Errorf("learned %v, withdrawn %v, want %v", s.learned(), withdrawn, heard)
	}
	bird(t, tor, birdBegin(bothRoles))
	eventually(t, "fresh here", false, stale)
	eventually(t, "learned", heard, func() any { return s.learned() })
}
