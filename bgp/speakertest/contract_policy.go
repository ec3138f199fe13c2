package speakertest

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/koratnet/korat/bgp"
)

func number32(v uint32) *uint32 { return &v }

func exactly(p netip.Prefix) []bgp.PrefixRange {
	return []bgp.PrefixRange{{Prefix: p, Min: uint8(p.Bits()), Max: uint8(p.Bits())}}
}

// to changes how a node sees the peer o.
func to(o *node, change func(*bgp.Peer)) func(*bgp.Config) {
	return func(c *bgp.Config) {
		for i := range c.Peers {
			if c.Peers[i].Addr == o.addr {
				change(&c.Peers[i])
			}
		}
	}
}

func both(fs ...func(*bgp.Config)) func(*bgp.Config) {
	return func(c *bgp.Config) {
		for _, f := range fs {
			f(c)
		}
	}
}

func filters(fs ...bgp.Filter) func(*bgp.Config) {
	return func(c *bgp.Config) { c.Filters = fs }
}

// hears waits until n has been told exactly want by o, in the words of brief.
func (n *node) hears(o *node, want ...string) {
	n.l.Helper()
	var got []string
	deadline := time.Now().Add(patience)
	for tick := time.Tick(10 * time.Millisecond); ; <-tick {
		got = nil
		for _, r := range n.routes(bgp.Routes{Peer: o.name}) {
			if !r.Told {
				got = append(got, brief(r))
			}
		}
		if slices.Sort(got); slices.Equal(got, want) {
			return
		}
		if time.Now().After(deadline) {
			n.l.Fatalf("%s heard from %s:\n%s\nwant\n%s", n.name, o.name, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// brief tells the attributes of a route that filters change.
func brief(r bgp.Route) string {
	out := r.Prefix.String()
	if len(r.ASPath) > 0 {
		out += fmt.Sprintf(" path %v", r.ASPath)
	}
	for _, c := range slices.Sorted(slices.Values(r.Communities)) {
		out += fmt.Sprintf(" %d:%d", c>>16, c&0xffff)
	}
	for _, c := range r.LargeCommunities {
		out += fmt.Sprintf(" %d:%d:%d", c.Global, c.Local1, c.Local2)
	}
	if r.LocalPref != nil && *r.LocalPref != 100 {
		out += fmt.Sprintf(" pref %d", *r.LocalPref)
	}
	if r.MED != nil {
		out += fmt.Sprintf(" med %d", *r.MED)
	}
	if r.Rejected != "" {
		out += " (" + r.Rejected + ")"
	}
	return out
}

func exportFilters(l *lab) {
	a, b, c := l.node(64512), l.node(65001), l.node(64512)
	l.link(a, b)
	l.link(a, c)
	a.announce(block, pod)
	shape := bgp.Filter{Name: "shape", Export: []bgp.FilterRule{
		{PeerType: bgp.PeerExternal, Prefixes: exactly(pod.Prefix)},
		{
			Source: bgp.SourceOwn, Prefixes: []bgp.PrefixRange{{Prefix: netip.MustParsePrefix("10.0.0.0/8"), Min: 8, Max: 26}},
			NotPrefixes: exactly(netip.MustParsePrefix("10.9.0.0/26")), Accept: true, Set: bgp.Operations{
				AddCommunities: []bgp.Community{64512<<16 | 7}, AddLargeCommunities: []bgp.LargeCommunity{{Global: 64512, Local1: 1, Local2: 2}},
				Prepend: []uint32{64999, 64998, 64998}, MED: number32(50), LocalPref: number32(300),
			},
		},
	}}
	named := func(o *node) func(*bgp.Config) {
		return to(o, func(p *bgp.Peer) { p.Export = []string{"shape"} })
	}
	l.begin(a, b, c)
	b.hears(a, "10.244.1.64/26 path [64512]", "10.244.1.65/32 path [64512]")
	c.hears(a, "10.244.1.64/26", "10.244.1.65/32")
	upB, upC := b.up(a), c.up(a)

	a.tune = both(filters(shape), named(b))
	l.begin(a)
	b.hears(a, "10.244.1.64/26 path [64512 64999 64998 64998 64512] 64512:7 64512:1:2 med 50")
	c.hears(a, "10.244.1.64/26", "10.244.1.65/32")
	told := a.routes(bgp.Routes{Peer: b.name, Prefix: pod.Prefix})
	if len(told) != 1 || !told[0].Told || told[0].Rejected != "filter shape rule 1" {
		l.Errorf("routes of what b is not told: %+v", told)
	}

	a.tune = both(filters(shape), named(b), named(c))
	l.begin(a)
	c.hears(a, "10.244.1.64/26 path [64999 64998 64998] 64512:7 64512:1:2 pref 300 med 50", "10.244.1.65/32")
	a.announce(bgp.Path{Prefix: netip.MustParsePrefix("10.9.0.0/26"), Kind: bgp.Blocks})
	b.hears(a, "10.244.1.64/26 path [64512 64999 64998 64998 64512] 64512:7 64512:1:2 med 50", "10.9.0.0/26 path [64512]")

	// A rule that changes, and filters that go, are followed on running sessions.
	shape.Export = shape.Export[:1]
	a.tune = both(filters(shape), named(b))
	l.begin(a)
	b.hears(a, "10.244.1.64/26 path [64512]", "10.9.0.0/26 path [64512]")
	c.hears(a, "10.244.1.64/26", "10.244.1.65/32", "10.9.0.0/26")
	a.tune = nil
	l.begin(a)
	b.hears(a, "10.244.1.64/26 path [64512]", "10.244.1.65/32 path [64512]", "10.9.0.0/26 path [64512]")
	if !b.session(a).Since.Equal(upB) || !c.session(a).Since.Equal(upC) {
		l.Error("a change of filters reset a session")
	}
}

func importFilters(l *lab) {
	a, b, c := l.node(64512), l.node(65001), l.node(65002)
	l.link(a, b)
	l.link(a, c)
	for _, n := range []*node{b, c} {
		n.announce(block, pod)
	}
	prefer := bgp.Filter{Name: "prefer", Import: []bgp.FilterRule{
		{ASPath: []uint32{65002}, Prefixes: exactly(block.Prefix), Accept: true, Set: bgp.Operations{LocalPref: number32(200)}},
		{NotPrefixes: exactly(block.Prefix)},
	}}
	two := b.addr.String() + " " + c.addr.String()
	l.begin(a, b, c)
	a.learns(map[string]string{block.Prefix.String(): two, pod.Prefix.String(): two})
	up := a.up(b)
	a.tune = both(filters(prefer), to(c, func(p *bgp.Peer) { p.Import = []string{"prefer"} }))
	l.begin(a)
	a.learns(map[string]string{block.Prefix.String(): c.addr.String(), pod.Prefix.String(): b.addr.String()})
	l.wait("counts", func() bool { s := a.session(c); return s.Received == 2 && s.Accepted == 1 })
	a.hears(c, "10.244.1.64/26 path [65002]", "10.244.1.65/32 path [65002] (filter prefer rule 2)")
	a.tune = nil
	l.begin(a)
	a.learns(map[string]string{block.Prefix.String(): two, pod.Prefix.String(): two})
	if !a.session(b).Since.Equal(up) {
		l.Error("a change of filters reset a session")
	}
}

func advertisements(l *lab) {
	a, b, c := l.node(64512), l.node(64512), l.node(65001)
	l.link(a, b)
	l.link(a, c)
	public := netip.MustParsePrefix("203.0.113.0/24")
	a.announce(
		pod, bgp.Path{Prefix: pod.Prefix, Kind: bgp.Hosts, Advertisement: "vip"},
		bgp.Path{Prefix: public, Kind: bgp.Prefixes, Advertisement: "net"},
	)
	ads := func(c *bgp.Config) {
		c.Advertisements = []bgp.Advertisement{
			{Name: "net", Attributes: bgp.Attributes{MED: number32(5)}},
			{Name: "vip", Attributes: bgp.Attributes{
				Communities: []bgp.Community{1<<16 | 1}, LargeCommunities: []bgp.LargeCommunity{{Global: 1, Local1: 1, Local2: 1}},
				LocalPref: number32(150),
			}},
		}
	}
	a.tune = both(ads, to(b, func(p *bgp.Peer) { p.Advertisements = []string{"net", "vip"} }), to(c, func(p *bgp.Peer) {
		p.Advertise, p.Advertisements = 0, []string{"net"}
	}))
	l.begin(a, b, c)
	b.hears(a, "10.244.1.65/32 1:1 1:1:1 pref 150", "203.0.113.0/24 med 5")
	c.hears(a, "203.0.113.0/24 path [64512] med 5")
	up := b.up(a)
	a.withdraw(bgp.Path{Prefix: pod.Prefix, Kind: bgp.Hosts, Advertisement: "vip"})
	b.hears(a, "10.244.1.65/32", "203.0.113.0/24 med 5")
	a.tune = both(ads, to(b, func(p *bgp.Peer) { p.Advertisements = nil }))
	l.begin(a)
	b.hears(a, "10.244.1.65/32")
	c.hears(a, "10.244.1.65/32 path [64512]")
	if !b.session(a).Since.Equal(up) {
		l.Error("a change of advertisements reset a session")
	}
}

func draining(l *lab) {
	a, b, c := l.node(64512), l.node(64512), l.node(65001)
	l.link(a, b)
	l.link(a, c)
	a.announce(block)
	l.begin(a, b, c)
	b.hears(a, "10.244.1.64/26")
	c.hears(a, "10.244.1.64/26 path [64512]")
	up := b.up(a)
	a.tune = func(c *bgp.Config) { c.Draining = true }
	l.begin(a)
	c.hears(a, "10.244.1.64/26 path [64512] 65535:0")
	l.wait("the lowest preference", func() bool {
		rs := b.routes(bgp.Routes{Peer: a.name})
		return len(rs) == 1 && *rs[0].LocalPref <= 1 && slices.Contains(rs[0].Communities, bgp.GracefulShutdown)
	})
	a.tune = nil
	l.begin(a)
	b.hears(a, "10.244.1.64/26")
	c.hears(a, "10.244.1.64/26 path [64512]")
	if !b.session(a).Since.Equal(up) {
		l.Error("draining reset a session")
	}
}

func reflector(l *lab) {
	r, c1, c2, n1, n2 := l.node(64512), l.node(64512), l.node(64512), l.node(64512), l.node(64512)
	for _, n := range []*node{c1, c2, n1, n2} {
		l.link(r, n)
	}
	client := func(p *bgp.Peer) { p.ReflectorClient = true }
	r.tune = both(func(c *bgp.Config) { c.ClusterID = r.addr }, to(c1, client), to(c2, client))
	r.announce(block)
	c1.announce(pod)
	n1.announce(bgp.Path{Prefix: netip.MustParsePrefix("10.244.9.0/26"), Kind: bgp.Blocks})
	l.begin(r, c1, c2, n1, n2)
	ofR, ofC1, ofN1 := r.addr.String(), c1.addr.String(), n1.addr.String()
	c2.learns(map[string]string{"10.244.1.64/26": ofR, "10.244.1.65/32": ofC1, "10.244.9.0/26": ofN1})
	c1.learns(map[string]string{"10.244.1.64/26": ofR, "10.244.9.0/26": ofN1})
	n1.learns(map[string]string{"10.244.1.64/26": ofR, "10.244.1.65/32": ofC1})
	n2.learns(map[string]string{"10.244.1.64/26": ofR, "10.244.1.65/32": ofC1})
	c1.withdraw(pod)
	c2.learns(map[string]string{"10.244.1.64/26": ofR, "10.244.9.0/26": ofN1})

	// A reflector no more: what others said is withdrawn.
	r.tune = nil
	l.begin(r)
	for _, n := range []*node{c1, c2, n1, n2} {
		n.learns(map[string]string{"10.244.1.64/26": ofR})
	}
}
