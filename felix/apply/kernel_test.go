package apply_test

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/koratnet/korat/felix/apply"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/ipset"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/felix/kernel/link"
	"github.com/koratnet/korat/felix/kernel/route"
	"github.com/koratnet/korat/felix/kernel/sysctl"
	"github.com/koratnet/korat/felix/netmon"
	"github.com/koratnet/korat/felix/status"
	"github.com/koratnet/korat/policy/ir"
)

// inside runs a Reconciler that reads /proc on a thread inside the namespace:
// in the agent, which lives in one namespace, any thread will do.
type inside struct {
	*sysctl.Reconciler
	n *kerneltest.Namespace
}

func (in inside) Apply(ctx context.Context) (err error) {
	in.n.Do(func() { err = in.Reconciler.Apply(ctx) })
	return err
}

// agent runs the kernel's loop, less the rules, in a namespace until the test
// ends or stop is called.
func agent(t *testing.T, n *kerneltest.Namespace) (l *apply.Loop, board *status.Board, stop func()) {
	t.Helper()
	var (
		links  *link.Reconciler
		sets   *ipset.Sets
		routes *route.Reconciler
		mon    *netmon.Monitor
	)
	n.Do(func() {
		var errs [4]error
		links, errs[0] = link.New()
		sets, errs[1] = ipset.New()
		routes, errs[2] = route.New()
		mon, errs[3] = netmon.New(routes.Port())
		for _, err := range errs {
			if err != nil {
				t.Fatal(err)
			}
		}
	})
	board = status.New(prometheus.NewRegistry())
	l = apply.New(apply.Config{Board: board, Log: slog.New(slog.DiscardHandler), Phases: []apply.Phase{
		{inside{sysctl.New(sysctl.Root), n}, links},
		{ipset.Adder{Sets: sets}},
		{routes},
		{ipset.Remover{Sets: sets}},
	}})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 2)
	go func() { done <- mon.Run(ctx, func(c netmon.Change) { l.Poke(apply.Poke(c)) }) }()
	go func() { done <- l.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				t.Errorf("Run: %v", err)
			}
		}
		links.Close()
		sets.Close()
		routes.Close()
	}
	t.Cleanup(stop)
	return l, board, stop
}

// pod makes a pod as the CNI plugin does.
func pod(n *kerneltest.Namespace, iface, addr4, addr6 string) *kerneltest.Namespace {
	p := kerneltest.Pod(n, iface)
	p.Run("ip", "addr", "add", addr4+"/32", "dev", "eth0")
	p.Run("ip", "addr", "add", addr6+"/128", "dev", "eth0", "nodad")
	p.Run("ip", "route", "add", "169.254.1.1", "dev", "eth0", "scope", "link")
	p.Run("ip", "route", "add", "default", "via", "169.254.1.1")
	p.Run("ip", "neigh", "add", "169.254.1.1", "lladdr", "ee:ee:ee:ee:ee:ee", "dev", "eth0", "nud", "permanent")
	p.Run("ip", "-6", "route", "add", "default", "via", "fe80::ecee:eeff:feee:eeee", "dev", "eth0")
	return p
}

func twoPods() desired.Delta {
	d := desired.Delta{
		Complete: true, Learned: true,
		Endpoints: map[string]*desired.Endpoint{},
		Routes:    map[netip.Prefix]*desired.Route{},
		Sets: map[ir.SetID]*desired.SetChange{"peers": {Whole: true, Add: map[ir.Member]struct{}{
			{Prefix: netip.MustParsePrefix("10.0.0.1/32")}: {},
		}}},
	}
	for iface, addrs := range map[string][]string{"kor1": {"10.0.0.1", "fd00::1"}, "kor2": {"10.0.0.2", "fd00::2"}} {
		ep := &desired.Endpoint{Interface: iface, Generation: 1}
		for _, a := range addrs {
			addr := netip.MustParseAddr(a)
			p := netip.PrefixFrom(addr, addr.BitLen())
			ep.Addrs = append(ep.Addrs, addr)
			d.Routes[p] = &desired.Route{Prefix: p, Kind: desired.Local, Interface: iface}
		}
		d.Endpoints[iface] = ep
	}
	block := netip.MustParsePrefix("10.0.0.0/26")
	d.Routes[block] = &desired.Route{Prefix: block, Kind: desired.Unreachable}
	return d
}

var twoPodsRoutes = []string{
	"10.0.0.1/32 dev kor1 scope link",
	"10.0.0.2/32 dev kor2 scope link",
	"fd00::1/128 dev kor1 metric 1024",
	"fd00::2/128 dev kor2 metric 1024",
	"type 7 10.0.0.0/26",
}

func wait(t *testing.T, board *status.Board, iface string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := board.WaitEndpoint(ctx, iface, 1); err != nil {
		t.Fatal(err)
	}
}

func TestPodsReachEachOtherAndEditsAreUndone(t *testing.T) {
	n := kerneltest.New(t)
	l, board, stop := agent(t, n)
	l.Want(twoPods())
	one := pod(n, "kor1", "10.0.0.1", "fd00::1") // after it was wanted
	pod(n, "kor2", "10.0.0.2", "fd00::2")
	wait(t, board, "kor1")
	wait(t, board, "kor2")
	one.Run("ping", "-c1", "-W5", "10.0.0.2")
	one.Run("ping", "-c1", "-W5", "fd00::2")
	if out, err := one.Try("ping", "-c1", "-W5", "10.0.0.3"); err == nil || !strings.Contains(out, "Unreachable") {
		t.Errorf("an address of the block that no pod has: %s", out)
	}
	if err := board.Ready(); err != nil {
		t.Errorf("Ready: %v", err)
	}

	n.Run("ip", "route", "add", "10.7.0.0/16", "dev", "lo", "proto", "static")
	foreign := n.Routes(4)
	for _, edit := range []string{
		"ip route flush proto 112",
		"ip -6 route del fd00::1",
		"ip route replace 10.0.0.0/26 dev lo proto 112",
		"ip route add 10.9.0.0/26 dev lo proto 112",
		"ip link set kor1 down",
		"ip link set kor2 address 02:00:00:00:00:01",
		"sh -c echo${IFS}0>/proc/sys/net/ipv4/ip_forward",
		"sh -c echo${IFS}0>/proc/sys/net/ipv4/conf/kor1/proxy_arp",
	} {
		began := time.Now()
		f := strings.Fields(edit)
		n.Run(f[0], f[1:]...)
		kerneltest.Eventually(t, edit+": undone", func() bool {
			return slices.Equal(n.Routes(desired.RouteProtocol), twoPodsRoutes) &&
				strings.Count(n.Run("ip", "link"), "link/ether ee:ee:ee:ee:ee:ee") == 2 &&
				n.Run("cat", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv4/conf/kor1/proxy_arp") == "1\n1\n"
		})
		t.Logf("%s: undone after %v", edit, time.Since(began).Round(time.Millisecond))
	}
	if got := n.Routes(4); !slices.Equal(got, foreign) {
		t.Errorf("foreign routes are %q, were %q", got, foreign)
	}
	one.Run("ping", "-c1", "-W5", "10.0.0.2")

	stop()
	m := n.Monitor()
	m.Drain()
	l, board, _ = agent(t, n)
	l.Want(twoPods())
	wait(t, board, "kor1")
	kerneltest.Eventually(t, "ready again", func() bool { return board.Ready() == nil })
	if changes := m.Changes(); len(changes) > 0 {
		t.Errorf("a restart changed the kernel: %v", changes)
	}
}
