package speakertest

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/bgp/reconcile"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
)

// lab is the speakers of one scenario.
type lab struct {
	*testing.T
	make  Maker
	links [][2]*node
}

type node struct {
	l           *lab
	name        string
	addr        netip.Addr
	port        uint16
	asn         uint32
	asks        bgp.Advertise // of every peer
	restartTime time.Duration
	speaker     reconcile.SpeakCloser
	tune        func(*bgp.Config) // before it is configured; nil: as it is
	end         func()

	mu        sync.Mutex // guards the rest
	paths     map[netip.Prefix]bgp.Learned
	withdrawn []netip.Prefix
	synced    bool
}

// number gives every node of the process an address of its own.
var number atomic.Uint32

func (l *lab) node(asn uint32) *node {
	l.Helper()
	n := number.Add(1)
	port, err := kerneltest.FreePort()
	if err != nil {
		l.Fatal(err)
	}
	nd := &node{
		l: l, name: fmt.Sprintf("node/%d", n), asn: asn, asks: bgp.Blocks | bgp.Hosts, restartTime: restartTime,
		addr: netip.AddrFrom4([4]byte{127, 7, byte(n >> 8), byte(n)}), port: port,
	}
	nd.open(false)
	l.Cleanup(func() { nd.close() })
	return nd
}

func (n *node) open(restarted bool) {
	n.paths = map[netip.Prefix]bgp.Learned{}
	n.speaker = n.l.make(n.l.T, restarted)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	speaker := n.speaker
	go func() { done <- speaker.Learned(ctx, n.hear) }()
	n.end = func() {
		cancel()
		if err := <-done; err != nil {
			n.l.Errorf("learned: %v", err)
		}
		if err := speaker.Close(); err != nil {
			n.l.Errorf("close: %v", err)
		}
	}
}

func (n *node) close() {
	if n.end != nil {
		n.end()
		n.end = nil
	}
}

func (n *node) hear(changed []bgp.Learned, synced bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range changed {
		if len(c.NextHops) == 0 {
			delete(n.paths, c.Prefix)
			n.withdrawn = append(n.withdrawn, c.Prefix)
		} else {
			n.paths[c.Prefix] = c
		}
	}
	n.synced = synced
}

func (n *node) isSynced() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.synced
}

func (l *lab) link(a, b *node) { l.links = append(l.links, [2]*node{a, b}) }

func (l *lab) unlink(a, b *node) {
	l.links = slices.DeleteFunc(l.links, func(e [2]*node) bool { return e == [2]*node{a, b} })
}

// begin configures nodes by the links there are. The second end of a link is
// passive.
func (l *lab) begin(nodes ...*node) {
	l.Helper()
	for _, n := range nodes {
		c := bgp.Config{
			ASN: n.asn, RouterID: n.addr, ListenPort: n.port, RestartTime: n.restartTime,
		}
		for _, e := range l.links {
			switch n {
			case e[0]:
				c.Peers = append(c.Peers, n.sees(e[1], false))
			case e[1]:
				c.Peers = append(c.Peers, n.sees(e[0], true))
			}
		}
		slices.SortFunc(c.Peers, func(a, b bgp.Peer) int { return a.Addr.Compare(b.Addr) })
		if n.tune != nil {
			n.tune(&c)
		}
		if err := n.speaker.Configure(l.Context(), c); err != nil {
			l.Fatalf("configure %s: %v", n.name, err)
		}
	}
}

func (n *node) sees(o *node, passive bool) bgp.Peer {
	return bgp.Peer{
		Name: o.name, Addr: o.addr, Port: o.port, ASN: o.asn, LocalAddr: n.addr,
		Hold: 90 * time.Second, Keepalive: 30 * time.Second, Advertise: o.asks, Passive: passive,
	}
}

func (n *node) announce(paths ...bgp.Path) {
	n.l.Helper()
	if err := n.speaker.Announce(n.l.Context(), paths); err != nil {
		n.l.Fatalf("announce: %v", err)
	}
}

func (n *node) withdraw(paths ...bgp.Path) {
	n.l.Helper()
	if err := n.speaker.Withdraw(n.l.Context(), paths); err != nil {
		n.l.Fatalf("withdraw: %v", err)
	}
}

func (n *node) session(with *node) bgp.Session {
	n.l.Helper()
	all, err := n.speaker.Sessions(n.l.Context())
	if err != nil {
		n.l.Fatalf("sessions: %v", err)
	}
	for _, s := range all {
		if s.Addr == with.addr {
			return s
		}
	}
	return bgp.Session{}
}

// up waits until n has a session with another node, and returns since when.
func (n *node) up(with *node) (since time.Time) {
	n.l.Helper()
	n.l.wait("session", func() bool {
		s := n.session(with)
		since = s.Since
		return s.Established
	})
	return since
}

// learns waits until n has learned exactly want: next hops, a space between, by
// prefix.
func (n *node) learns(want map[string]string) {
	n.l.Helper()
	var got map[string]string
	deadline := time.Now().Add(patience)
	for tick := time.Tick(10 * time.Millisecond); ; <-tick {
		if got = n.all(); fmt.Sprint(got) == fmt.Sprint(want) {
			return
		}
		if time.Now().After(deadline) {
			all, err := n.speaker.Sessions(context.Background())
			n.l.Fatalf("%s learned %v, want %v; sessions %+v %v", n.name, got, want, all, err)
		}
	}
}

func (n *node) all() map[string]string {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := map[string]string{}
	for prefix, p := range n.paths {
		for _, nh := range p.NextHops {
			if out[prefix.String()] != "" {
				out[prefix.String()] += " "
			}
			out[prefix.String()] += nh.String()
		}
	}
	return out
}

func (l *lab) wait(what string, until func() bool) {
	l.Helper()
	deadline := time.Now().Add(patience)
	for tick := time.Tick(10 * time.Millisecond); !until(); <-tick {
		if time.Now().After(deadline) {
			l.Fatalf("no %s after %s", what, patience)
		}
	}
}
