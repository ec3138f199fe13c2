package gobgp_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/koratnet/korat/bgp"
)

// A cluster of 1,000 nodes with 4 blocks each, as seen by node 0, which runs the
// speaker: the others are fans. Groups of reflectors are of 100 nodes, two of them
// reflectors.
const (
	layoutNodes  = 1000
	layoutBlocks = 4
	layoutGroup  = 100
)

// layout is who the neighbours of node 0 are.
type layout struct {
	name     string
	nextHops int  // of each route that it learns
	reflects bool // node 0 is a reflector, and those of the first fan its clients
	addPaths bool // and tells several paths a prefix
	fans     []fan
}

func layouts() []layout {
	internal := fan{ASN: fanRouterAS, First: 1, Expect: layoutBlocks}
	mesh, reflectors, client, router := internal, internal, internal, internal
	mesh.Peers = layoutNodes - 1
	reflectors.Peers, reflectors.Behind = 2, layoutNodes-1
	router.Peers, router.Behind, router.ASN = 2, layoutNodes-1, 65001
	client.Peers, client.Expect = layoutGroup-2, (layoutNodes-1)*layoutBlocks
	partner, other := internal, internal
	partner.First, partner.Peers = layoutGroup-1, 1
	other.First, other.Peers, other.Behind = layoutGroup, 2*(layoutNodes/layoutGroup-1), layoutGroup
	partner.Expect, other.Expect = (client.Peers+1)*layoutBlocks, (client.Peers+1)*layoutBlocks
	several := []fan{client, partner, other}
	for i := range several {
		several[i].AddPaths = true
	}
	return []layout{
		{name: "mesh", nextHops: 1, fans: []fan{mesh}},
		{name: "client-of-2-reflectors", nextHops: 1, fans: []fan{reflectors}},
		{name: "reflector-of-100", nextHops: 1, reflects: true, fans: []fan{client, partner, other}},
		{name: "reflector-of-100-several-paths", nextHops: 1, reflects: true, addPaths: true, fans: several},
		{name: "node-below-2-routers", nextHops: 2, fans: []fan{router}},
	}
}

// config is that of node 0.
func (l layout) config() *bgp.Config {
	c := &bgp.Config{ASN: fanRouterAS, RouterID: fanRouter, ListenPort: 179, RestartTime: time.Minute}
	if l.reflects {
		c.ClusterID = fanRouter
	}
	for i, f := range l.fans {
		for k := range f.Peers {
			c.Peers = append(c.Peers, bgp.Peer{
				Name: "nodenetwork/" + strconv.Itoa(f.First+k), Addr: fanAddr(f.First + k), Port: 179, ASN: uint32(f.ASN),
				LocalAddr: fanRouter, Advertise: bgp.Blocks, Passive: true, Hold: 240 * time.Second, Keepalive: 80 * time.Second,
				ReflectorClient: l.reflects && i == 0, AddPaths: l.addPaths,
			})
		}
	}
	return c
}

// BenchmarkLayout: a node of 1,000 in each layout of sessions, from the first call
// until it knows all routes and all its neighbours know what it tells them.
func BenchmarkLayout(b *testing.B) {
	for _, l := range layouts() {
		b.Run(l.name, func(b *testing.B) {
			for range b.N {
				l.measure(b)
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

func (l layout) measure(b *testing.B) {
	router, neighbours := routerAndFan(b)
	s := startSpeaker(b, router, false)
	var own []bgp.Path
	for k := range layoutBlocks {
		own = append(own, bgp.Path{Prefix: fanPrefix(k), Kind: bgp.Blocks})
	}
	s.ask(request{Announce: own})
	s.ask(request{Configure: l.config()})
	if *profileTo != "" {
		s.ask(request{Profile: *profileTo})
	}
	start := time.Now()
	var fans []*fanProcess
	for _, f := range l.fans {
		f.Router, f.Prefixes = fanRouter, layoutBlocks
		fans = append(fans, startFan(b, neighbours, f))
	}
	all := (layoutNodes - 1) * layoutBlocks
	for tick := time.Tick(10 * time.Millisecond); ; <-tick {
		n := 0
		for _, hops := range s.learned() {
			if len(strings.Fields(hops)) == l.nextHops {
				n++
			}
		}
		if n == all {
			break
		}
		if time.Since(start) > 3*time.Minute {
			b.Fatalf("learned %d of %d", n, all)
		}
	}
	learned := time.Since(start)
	var said, told traffic
	var heard time.Duration
	for _, p := range fans {
		p.next()
		last := p.next()
		said, told = said.plus(last.Said), told.plus(last.Told)
		heard = max(heard, last.Heard)
	}
	_, most := resident(b, s.cmd.Process.Pid)
	if *profileTo != "" {
		s.ask(request{Profile: *profileTo})
	}
	for unit, v := range map[string]float64{
		"s/learned": learned.Seconds(), "s/told": heard.Seconds(), "cpu-s": processor(b, s.cmd.Process.Pid), "MB-most": most,
		"msgs-in": float64(said.Messages), "kB-in": float64(said.Bytes) / 1e3,
		"msgs-out": float64(told.Messages), "kB-out": float64(told.Bytes) / 1e3,
	} {
		b.ReportMetric(v, unit)
	}
}

func (t traffic) plus(o traffic) traffic { return traffic{t.Messages + o.Messages, t.Bytes + o.Bytes} }
