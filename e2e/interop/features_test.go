package interop

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/koratnet/korat/bgp"
)

const (
	ours   = "10.244.1.0/26"
	ours2  = "10.244.1.64/26"
	ours6  = "fd00:10:244:1::/122"
	theirs = "203.0.113.0/25"
	other  = "10.244.2.0/26" // of another node
)

var features = []feature{
	{name: "IPv4 session", quick: true, test: sessionIPv4},
	{name: "IPv6 session", quick: true, test: sessionIPv6},
	{name: "IPv4 over an IPv6 session (RFC 8950)", quick: true, test: extendedNextHop},
	{name: "communities, standard and large", quick: true, test: communities},
	{name: "MD5 passwords", quick: true, test: password},
	{name: "GTSM", quick: true, test: gtsm, cannot: map[string]string{
		"FRR/reflector": "FRR refuses `ttl-security` for iBGP neighbours.",
	}},
	{name: "route refresh", quick: true, test: routeRefresh},
	{name: "prefix limit ends the session", quick: true, test: maxPrefix},
	{name: "several equal paths", test: ecmp, cannot: map[string]string{
		"reflector": "A reflector is one path; see add-path.",
	}},
	{name: "add-path", test: addPath, cannot: map[string]string{
		"top of rack": "A top-of-rack switch says its best path; several switches are several paths.",
	}},
	{name: "reflection keeps the next hop", quick: true, test: reflection, cannot: map[string]string{
		"top of rack": "It does not reflect.",
	}},
	{name: "another AS of our own", quick: true, test: localAS, cannot: notReflected},
	{name: "our AS in paths, where it is allowed", quick: true, test: allowOwnAS, cannot: map[string]string{
		"reflector": notReflected["reflector"], "GoBGP": "GoBGP does not tell a neighbour a path that has the neighbour's AS.",
	}},
	{name: "the router's AS replaced in paths", quick: true, test: replaceAS, cannot: notReflected},
	{name: "private ASes removed from paths", quick: true, test: removePrivateAS, cannot: notReflected},
	{name: "several hops away", quick: true, test: hopsAway, cannot: notReflected},
	{name: "graceful restart: the router restarts", test: routerRestarts},
	{name: "graceful restart: Korat is killed", quick: true, test: weRestart},
	{name: "long-lived graceful restart: the router is away", test: routerAway},
	{name: "long-lived graceful restart: Korat is away", test: weAreAway},
	{name: "BFD: a silent death is noticed by both", quick: true, test: bfdSilence},
	{name: "BFD: Korat restarts and is not taken for dead", quick: true, test: bfdRestart, cannot: map[string]string{
		"GoBGP": "GoBGP takes every end of BFD for a failure, and drops what graceful restart kept.",
	}},
}

// plain is the usual pair: a session for IPv4.
func (c *cell) plain(change func(*spec, *bgp.Peer)) router {
	c.Helper()
	s, p := c.role.spec(c.r1, c.n1), c.role.peer(c.r1, c.n1)
	if change != nil {
		change(&s, &p)
	}
	r := c.start(c.r1, s)
	c.n1.speak(config(p), block(ours), block(ours2))
	return r
}

// hears waits until the router has a prefix from a next hop.
func (c *cell) hears(r router, prefix string, from netip.Addr) route {
	c.Helper()
	var got route
	eventually(c.T, "router hears "+prefix, func() string {
		all := r.routes(netip.MustParsePrefix(prefix).Addr().Is6())
		if got = all[prefix]; got.NextHop != from.String() {
			return fmt.Sprintf("routes %+v, want it from %s; %s", all, from, c.n1.sessions())
		}
		return ""
	})
	return got
}

func sessionIPv4(c *cell) {
	r := c.plain(nil)
	c.n1.learns(theirs, c.r1.addr)
	c.hears(r, ours, c.n1.addr)
	s := c.n1.session(c.r1.addr, func(s bgp.Session) bool { return s.Advertised == 2 && s.Received == 1 })
	if !s.Established || s.LastError != "" {
		c.Errorf("session %+v", s)
	}
	if err := c.n1.Withdraw(c.Context(), []bgp.Path{block(ours2)}); err != nil {
		c.Fatal(err)
	}
	eventually(c.T, "withdrawal", func() string {
		if _, there := r.routes(false)[ours2]; there {
			return ours2 + " is still there"
		}
		return ""
	})
}

