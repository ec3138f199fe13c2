package route_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
)

// via makes a delta of one Via route over "HOP" or "HOP*WEIGHT".
func via(prefix string, hops ...string) desired.Delta {
	r := &desired.Route{Prefix: netip.MustParsePrefix(prefix), Kind: desired.Via}
	for _, h := range hops {
		addr, weight, weighed := strings.Cut(h, "*")
		r.NextHops = append(r.NextHops, netip.MustParseAddr(addr))
		if weighed {
			w, _ := strconv.Atoi(weight)
			r.Weights = append(r.Weights, uint8(w))
		}
	}
	return desired.Delta{Routes: map[netip.Prefix]*desired.Route{r.Prefix: r}}
}

// shown returns our route to a prefix as `ip route` shows it, in one line, with the
// next hops sorted.
func shown(n *kerneltest.Namespace, prefix string) string {
	args := []string{"route", "show", prefix, "proto", "112"}
	if strings.Contains(prefix, ":") {
		args = append([]string{"-6"}, args...)
	}
	lines := strings.Split(strings.TrimSpace(n.Run("ip", args...)), "\n")
	for i, l := range lines {
		lines[i] = strings.Join(strings.Fields(l), " ")
	}
	slices.Sort(lines[1:])
	return strings.Join(lines, " ")
}

func TestItem74EqualAndWeightedPathsShareTraffic(t *testing.T) {
	for _, c := range []struct {
		prefix string
		hops   []string
		want   string
	}{
		{"10.0.1.0/26", []string{"192.0.2.2*1", "192.0.2.130*3"}, "nexthop via 192.0.2.130 dev eth1 weight 3 nexthop via 192.0.2.2 dev eth0 weight 1"},
		{"10.0.1.0/26", []string{"192.0.2.2*255", "192.0.2.130*1"}, "nexthop via 192.0.2.130 dev eth1 weight 1 nexthop via 192.0.2.2 dev eth0 weight 255"},
		{"10.0.1.0/26", []string{"192.0.2.2*7", "192.0.2.130*7"}, "nexthop via 192.0.2.130 dev eth1 weight 1 nexthop via 192.0.2.2 dev eth0 weight 1"},
		{"fd00:1::/122", []string{"2001:db8::2*2", "2001:db8:1::2*1"}, "nexthop via 2001:db8:1::2 dev eth1 weight 1 nexthop via 2001:db8::2 dev eth0 weight 2"},
	} {
		n := node(t)
		r := begin(t, n)
		mustApply(t, r, via(c.prefix, c.hops...))
		if got := shown(n, c.prefix); !strings.HasSuffix(got, c.want) {
			t.Errorf("%v: %s, want %s", c.hops, got, c.want)
		}
		m := n.Monitor()
		m.Drain()
		mustApply(t, begin(t, n), via(c.prefix, c.hops...)) // an agent that starts anew
		if changes := m.Changes(); len(changes) > 0 {
			t.Errorf("%v: what is there is written again: %v", c.hops, changes)
		}
	}
}

func TestItem74WeightsThatOthersEditComeBack(t *testing.T) {
	n := node(t)
	r := begin(t, n)
	mustApply(t, r, via("10.0.1.0/26", "192.0.2.2*1", "192.0.2.130*3"))
	want := shown(n, "10.0.1.0/26")
	n.Run("ip", "route", "replace", "10.0.1.0/26", "proto", "112", "nexthop", "via", "192.0.2.2", "weight", "9", "nexthop", "via", "192.0.2.130", "weight", "3")
	r.RouteChanged(netip.MustParsePrefix("10.0.1.0/26"), 112)
	mustApply(t, r, desired.Delta{})
	if got := shown(n, "10.0.1.0/26"); got != want {
		t.Errorf("the route is %s, want %s", got, want)
	}
}

