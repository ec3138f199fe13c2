package speakertest

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/bgp/reconcile"
)

// Maker makes a speaker, silent yet. restarted ones follow on a closed one whose
// routes are still in force. The speakers have addresses in 127/8 and ports of
// their own.
type Maker func(t *testing.T, restarted bool) reconcile.SpeakCloser

// Contract runs the scenarios that no item of Items stands for.
func Contract(t *testing.T, make Maker) { run(t, make, 0) }

// Item runs the scenarios of one of the numbered behaviours: 66 what is told, 67
// what is taken, 68 reflection and next hops.
func Item(t *testing.T, number int, make Maker) { run(t, make, number) }

func run(t *testing.T, make Maker, item int) {
	for name, play := range scenarios()[item] {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			play(&lab{T: t, make: make})
		})
	}
}

// scenarios returns all, by the item that they stand for.
func scenarios() map[int]map[string]func(*lab) {
	return map[int]map[string]func(*lab){
		0: {
			"a path is told when it comes and when it goes":                      comeAndGo,
			"one prefix may be a block and a host":                               bothKinds,
			"a prefix from two neighbours has two next hops":                     twoNextHops,
			"a peer that goes takes its paths along, and no other":               peerGoes,
			"a restart takes nothing away":                                       restart,
			"a speaker that does not come back is forgotten":                     noReturn,
			"a peer that is not there is waited for as long as the restart time": absentPeer,
			"without peers all is known at once":                                 noPeers,
			"another AS number begins all sessions anew":                         otherAS,
			"a session that is broken is withdrawn at once and tried again":      broken,
			"routes tell what was heard, told and is in use":                     routes,
			"a node that drains says so with all it tells":                       draining,
		},
		66: {
			"a peer is told the kinds it asked for, and a change of them leaves the session up": kinds,
			"what is learned is not told on":                                      noTransit,
			"filters change and hold back what is told, live":                     exportFilters,
			"an advertisement is told to those that name it, with its attributes": advertisements,
		},
		67: {
			"our own path hides those of others":               ownPath,
			"filters change and hold back what is heard, live": importFilters,
		},
		68: {
			"a reflector tells on as RFC 4456 says and keeps the next hop": reflector,
		},
	}
}

const (
	patience    = 40 * time.Second
	restartTime = 30 * time.Second
)

var (
	block = bgp.Path{Prefix: netip.MustParsePrefix("10.244.1.64/26"), Kind: bgp.Blocks}
	pod   = bgp.Path{Prefix: netip.MustParsePrefix("10.244.1.65/32"), Kind: bgp.Hosts}
	six   = bgp.Path{Prefix: netip.MustParsePrefix("fd00:10:244::40/122"), Kind: bgp.Blocks}
)

func kinds(l *lab) {
	a, b := l.node(64512), l.node(64512)
	b.asks = bgp.Blocks
	l.link(a, b)
	a.announce(block, pod, six)
	l.begin(a, b)
	b.learns(map[string]string{"10.244.1.64/26": a.addr.String()})
	up := b.up(a)
	for _, step := range []struct {
		asks bgp.Advertise
		want map[string]string
	}{
		{bgp.Hosts, map[string]string{"10.244.1.65/32": a.addr.String()}},
		{bgp.Hosts | bgp.Blocks, map[string]string{"10.244.1.65/32": a.addr.String(), "10.244.1.64/26": a.addr.String()}},
		{0, map[string]string{}},
	} {
		b.asks = step.asks
		l.begin(a)
		b.learns(step.want)
	}
	if s := b.session(a); !s.Established || !s.Since.Equal(up) {
		l.Errorf("session %+v, want the one that came up at %s", s, up)
	}
}

func comeAndGo(l *lab) {
	a, b := l.node(64512), l.node(65001)
	l.link(a, b)
	l.begin(a, b)
	l.wait("session", func() bool { return b.session(a).Established })
	a.announce(block, pod)
	a.announce(block)
	want := map[string]string{"10.244.1.64/26": a.addr.String(), "10.244.1.65/32": a.addr.String()}
	b.learns(want)
	l.wait("counts", func() bool { return a.session(b).Advertised == 2 && b.session(a).Received == 2 })
	a.withdraw(pod, pod, six)
	delete(want, pod.Prefix.String())
	b.learns(want)
}

func bothKinds(l *lab) {
	a, b, c := l.node(64512), l.node(64512), l.node(64512)
	b.asks, c.asks = bgp.Blocks, bgp.Hosts
	l.link(a, b)
	l.link(a, c)
	single := bgp.Path{Prefix: pod.Prefix, Kind: bgp.Blocks}
	a.announce(pod, single)
	l.begin(a, b, c)
	there := map[string]string{pod.Prefix.String(): a.addr.String()}
	b.learns(there)
	c.learns(there)
	a.withdraw(pod)
	c.learns(map[string]string{})
	b.learns(there)
	a.withdraw(single)
	b.learns(map[string]string{})
}

func twoNextHops(l *lab) {
	a, b, c := l.node(64512), l.node(65001), l.node(65002)
	l.link(a, b)
	l.link(a, c)
	b.announce(block)
	c.announce(block)
	l.begin(a, b, c)
	a.learns(map[string]string{block.Prefix.String(): b.addr.String() + " " + c.addr.String()})
	c.withdraw(block)
	a.learns(map[string]string{block.Prefix.String(): b.addr.String()})
}