func sessionIPv6(c *cell) {
	s, p := c.role.spec(c.r1, c.n1), c.role.peer(c.r1, c.n1)
	s.Neighbours[0] = neighbour{Addr: c.n1.addr6, Local: c.r1.addr6, AS: nodeAS, V6: true, Client: s.Reflect}
	p.Addr, p.LocalAddr = c.r1.addr6, c.n1.addr6
	r := c.start(c.r1, s)
	c.n1.speak(config(p), block(ours6))
	c.n1.learns("2001:db8:f::/48", c.r1.addr6)
	c.hears(r, ours6, c.n1.addr6)
}

func extendedNextHop(c *cell) {
	s, p := c.role.spec(c.r1, c.n1), c.role.peer(c.r1, c.n1)
	s.Neighbours[0] = neighbour{Addr: c.n1.addr6, Local: c.r1.addr6, AS: nodeAS, V4: true, V6: true, Extended: true, Client: s.Reflect}
	p.Addr, p.LocalAddr = c.r1.addr6, c.n1.addr6
	p.Families, p.NextHop6 = bgp.IPv4|bgp.IPv6, c.n1.addr6
	r := c.start(c.r1, s)
	c.n1.speak(config(p), block(ours), block(ours6))
	c.hears(r, ours6, c.n1.addr6)
	c.hears(r, ours, c.n1.addr6)
	c.n1.learns("2001:db8:f::/48", c.r1.addr6)
	eventually(c.T, "IPv4 by an IPv6 next hop", func() string {
		got := c.n1.learned(theirs)
		if a, err := netip.ParseAddr(got); err != nil || !a.Is6() {
			return fmt.Sprintf("next hops %q; %s", got, c.n1.sessions())
		}
		return ""
	})
}

func communities(c *cell) {
	s, p := c.role.spec(c.r1, c.n1), c.role.peer(c.r1, c.n1)
	p.Advertisements = []string{"tagged"}
	conf := config(p)
	conf.Advertisements = []bgp.Advertisement{{Name: "tagged", Attributes: bgp.Attributes{
		Communities:      []bgp.Community{64512<<16 | 100, 64512<<16 | 200},
		LargeCommunities: []bgp.LargeCommunity{{Global: 64512, Local1: 3, Local2: 4}},
	}}}
	r := c.start(c.r1, s)
	tagged := bgp.Path{Prefix: netip.MustParsePrefix("10.244.1.128/26"), Kind: bgp.Prefixes, Advertisement: "tagged"}
	c.n1.speak(conf, block(ours), tagged)
	if got := c.hears(r, ours, c.n1.addr); got.Communities != "" {
		c.Errorf("a path without advertisement has %q", got.Communities)
	}
	if got := c.hears(r, tagged.Prefix.String(), c.n1.addr); got.Communities != "64512:100 64512:200 64512:3:4" {
		c.Errorf("communities %q", got.Communities)
	}
	c.n1.learns(theirs, c.r1.addr)
	routes, err := c.n1.Routes(c.Context(), bgp.Routes{Prefix: netip.MustParsePrefix(theirs)})
	if err != nil || len(routes) == 0 {
		c.Fatalf("routes %+v, %v", routes, err)
	}
	if got := fmt.Sprint(routes[0].Communities, routes[0].LargeCommunities); got != fmt.Sprint([]bgp.Community{65001<<16 | 77}, []bgp.LargeCommunity{{Global: 65001, Local1: 1, Local2: 2}}) {
		c.Errorf("learned with %s", got)
	}
}

func password(c *cell) {
	right := func(s *spec, p *bgp.Peer) { s.Neighbours[0].Password, p.Password = passwort, passwort }
	r := c.plain(right)
	c.n1.learns(theirs, c.r1.addr)
	c.hears(r, ours, c.n1.addr)
	// Another password: no session, and none is needed to hear why.
	p := c.role.peer(c.r1, c.n1)
	p.Password = "wrong"
	c.n1.speak(config(p))
	c.n1.session(c.r1.addr, func(s bgp.Session) bool { return !s.Established })
	p.Password = passwort
	c.n1.speak(config(p))
	c.n1.learns(theirs, c.r1.addr)
}

func gtsm(c *cell) {
	r := c.plain(func(s *spec, p *bgp.Peer) { s.Neighbours[0].GTSM, p.GTSM = true, 1 })
	c.n1.learns(theirs, c.r1.addr)
	c.hears(r, ours, c.n1.addr)
}

