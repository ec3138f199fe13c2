package pathmtu

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/koratnet/korat/felix/kernel/kerneltest"
)

// routed joins two nodes by a router whose link to the second takes 1,400 bytes, and
// returns a Prober on the first one that hears.
func routed(t *testing.T) (node, router, far *kerneltest.Namespace, p *Prober) {
	t.Helper()
	node, router = kerneltest.New(t), kerneltest.New(t)
	far = kerneltest.New(t)
	kerneltest.Veth(node, "eth0", router, "near")
	kerneltest.Veth(router, "far", far, "eth0")
	router.Run("ip", "link", "set", "far", "mtu", "1400")
	far.Run("ip", "link", "set", "eth0", "mtu", "1400")
	router.Run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1", "net.ipv4.icmp_ratelimit=0")
	for _, a := range []struct {
		in         *kerneltest.Namespace
		dev, addrs string
	}{
		{node, "eth0", "192.0.2.1/25 2001:db8:1::1/64"},
		{router, "near", "192.0.2.2/25 2001:db8:1::2/64"},
		{router, "far", "192.0.2.130/25 2001:db8:2::2/64"},
		{far, "eth0", "192.0.2.129/25 2001:db8:2::1/64"},
	} {
		for addr := range strings.FieldsSeq(a.addrs) {
			a.in.Run("ip", "addr", "add", addr, "dev", a.dev, "nodad")
		}
		a.in.Up(a.dev)
	}
	for in, gateways := range map[*kerneltest.Namespace][2]string{node: {"192.0.2.2", "2001:db8:1::2"}, far: {"192.0.2.130", "2001:db8:2::2"}} {
		in.Run("ip", "route", "add", "default", "via", gateways[0])
		in.Run("ip", "-6", "route", "add", "default", "via", gateways[1])
	}
	ways := []Peer{
		{Node: "far", Addr: netip.MustParseAddr("192.0.2.129"), MTU: 1500},
		{Node: "far", Addr: netip.MustParseAddr("2001:db8:2::1"), MTU: 1500},
		{Node: "router", Addr: netip.MustParseAddr("192.0.2.2"), MTU: 1500},
		{Node: "router", Addr: netip.MustParseAddr("2001:db8:1::2"), MTU: 1500},
	}
	p = proberOf(t, node, ways...)
	return node, router, far, p
}

// eventuallyFound tries until the summary has this of both families of the far node,
// and the router is clear.
func eventuallyFound(t *testing.T, p *Prober, o Outcome) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for {
		p.round(t.Context(), 200*time.Millisecond)
		s := p.Summary()
		good := s.Clear == 2 && len(s.Findings) == 2
		for _, f := range s.Findings {
			good = good && f.Node == "far" && f.Outcome == o && f.Passes == 1400
		}
		if o == Clear {
			good = s.Clear == 4
		}
		if good {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("found %+v, want %d with 1400 bytes", s, o)
		}
	}
}

// TestARouterThatSaysNothingIsFoundOut: first it tells, then it does not, then its link
// is mended.
func TestARouterThatSaysNothingIsFoundOut(t *testing.T) {
	node, router, far, p := routed(t)
	eventuallyFound(t, p, Narrow)
	for _, addr := range []string{"192.0.2.129", "2001:db8:2::1"} {
		if way := node.Run("ip", "route", "get", addr); !strings.Contains(way, "mtu 1400") {
			t.Errorf("the kernel did not learn what the router said: %s", way)
		}
	}
	router.Run("iptables", "-A", "OUTPUT", "-p", "icmp", "--icmp-type", "fragmentation-needed", "-j", "DROP")
	router.Run("ip6tables", "-A", "OUTPUT", "-p", "icmpv6", "--icmpv6-type", "packet-too-big", "-j", "DROP")
	eventuallyFound(t, p, BlackHole)
	router.Run("ip", "link", "set", "far", "mtu", "1500")
	far.Run("ip", "link", "set", "eth0", "mtu", "1500")
	eventuallyFound(t, p, Clear)
}

// TestWhoAnswersNothingIsNotJudged: a firewall may forbid pings.
func TestWhoAnswersNothingIsNotJudged(t *testing.T) {
	_, router, _, p := routed(t)
	router.Run("iptables", "-t", "raw", "-A", "PREROUTING", "-d", "192.0.2.129", "-j", "DROP")
	router.Run("ip6tables", "-t", "raw", "-A", "PREROUTING", "-d", "2001:db8:2::1", "-j", "DROP")
	p.round(t.Context(), 50*time.Millisecond)
	if s := p.Summary(); len(s.Findings) != 0 || s.Unanswered < 2 {
		t.Errorf("%+v, want the far node not to be judged", s)
	}
}

// TestAnswersOfOthersAreNotHeard: of another sender, to another packet, or of somebody
// who cannot have got it.
func TestAnswersOfOthersAreNotHeard(t *testing.T) {
	peer, stranger := netip.MustParseAddr("192.0.2.9"), netip.MustParseAddr("192.0.2.10")
	f := families[false]
	good := func(w *wire) []byte {
		b := append([]byte{f.reply, 0, 0, 0, byte(w.id >> 8), byte(w.id), 0, 1}, w.cookie[:]...)
		return b
	}
	for what, c := range map[string]struct {
		from netip.Addr
		make func(*wire) []byte
		want bool
	}{
		"the answer":               {peer, good, true},
		"of another node":          {stranger, good, false},
		"with another cookie":      {peer, func(w *wire) []byte { b := good(w); b[echoHeader]++; return b }, false},
		"with another id":          {peer, func(w *wire) []byte { b := good(w); b[5]++; return b }, false},
		"with another number":      {peer, func(w *wire) []byte { b := good(w); b[7]++; return b }, false},
		"cut short":                {peer, func(w *wire) []byte { return good(w)[:echoHeader+4] }, false},
		"a message without a body": {stranger, func(*wire) []byte { return []byte{f.large, 4, 0, 0, 0, 0, 5, 0} }, false},
	} {
		w := &wire{id: 0x1234, waiting: map[uint16]*shot{1: {to: peer}}, left: 1, done: make(chan struct{})}
		w.hear(f, c.from, c.make(w))
		if got := w.waiting[1].answered; got != c.want {
			t.Errorf("%s: heard %v, want %v", what, got, c.want)
		}
	}
}

// TestWhatRoutersMayNotSay: less than every link carries is not believed.
func TestWhatRoutersMayNotSay(t *testing.T) {
	peer := netip.MustParseAddr("192.0.2.9")
	f := families[false]
	for told, want := range map[int]int{1400: 1400, 68: 68, 67: 0, 0: 0} {
		w := &wire{id: 7, waiting: map[uint16]*shot{1: {to: peer}}, left: 1, done: make(chan struct{})}
		cited := make([]byte, f.header)
		cited[0] = 0x45
		copy(cited[16:], peer.AsSlice())
		message := append([]byte{f.large, 4, 0, 0, 0, 0, byte(told >> 8), byte(told)}, cited...)
		message = append(message, f.request, 0, 0, 0, 0, 7, 0, 1)
		w.hear(f, netip.MustParseAddr("192.0.2.1"), message)
		if got := w.waiting[1].told; got != want {
			t.Errorf("told %d: taken for %d, want %d", told, got, want)
		}
	}
}
