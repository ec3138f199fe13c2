package route_test

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/felix/kernel/route"
)

// node is a namespace with two uplinks, on which next hops lie, and the host
// side of two pods.
func node(t testing.TB) *kerneltest.Namespace {
	t.Helper()
	n := kerneltest.New(t)
	for _, up := range []string{"eth0", "eth1"} {
		kerneltest.Pod(n, up)
	}
	for dev, addrs := range map[string][]string{"eth0": {"192.0.2.1/25", "2001:db8:0::1/64"}, "eth1": {"192.0.2.129/25", "2001:db8:1::1/64"}} {
		for _, a := range addrs {
			n.Run("ip", "addr", "add", a, "dev", dev, "nodad")
		}
	}
	kerneltest.Pod(n, "kor1")
	kerneltest.Pod(n, "kor2")
	return n
}

func open(t testing.TB, n *kerneltest.Namespace) (r *route.Reconciler) {
	t.Helper()
	n.Do(func() {
		var err error
		if r, err = route.New(); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { r.Close() })
	return r
}

// routes makes a delta of routes in a short notation: "PREFIX dev IFACE",
// "PREFIX unreachable", "PREFIX via HOP,HOP" or "PREFIX gone".
func routes(t testing.TB, lines ...string) desired.Delta {
	t.Helper()
	d := desired.Delta{Routes: map[netip.Prefix]*desired.Route{}}
	for _, line := range lines {
		f := strings.Fields(line)
		p := netip.MustParsePrefix(f[0])
		switch f[1] {
		case "dev":
			d.Routes[p] = &desired.Route{Prefix: p, Kind: desired.Local, Interface: f[2]}
		case "unreachable":
			d.Routes[p] = &desired.Route{Prefix: p, Kind: desired.Unreachable}
		case "via":
			var hops []netip.Addr
			for hop := range strings.SplitSeq(f[2], ",") {
				hops = append(hops, netip.MustParseAddr(hop))
			}
			slices.SortFunc(hops, netip.Addr.Compare)
			d.Routes[p] = &desired.Route{Prefix: p, Kind: desired.Via, NextHops: hops}
		case "gone":
			d.Routes[p] = nil
		default:
			t.Fatalf("bad notation %q", line)
		}
	}
	return d
}

func begin(t testing.TB, n *kerneltest.Namespace) *route.Reconciler {
	t.Helper()
	r := open(t, n)
	if err := r.Resync(t.Context()); err != nil {
		t.Fatalf("Resync: %v", err)
	}
	return r
}

func mustApply(t testing.TB, r *route.Reconciler, d desired.Delta) {
	t.Helper()
	r.Want(d)
	if err := r.Apply(t.Context()); err != nil {
		t.Fatalf("Apply: %v", err)
	}
}

func compare(t testing.TB, n *kerneltest.Namespace, want ...string) {
	t.Helper()
	want = append([]string{}, want...)
	slices.Sort(want)
	if diff := cmp.Diff(want, n.Routes(desired.RouteProtocol)); diff != "" {
		t.Fatalf("routes in the kernel (-want +got):\n%s", diff)
	}
}

// all is one route of each kind and family.
var all = []string{
	"10.0.0.1/32 dev kor1",
	"10.0.0.0/26 unreachable",
	"10.0.1.0/26 via 192.0.2.2",
	"10.0.2.0/26 via 192.0.2.2,192.0.2.130",
	"fd00::1/128 dev kor1",
	"fd00::/122 unreachable",
	"fd00:1::/122 via 2001:db8::2",
	"fd00:2::/122 via 2001:db8::2,2001:db8:1::2",
}

var allInKernel = []string{
	"10.0.0.1/32 dev kor1 scope link",
	"type 7 10.0.0.0/26",
	"10.0.1.0/26 via 192.0.2.2",
	"10.0.2.0/26 via 192.0.2.130,192.0.2.2",
	"fd00::1/128 dev kor1 metric 1024",
	"type 7 fd00::/122 metric 1024",
	"fd00:1::/122 via 2001:db8::2 metric 1024",
	"fd00:2::/122 via 2001:db8:1::2,2001:db8::2 metric 1024",
}

func TestEveryKindOfRoute(t *testing.T) {
	n := node(t)
	r := begin(t, n)
	mustApply(t, r, routes(t, all...))
	compare(t, n, allInKernel...)

	var gone []string
	for _, line := range all {
		gone = append(gone, strings.Fields(line)[0]+" gone")
	}
	mustApply(t, r, routes(t, gone...))
	compare(t, n, allInKernel...) // not allowed yet
	mustApply(t, r, desired.Delta{Complete: true})
	compare(t, n, slices.DeleteFunc(slices.Clone(allInKernel), func(s string) bool { return !strings.Contains(s, "via") })...)
	mustApply(t, r, desired.Delta{Learned: true})
	compare(t, n)
}

func TestItems7And83ASecondInstanceAdoptsWithoutAWriteAndSweepsWhenAllIsKnown(t *testing.T) {
	n := node(t)
	mustApply(t, begin(t, n), routes(t, all...))
	n.Run("ip", "route", "add", "10.9.0.0/26", "via", "192.0.2.3", "proto", "112")
	n.Run("ip", "route", "add", "10.9.1.0/26", "via", "192.0.2.3", "proto", "static")

	m := n.Monitor()
	m.Drain()
	r := begin(t, n)
	mustApply(t, r, desired.Delta{})
	mustApply(t, r, routes(t, all...))
	if changes := m.Changes(); len(changes) > 0 {
		t.Errorf("adopting changed the kernel: %v", changes)
	}
	if closed := r.Closed(); len(closed) > 0 {
		t.Errorf("closed: %v", closed)
	}
	mustApply(t, r, desired.Delta{Complete: true, Learned: true})
	if diff := cmp.Diff([]string{"delroute 112"}, m.Changes()); diff != "" {
		t.Errorf("changes once all is known (-want +got):\n%s", diff)
	}
	compare(t, n, allInKernel...)
}

func TestAForeignRouteIsNotTouched(t *testing.T) {
	for _, foreign := range []string{"10.0.1.0/26 via 192.0.2.9 proto static", "fd00:1::/122 via 2001:db8::9 proto static"} {
		t.Run(strings.Fields(foreign)[0], func(t *testing.T) {
			n := node(t)
			n.Run("ip", append([]string{"route", "add"}, strings.Fields(foreign)...)...)
			before := n.Routes(4)
			r := begin(t, n)
			r.Want(routes(t, all...))
			err := r.Apply(t.Context())
			if err == nil || !strings.Contains(err.Error(), strings.Fields(foreign)[0]) || !strings.Contains(err.Error(), "not ours") {
				t.Errorf("Apply: %v", err)
			}
			if diff := cmp.Diff(before, n.Routes(4)); diff != "" {
				t.Errorf("foreign routes (-before +after):\n%s", diff)
			}
			if got := len(n.Routes(112)); got != len(all)-1 {
				t.Errorf("%d other routes, not %d", got, len(all)-1)
			}
			n.Run("ip", append([]string{"route", "del"}, strings.Fields(foreign)...)...)
			mustApply(t, r, desired.Delta{})
			compare(t, n, allInKernel...)
		})
	}
}

// TestAChangeLeavesNoGap changes routes to every other kind and looks for a
// moment without any, in what the kernel tells.
func TestAChangeLeavesNoGap(t *testing.T) {
	forms := map[string][]string{
		"10.0.0.1/32": {
			"dev kor1", "dev kor2", "unreachable", "via 192.0.2.2", "via 192.0.2.2,192.0.2.130",
			"via 192.0.2.2,192.0.2.130,192.0.2.131", "via 192.0.2.3,192.0.2.131",
		},
		"fd00::1/128": {
			"dev kor1", "dev kor2", "unreachable", "via 2001:db8::2", "via 2001:db8::2,2001:db8:1::2",
			"via 2001:db8::2,2001:db8:1::2,2001:db8:1::3", "via 2001:db8::3,2001:db8:1::3",
		},
	}
	for prefix, forms := range forms {
		t.Run(prefix, func(t *testing.T) {
			n := node(t)
			r := begin(t, n)
			m := n.Monitor()
			m.Drain()
			for i, from := range forms {
				for _, to := range forms[i+1:] {
					for _, step := range []string{from, to, from} {
						mustApply(t, r, routes(t, prefix+" "+step))
						if got := n.Routes(112); len(got) != 1 || !sameForm(got[0], step) {
							t.Errorf("want %s, the kernel has %q", step, got)
						}
					}
				}
			}
			if changes := m.Changes(); slices.Contains(changes, "delroute 112") {
				t.Errorf("the kernel deleted the route on the way: %v", changes)
			}
		})
	}
}

func sameForm(line, form string) bool {
	f := strings.Fields(form)
	switch f[0] {
	case "dev":
		return strings.Contains(line, form)
	case "unreachable":
		return strings.HasPrefix(line, "type 7 ")
	default:
		hops := strings.Split(f[1], ",")
		slices.Sort(hops)
		return strings.Contains(line, "via "+strings.Join(hops, ","))
	}
}

func TestARouteDeletedByOthersComesBack(t *testing.T) {
	n := node(t)
	r := begin(t, n)
	mustApply(t, r, routes(t, all...))
	n.Run("ip", "route", "flush", "proto", "112")
	n.Run("ip", "-6", "route", "flush", "proto", "112")
	r.RouteChanged(netip.MustParsePrefix("10.0.1.0/26"), desired.RouteProtocol)
	mustApply(t, r, desired.Delta{})
	compare(t, n, allInKernel...)
}

func TestAReplacementOfWhatIsGoneUnnoticedSucceeds(t *testing.T) {
	n := node(t)
	r := begin(t, n)
	mustApply(t, r, routes(t, all...))
	n.Run("ip", "route", "flush", "proto", "112")
	n.Run("ip", "-6", "route", "flush", "proto", "112")
	mustApply(t, r, routes(t, "10.0.0.1/32 dev kor2", "fd00:1::/122 via 2001:db8::3"))
	compare(t, n, "10.0.0.1/32 dev kor2 scope link", "fd00:1::/122 via 2001:db8::3 metric 1024")
}

func TestWhatIsClosedIsNotOpened(t *testing.T) {
	n := node(t)
	r := begin(t, n)
	mustApply(t, r, routes(t, "10.0.0.2/32 dev kor2"))
	r.Withhold(map[string]error{"kor1": errors.New("no policy yet"), "kor2": errors.New("policy change failed")})
	mustApply(t, r, routes(t, all...))
	withheld := slices.DeleteFunc(slices.Clone(allInKernel), func(s string) bool { return strings.Contains(s, "kor1") })
	compare(t, n, append(withheld, "10.0.0.2/32 dev kor2 scope link")...)
	if closed := r.Closed(); closed["kor1"] == nil || closed["kor2"] != nil {
		t.Errorf("closed: %v", closed)
	}
	r.Withhold(nil)
	mustApply(t, r, desired.Delta{})
	compare(t, n, append(slices.Clone(allInKernel), "10.0.0.2/32 dev kor2 scope link")...)
}

func TestANextHopOutOfReachFailsAlone(t *testing.T) {
	n := node(t)
	r := begin(t, n)
	r.Want(routes(t, append([]string{"10.9.0.0/26 via 203.0.113.1", "fd00:9::/122 via 2001:db8:9::1"}, all...)...))
	err := r.Apply(t.Context())
	for _, p := range []string{"10.9.0.0/26", "fd00:9::/122"} {
		if err == nil || !strings.Contains(err.Error(), p) {
			t.Errorf("Apply: %v, without %s", err, p)
		}
	}
	compare(t, n, allInKernel...)
	n.Run("ip", "addr", "add", "203.0.113.2/24", "dev", "eth0")
	n.Run("ip", "addr", "add", "2001:db8:9::2/64", "dev", "eth0", "nodad")
	mustApply(t, r, desired.Delta{})
	compare(t, n, append(slices.Clone(allInKernel), "10.9.0.0/26 via 203.0.113.1", "fd00:9::/122 via 2001:db8:9::1 metric 1024")...)
}

func TestTenThousandRoutes(t *testing.T) {
	n := node(t)
	r := begin(t, n)
	d := desired.Delta{Routes: map[netip.Prefix]*desired.Route{}, Complete: true, Learned: true}
	for i := range 10_000 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 1}), 32)
		d.Routes[p] = &desired.Route{Prefix: p, Kind: desired.Via, NextHops: []netip.Addr{netip.MustParseAddr("192.0.2.2")}}
	}
	mustApply(t, r, d)
	if got := len(n.Routes(112)); got != 10_000 {
		t.Fatalf("%d routes", got)
	}
	mustApply(t, begin(t, n), desired.Delta{Complete: true, Learned: true})
	if got := len(n.Routes(112)); got != 0 {
		t.Fatalf("%d routes left", got)
	}
	if err := r.Resync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if closed := r.Closed(); len(closed) > 0 {
		t.Errorf("closed: %v", closed)
	}
}