func routeRefresh(c *cell) {
	r := c.plain(nil)
	c.hears(r, ours, c.n1.addr)
	since := c.n1.session(c.r1.addr, up).Since
	eventually(c.T, "router can ask us to tell all again", func() string {
		if !r.canRefresh(c.n1.addr) {
			return "it was not told so"
		}
		return ""
	})
	if out := r.refresh(c.n1.addr); strings.Contains(strings.ToLower(out), "error") {
		c.Errorf("refresh: %s", out)
	}
	// What we take from the router changes without a new session: we ask it too.
	p := c.role.peer(c.r1, c.n1)
	p.Import = []string{"nothing"}
	conf := config(p)
	conf.Filters = []bgp.Filter{{Name: "nothing", Import: []bgp.FilterRule{{}}}}
	c.n1.learns(theirs, c.r1.addr)
	c.n1.speak(conf)
	c.n1.learns(theirs)
	c.n1.speak(config(c.role.peer(c.r1, c.n1)))
	c.n1.learns(theirs, c.r1.addr)
	c.hears(r, ours, c.n1.addr)
	c.hears(r, ours2, c.n1.addr)
	if s := c.n1.session(c.r1.addr, up); !s.Since.Equal(since) {
		c.Errorf("the session is another one: %+v", s)
	}
}

func maxPrefix(c *cell) {
	c.plain(func(s *spec, p *bgp.Peer) {
		s.Networks = []string{"203.0.113.0/26", "203.0.113.64/26", "203.0.113.128/26"}
		p.MaxPrefixes = 2
	})
	s := c.n1.session(c.r1.addr, func(s bgp.Session) bool { return !s.Established && strings.Contains(s.LastError, "prefix") })
	c.Logf("words: %s", s.LastError)
}

func ecmp(c *cell) {
	r2 := c.machine("r2")
	var peers []bgp.Peer
	for _, m := range []*machine{c.r1, r2} {
		c.start(m, c.role.spec(m, c.n1))
		peers = append(peers, c.role.peer(m, c.n1))
	}
	c.n1.speak(config(peers...), block(ours))
	c.n1.learns(theirs, c.r1.addr, r2.addr)
}

func routerRestarts(c *cell) {
	r := c.plain(nil)
	c.n1.learns(theirs, c.r1.addr)
	c.hears(r, ours, c.n1.addr)
	c.n1.forget()
	r.end(os.Kill)
	c.n1.session(c.r1.addr, func(s bgp.Session) bool { return !s.Established })
	if got := c.n1.learned(theirs); got != c.r1.addr.String() {
		c.Errorf("while the router is away: %q", got)
	}
	r.again()
	c.n1.session(c.r1.addr, up)
	c.hears(r, ours, c.n1.addr)
	c.n1.learns(theirs, c.r1.addr)
	if lost := c.n1.lost(); len(lost) > 0 {
		c.Errorf("withdrawn meanwhile: %v", lost)
	}
}

func weRestart(c *cell) {
	r := c.plain(nil)
	c.n1.learns(theirs, c.r1.addr)
	c.hears(r, ours, c.n1.addr)
	c.hears(r, ours2, c.n1.addr)
	for range 2 { // the second time inside the restart time of the first
		c.n1.end(os.Kill)
		eventually(c.T, "router notices", func() string {
			if r.established(c.n1.addr) {
				return "still established"
			}
			return ""
		})
		c.hears(r, ours, c.n1.addr)
		c.n1.run()
		c.n1.session(c.r1.addr, up)
		c.hears(r, ours, c.n1.addr)
		c.hears(r, ours2, c.n1.addr)
	}
	c.n1.learns(theirs, c.r1.addr)
}

// brief is a restart time after which long-lived graceful restart begins.
const brief = 2

func routerAway(c *cell) {
	r := c.plain(func(s *spec, p *bgp.Peer) {
		s.Restart, s.LongLived = brief, 60
		p.RestartTime, p.LongLived = time.Minute, time.Minute
	})
	c.n1.learns(theirs, c.r1.addr)
	c.hears(r, ours, c.n1.addr)
	c.n1.forget()
	r.end(os.Kill)
	c.n1.session(c.r1.addr, func(s bgp.Session) bool { return !s.Established })
	eventually(c.T, "its routes are stale", func() string {
		routes, err := c.n1.Routes(c.Context(), bgp.Routes{Prefix: netip.MustParsePrefix(theirs)})
		if len(routes) == 1 && routes[0].Stale && strings.Contains(fmt.Sprint(routes[0].Communities), fmt.Sprint(uint32(65535<<16|6))) {
			return ""
		}
		return fmt.Sprintf("%+v %v", routes, err)
	})
	r.again()
	c.n1.session(c.r1.addr, up)
	c.n1.learns(theirs, c.r1.addr)
	if lost := c.n1.lost(); len(lost) > 0 {
		c.Errorf("withdrawn meanwhile: %v", lost)
	}
}