// TestNextHopsOfTheOtherFamily: as RFC 8950 has them, of IPv4 behind IPv6 routers,
// by their global and by their link-local addresses.
func TestNextHopsOfTheOtherFamily(t *testing.T) {
	for _, c := range []struct{ prefix, want string }{
		{"10.0.1.0/26 fe80::2%eth0", "10.0.1.0/26 via inet6 fe80::2 dev eth0"},
		{"10.0.1.0/26 2001:db8::2", "10.0.1.0/26 via inet6 2001:db8::2 dev eth0"},
		{"10.0.1.0/26 fe80::2%eth0 fe80::2%eth1", "10.0.1.0/26 nexthop via inet6 fe80::2 dev eth0 weight 1 nexthop via inet6 fe80::2 dev eth1 weight 1"},
		{"10.0.1.0/26 192.0.2.2*2 fe80::3%eth1*5", "10.0.1.0/26 nexthop via 192.0.2.2 dev eth0 weight 2 nexthop via inet6 fe80::3 dev eth1 weight 5"},
		{"fd00:1::/122 fe80::2%eth1", "fd00:1::/122 via fe80::2 dev eth1 metric 1024"},
		{"fd00:1::/122 fe80::2%eth0 fe80::2%eth1", "fd00:1::/122 metric 1024 nexthop via fe80::2 dev eth0 weight 1 nexthop via fe80::2 dev eth1 weight 1"},
	} {
		n := node(t)
		r := begin(t, n)
		f := strings.Fields(c.prefix)
		mustApply(t, r, via(f[0], f[1:]...))
		got := strings.ReplaceAll(shown(n, f[0]), " pref medium", "")
		if got != c.want {
			t.Errorf("%s is\n%s, want\n%s", c.prefix, got, c.want)
		}
		m := n.Monitor()
		m.Drain()
		mustApply(t, begin(t, n), via(f[0], f[1:]...))
		if changes := m.Changes(); len(changes) > 0 {
			t.Errorf("%s: what is there is written again: %v", c.prefix, changes)
		}
		d := desired.Delta{Routes: map[netip.Prefix]*desired.Route{netip.MustParsePrefix(f[0]): nil}, Complete: true, Learned: true}
		if mustApply(t, r, d); len(n.Routes(112)) > 0 {
			t.Errorf("%s is not removed: %v", c.prefix, n.Routes(112))
		}
	}
}

// TestNextHopsBehindRoutersAreFollowed: a next hop that is not on a link, as those
// that a reflector keeps, is reached as the kernel reaches it, now and when that
// changes.
func TestNextHopsBehindRoutersAreFollowed(t *testing.T) {
	n := node(t)
	n.Run("ip", "route", "add", "198.51.100.0/24", "via", "192.0.2.2")
	r := begin(t, n)
	check := func(when, want string) {
		t.Helper()
		if got := shown(n, "10.0.1.0/26"); !strings.HasPrefix(got, "10.0.1.0/26 "+want) {
			t.Errorf("%s: %s, want %s", when, got, want)
		}
	}
	mustApply(t, r, via("10.0.1.0/26", "198.51.100.7"))
	check("behind a router", "via 192.0.2.2 dev eth0")

	n.Run("ip", "route", "replace", "198.51.100.0/24", "via", "192.0.2.130")
	r.RouteChanged(netip.MustParsePrefix("198.51.100.0/24"), 3)
	mustApply(t, r, desired.Delta{})
	check("behind another", "via 192.0.2.130 dev eth1")

	n.Run("ip", "route", "replace", "198.51.100.0/24", "nexthop", "via", "192.0.2.2", "nexthop", "via", "192.0.2.130")
	r.RouteChanged(netip.MustParsePrefix("198.51.100.0/24"), 3)
	mustApply(t, r, desired.Delta{})
	check("behind two", "nexthop via 192.0.2.130 dev eth1 weight 1 nexthop via 192.0.2.2 dev eth0 weight 1")

	mustApply(t, r, via("10.0.1.0/26", "192.0.2.2", "198.51.100.7"))
	check("beside one of the two", "nexthop via 192.0.2.130 dev eth1 weight 1 nexthop via 192.0.2.2 dev eth0 weight 2")

	n.Run("ip", "route", "add", "198.51.100.7", "dev", "eth1")
	r.RouteChanged(netip.MustParsePrefix("198.51.100.7/32"), 3)
	mustApply(t, r, desired.Delta{})
	check("on a link", "nexthop via 192.0.2.2 dev eth0 weight 1 nexthop via 198.51.100.7 dev eth1 weight 1")

	n.Run("ip", "route", "replace", "unreachable", "198.51.100.7")
	r.RouteChanged(netip.MustParsePrefix("198.51.100.7/32"), 3)
	mustApply(t, r, desired.Delta{})
	check("unreachable", "via 192.0.2.2 dev eth0")
}

// TestOurOwnRoutesAreNoWayToNextHops: else a route could lead over itself.
func TestOurOwnRoutesAreNoWayToNextHops(t *testing.T) {
	n := node(t)
	r := begin(t, n)
	mustApply(t, r, via("203.0.113.0/24", "192.0.2.2"))
	r.Want(via("10.0.1.0/26", "203.0.113.7"))
	if err := r.Apply(t.Context()); err == nil || !strings.Contains(err.Error(), "10.0.1.0/26") {
		t.Errorf("Apply: %v, expected the kernel to refuse the gateway", err)
	}
	n.Run("ip", "route", "add", "203.0.113.7", "via", "192.0.2.130")
	mustApply(t, r, desired.Delta{})
	if got := shown(n, "10.0.1.0/26"); !strings.HasPrefix(got, "10.0.1.0/26 via 192.0.2.130 ") {
		t.Errorf("the route is %s", got)
	}
}