func noTransit(l *lab) {
	a, b, c, d := l.node(65001), l.node(64512), l.node(64512), l.node(65002)
	l.link(a, b)
	l.link(b, c)
	l.link(b, d)
	a.announce(block)
	b.announce(pod)
	l.begin(a, b, c, d)
	b.learns(map[string]string{block.Prefix.String(): a.addr.String()})
	only := map[string]string{pod.Prefix.String(): b.addr.String()}
	c.learns(only)
	d.learns(only)
	c.announce(bgp.Path{Prefix: netip.MustParsePrefix("10.244.9.0/26"), Kind: bgp.Blocks})
	b.learns(map[string]string{block.Prefix.String(): a.addr.String(), "10.244.9.0/26": c.addr.String()})
	b.withdraw(pod)
	b.announce(bgp.Path{Prefix: netip.MustParsePrefix("10.244.1.66/32"), Kind: bgp.Hosts})
	only = map[string]string{"10.244.1.66/32": b.addr.String()}
	for _, n := range []*node{c, d, a} {
		n.learns(only)
	}
}

func peerGoes(l *lab) {
	a, b, c := l.node(64512), l.node(64512), l.node(65001)
	l.link(a, b)
	l.link(a, c)
	b.announce(block)
	c.announce(pod)
	l.begin(a, b, c)
	a.learns(map[string]string{block.Prefix.String(): b.addr.String(), pod.Prefix.String(): c.addr.String()})
	up := a.up(b)
	l.unlink(a, c)
	l.begin(a)
	a.learns(map[string]string{block.Prefix.String(): b.addr.String()})
	c.learns(map[string]string{})
	l.link(a, c)
	l.begin(a)
	a.learns(map[string]string{block.Prefix.String(): b.addr.String(), pod.Prefix.String(): c.addr.String()})
	if s := a.session(b); !s.Established || !s.Since.Equal(up) {
		l.Errorf("session %+v, want the one that came up at %s", s, up)
	}
}

func restart(l *lab) {
	a, b := l.node(64512), l.node(64512)
	l.link(a, b)
	a.announce(block, pod)
	l.begin(a, b)
	want := map[string]string{"10.244.1.64/26": a.addr.String(), "10.244.1.65/32": a.addr.String()}
	b.learns(want)
	b.mu.Lock()
	b.withdrawn = nil
	b.mu.Unlock()
	a.close()
	l.wait("session down", func() bool { return !b.session(a).Established })
	a.open(true)
	gone := pod // deleted while we were away
	a.announce(block)
	l.begin(a)
	delete(want, gone.Prefix.String())
	b.learns(want)
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.Equal(b.withdrawn, []netip.Prefix{gone.Prefix}) {
		l.Errorf("withdrawn during the restart: %v, want only %s", b.withdrawn, gone.Prefix)
	}
}

func noReturn(l *lab) {
	a, b := l.node(64512), l.node(64512)
	a.restartTime = 2 * time.Second
	l.link(a, b)
	a.announce(block)
	l.begin(a, b)
	b.learns(map[string]string{block.Prefix.String(): a.addr.String()})
	a.close()
	b.learns(map[string]string{})
}

func absentPeer(l *lab) {
	a, b := l.node(64512), l.node(64512)
	a.restartTime = 2 * time.Second
	l.link(a, b)
	start := time.Now()
	l.begin(a)
	l.wait("synced", a.isSynced)
	if d := time.Since(start); d < a.restartTime {
		l.Errorf("synced after %s, want %s", d, a.restartTime)
	}
	if s := a.session(b); s.Established || s.Peer != b.name {
		l.Errorf("session %+v", s)
	}
}

func noPeers(l *lab) {
	a := l.node(64512)
	if a.isSynced() {
		l.Error("synced before there was a configuration")
	}
	l.begin(a)
	l.wait("synced", a.isSynced)
}

func otherAS(l *lab) {
	a, b := l.node(64512), l.node(64512)
	l.link(a, b)
	a.announce(block)
	b.announce(pod)
	l.begin(a, b)
	atB, atA := map[string]string{"10.244.1.64/26": a.addr.String()}, map[string]string{"10.244.1.65/32": b.addr.String()}
	a.learns(atA)
	b.learns(atB)
	before := b.up(a)
	a.asn = 65010
	l.begin(a, b)
	l.wait("another session", func() bool {
		s := b.session(a)
		return s.Established && s.ASN == a.asn && s.Since.After(before)
	})
	a.learns(atA)
	b.learns(atB)
}

func ownPath(l *lab) {
	a, b := l.node(64512), l.node(64512)
	l.link(a, b)
	b.announce(block, pod)
	l.begin(a, b)
	both := map[string]string{"10.244.1.64/26": b.addr.String(), "10.244.1.65/32": b.addr.String()}
	a.learns(both)
	l.wait("synced", a.isSynced)
	a.announce(block)
	a.learns(map[string]string{"10.244.1.65/32": b.addr.String()})
	a.withdraw(block)
	a.learns(both)
}