func weAreAway(c *cell) {
	r := c.plain(func(s *spec, p *bgp.Peer) {
		s.LongLived = 60
		p.RestartTime, p.LongLived = brief*time.Second, time.Minute
	})
	c.hears(r, ours, c.n1.addr)
	c.n1.end(os.Kill)
	eventually(c.T, "ours are long-lived stale", func() string {
		got, there := r.routes(false)[ours]
		if !there || !strings.Contains(got.Communities, "65535:6") && !strings.Contains(strings.ToLower(got.Communities), "llgr") {
			return fmt.Sprintf("%+v", got)
		}
		return ""
	})
	c.n1.run()
	c.n1.session(c.r1.addr, up)
	eventually(c.T, "ours are fresh", func() string {
		got, there := r.routes(false)[ours]
		if !there || got.Communities != "" {
			return fmt.Sprintf("%+v", got)
		}
		return ""
	})
}

func (c *cell) withBFD(change func(*neighbour)) router {
	c.Helper()
	r := c.plain(func(s *spec, p *bgp.Peer) {
		s.Neighbours[0].BFD, p.BFD.Enabled = true, true
		change(&s.Neighbours[0])
	})
	c.n1.learns(theirs, c.r1.addr)
	c.hears(r, ours, c.n1.addr)
	c.n1.session(c.r1.addr, func(s bgp.Session) bool { return s.BFD == "Up" })
	eventually(c.T, "BFD of the router", func() string {
		if s := r.bfd(c.n1.addr); s != "Up" {
			return s
		}
		return ""
	})
	return r
}

func bfdSilence(c *cell) {
	r := c.withBFD(func(*neighbour) {})
	c.n1.unplug()
	begin := time.Now()
	c.n1.learns(theirs)
	// The detection time is 0.9 s; the rest is for a busy machine. Without BFD it
	// were 90 s, and the restart time more.
	if took := time.Since(begin); took > 10*time.Second {
		c.Errorf("noticed after %s", took)
	}
	eventually(c.T, "router notices", func() string {
		if all := r.routes(false); len(all) > 0 {
			return fmt.Sprint(all)
		}
		return ""
	})
	if s := c.n1.session(c.r1.addr, func(s bgp.Session) bool { return !s.Established }); s.BFD == "Up" {
		c.Errorf("session %+v", s)
	}
	c.n1.plug()

	c.n1.learns(theirs, c.r1.addr)
	c.hears(r, ours, c.n1.addr)
	c.n1.session(c.r1.addr, func(s bgp.Session) bool { return s.Established && s.BFD == "Up" })
}

// BIRD drops what graceful restart kept when BFD ends, however it ends, unless it
// is told to take that for a restart. Then a silent death is one too.
func bfdRestart(c *cell) {
	r := c.withBFD(func(n *neighbour) { n.BFDGraceful = true })
	for _, sig := range []os.Signal{syscall.SIGTERM, os.Kill} {
		watch := c.watch(r)
		c.n1.end(sig)
		c.n1.run()
		c.n1.session(c.r1.addr, func(s bgp.Session) bool { return s.Established && s.BFD == "Up" })
		c.hears(r, ours, c.n1.addr)
		if gone := watch(); gone > 0 {
			c.Errorf("%s: the router had no route at %d of its looks", sig, gone)
		}
	}
}

// watch looks at the router all the time until the returned function, which says
// how often the route was missing.
func (c *cell) watch(r router) (missing func() int) {
	stop, done, gone := make(chan struct{}), make(chan struct{}), 0
	go func() {
		defer close(done)
		for tick := time.Tick(50 * time.Millisecond); ; {
			select {
			case <-stop:
				return
			case <-tick:
			}
			if _, there := r.routes(false)[ours]; !there {
				gone++
			}
		}
	}()
	return func() int { close(stop); <-done; return gone }
}