// TestItem76LinksFlap: one of two uplinks, or its other end, goes down and comes
// back; traffic stays on the other one meanwhile.
func TestItem76LinksFlap(t *testing.T) {
	n := node(t)
	r := begin(t, n)
	mustApply(t, r, routes(t, all...))
	both := map[string]string{}
	for _, p := range []string{"10.0.2.0/26", "fd00:2::/122"} {
		both[p] = shown(n, p)
	}
	peer := func(how string) { n.Run("ip", "link", "set", "eth1", how) }
	for _, round := range []string{"once", "twice"} {
		peer("down")
		r.LinkChanged("eth1")
		_ = r.Apply(t.Context()) // routes over eth1 alone fail
		for p, gateway := range map[string]string{"10.0.2.0/26": "192.0.2.2", "fd00:2::/122": "2001:db8::2"} {
			if got := shown(n, p); !strings.HasPrefix(got, p+" via "+gateway+" dev eth0") {
				t.Errorf("down %s: %s", round, got)
			}
		}
		peer("up")
		n.Run("ip", "addr", "replace", "2001:db8:1::1/64", "dev", "eth1", "nodad") // the kernel forgets those of IPv6
		r.LinkChanged("eth1")
		mustApply(t, r, desired.Delta{})
		for p, want := range both {
			if got := shown(n, p); got != want {
				t.Errorf("up %s: %s, want %s", round, got, want)
			}
		}
	}
	compare(t, n, allInKernel...)
}

// TestItem76AnUplinkWithoutCarrierIsLeft: the interface is up, and nobody is at the
// other end of the cable.
func TestItem76AnUplinkWithoutCarrierIsLeft(t *testing.T) {
	n := kerneltest.New(t)
	far := map[string]*kerneltest.Namespace{}
	for i, up := range []string{"eth0", "eth1"} {
		far[up] = kerneltest.Pod(n, up)
		n.Run("ip", "addr", "add", fmt.Sprintf("192.0.2.%d/25", i*128+1), "dev", up)
	}
	r := begin(t, n)
	mustApply(t, r, via("10.0.2.0/26", "192.0.2.2", "192.0.2.130"))
	both := shown(n, "10.0.2.0/26")
	cable := func(state string) {
		far["eth1"].Run("ip", "link", "set", "eth0", state)
		carrier := map[string]bool{"up": false, "down": true}[state]
		kerneltest.Eventually(t, "cable "+state, func() bool { return strings.Contains(n.Run("ip", "link", "show", "eth1"), "NO-CARRIER") == carrier })
		r.LinkChanged("eth1")
		mustApply(t, r, desired.Delta{})
	}
	cable("down")
	if got := shown(n, "10.0.2.0/26"); !strings.HasPrefix(got, "10.0.2.0/26 via 192.0.2.2 dev eth0") {
		t.Errorf("without carrier: %s", got)
	}
	cable("up")
	if got := shown(n, "10.0.2.0/26"); got != both {
		t.Errorf("with carrier again: %s, want %s", got, both)
	}
}

// TestItem76OthersRoutesAreNoneOfOurs: a default route is only in force beside the
// one that the node has where that has a metric, and never takes its place.
func TestItem76OthersRoutesAreNoneOfOurs(t *testing.T) {
	n := node(t)
	n.Run("ip", "route", "add", "default", "via", "192.0.2.9", "metric", "100")
	n.Run("ip", "route", "add", "10.7.0.0/16", "via", "192.0.2.9")
	before := n.Routes(3)
	r := begin(t, n)
	r.Want(desired.Delta{Complete: true, Learned: true})
	mustApply(t, r, via("0.0.0.0/0", "192.0.2.2"))
	if got := shown(n, "default"); !strings.HasPrefix(got, "default via 192.0.2.2 dev eth0") {
		t.Errorf("our default route is %q", got)
	}
	mustApply(t, r, desired.Delta{Routes: map[netip.Prefix]*desired.Route{netip.MustParsePrefix("0.0.0.0/0"): nil}})
	r.Want(via("10.7.0.0/16", "192.0.2.2"))
	if err := r.Apply(t.Context()); err == nil || !strings.Contains(err.Error(), "not ours") {
		t.Errorf("Apply over the route of another: %v", err)
	}
	if after := n.Routes(3); !slices.Equal(before, after) {
		t.Errorf("routes of others were %v and are %v", before, after)
	}
}

func BenchmarkANextHopMoves(b *testing.B) {
	n := node(b)
	n.Run("ip", "route", "add", "198.51.100.0/24", "via", "192.0.2.2")
	r := begin(b, n)
	d := desired.Delta{Routes: map[netip.Prefix]*desired.Route{}}
	for i := range 10_000 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 1}), 32)
		d.Routes[p] = &desired.Route{Prefix: p, Kind: desired.Via, NextHops: []netip.Addr{netip.MustParseAddr("198.51.100.7")}}
	}
	mustApply(b, r, d)
	for i := 0; b.Loop(); i++ {
		n.Run("ip", "route", "replace", "198.51.100.0/24", "via", []string{"192.0.2.130", "192.0.2.2"}[i%2])
		r.RouteChanged(netip.MustParsePrefix("198.51.100.0/24"), 3)
		mustApply(b, r, desired.Delta{})
	}
}
