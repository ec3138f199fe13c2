package netmon_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/apply"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/felix/kernel/route"
	"github.com/koratnet/korat/felix/kernel/rule"
	"github.com/koratnet/korat/felix/netmon"
)

// ears collect what a Monitor tells.
type ears struct {
	mu    sync.Mutex // guards heard
	heard map[netmon.Change]bool
}

func (e *ears) hear(c netmon.Change) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.heard[c] = true
}

// take forgets what was heard and returns it.
func (e *ears) take() map[netmon.Change]bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	h := e.heard
	e.heard = map[netmon.Change]bool{}
	return h
}

func (e *ears) has(c netmon.Change) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.heard[c]
}

func listen(t *testing.T, n *kerneltest.Namespace, own ...uint32) *ears {
	t.Helper()
	e := &ears{heard: map[netmon.Change]bool{}}
	var m *netmon.Monitor
	n.Do(func() {
		var err error
		if m, err = netmon.New(own...); err != nil {
			t.Fatal(err)
		}
	})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx, e.hear) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return e
}

func routes(t *testing.T, n *kerneltest.Namespace) (r *route.Reconciler) {
	t.Helper()
	n.Do(func() {
		var err error
		if r, err = route.New(); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { r.Close() })
	if err := r.Resync(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r
}

func mustApply(t *testing.T, r apply.Reconciler, d desired.Delta) {
	t.Helper()
	r.Want(d)
	if err := r.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// mark waits until all that happened before was heard.
func (e *ears) mark(t *testing.T, n *kerneltest.Namespace) {
	t.Helper()
	n.Run("ip", "route", "add", "blackhole", "192.0.2.255", "proto", "112")
	marker := netmon.Change{Route: netip.MustParsePrefix("192.0.2.255/32"), Protocol: desired.RouteProtocol}
	kerneltest.Eventually(t, "marker heard", func() bool { return e.has(marker) })
	n.Run("ip", "route", "del", "blackhole", "192.0.2.255", "proto", "112")
}

func TestForeignChangesAreTold(t *testing.T) {
	n := kerneltest.New(t)
	kerneltest.Pod(n, "eth0")
	n.Run("ip", "addr", "add", "192.0.2.1/25", "dev", "eth0")
	kerneltest.Pod(n, "kor1")
	n.Run("ip", "route", "add", "10.0.0.0/26", "via", "192.0.2.2", "proto", "112")
	e := listen(t, n)
	link := func(name string) netmon.Change { return netmon.Change{Link: name} }
	of := func(prefix string, protocol uint8) netmon.Change {
		return netmon.Change{Route: netip.MustParsePrefix(prefix), Protocol: protocol}
	}
	for _, step := range []struct {
		command string
		want    []netmon.Change
	}{
		{"ip link add kor2 type veth peer name x2", []netmon.Change{link("kor2"), link("x2")}},
		{"ip link set kor1 down", []netmon.Change{link("kor1")}},
		{"ip link set kor1 address 02:00:00:00:00:01", []netmon.Change{link("kor1")}},
		{"ip link set kor1 name kor9", []netmon.Change{link("kor1"), link("kor9")}},
		{"ip link del kor2", []netmon.Change{link("kor2"), link("x2")}},
		{"ip addr add 192.0.2.129/25 dev eth0", []netmon.Change{link("eth0")}},
		{"ip addr del 192.0.2.129/25 dev eth0", []netmon.Change{link("eth0")}},
		{"ip route replace 10.0.0.0/26 via 192.0.2.3 proto static", []netmon.Change{of("10.0.0.0/26", unix.RTPROT_STATIC)}},
		{"ip route add 10.0.1.0/26 via 192.0.2.3 proto 112", []netmon.Change{of("10.0.1.0/26", 112)}},
		{"ip route del 10.0.1.0/26", []netmon.Change{of("10.0.1.0/26", 112)}},
		{"ip route add 10.0.2.0/26 via 192.0.2.3 proto static", []netmon.Change{of("10.0.2.0/26", unix.RTPROT_STATIC)}},
		{"ip -6 route add unreachable fd00::/122 proto 112", []netmon.Change{of("fd00::/122", 112)}},
		{"ip route add 10.0.3.0/26 via 192.0.2.3 table 300 proto 112", []netmon.Change{of("10.0.3.0/26", 112)}},
		{"ip rule add table 300 protocol 112", []netmon.Change{of("0.0.0.0/0", 112)}},
		{"ip rule del table 300", []netmon.Change{of("0.0.0.0/0", 112)}},
		{"ip -6 rule add table 300 protocol static", []netmon.Change{of("::/0", unix.RTPROT_STATIC)}},
		{"sh -c echo${IFS}1>/proc/sys/net/ipv4/conf/eth0/forwarding", []netmon.Change{link("eth0")}},
		{"sh -c echo${IFS}1>/proc/sys/net/ipv4/ip_forward", []netmon.Change{link(netmon.AllLinks)}},
	} {
		e.mark(t, n)
		e.take()
		f := strings.Fields(step.command)
		n.Run(f[0], f[1:]...)
		for _, c := range step.want {
			kerneltest.Eventually(t, step.command+": told", func() bool { return e.has(c) })
		}
	}

	e.mark(t, n)
	e.take()
	n.Run("ip", "route", "add", "10.0.4.0/26", "via", "192.0.2.3", "table", "local", "proto", "112")
	n.Run("ip", "link", "set", "eth0", "alias", "uplink")
	e.mark(t, n)
	heard := e.take()
	delete(heard, of("192.0.2.255/32", 112))
	if len(heard) > 0 {
		t.Errorf("told what does not matter: %v", heard)
	}
}

func TestOurOwnRoutesAndRulesAreNotTold(t *testing.T) {
	n := kerneltest.New(t)
	r := routes(t, n)
	var rules *rule.Reconciler
	n.Do(func() {
		var err error
		if rules, err = rule.New(); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { rules.Close() })
	e := listen(t, n, r.Port(), rules.Port())
	e.mark(t, n)
	e.take()
	own := netip.MustParsePrefix("10.0.0.0/26")
	mustApply(t, r, desired.Delta{Routes: map[netip.Prefix]*desired.Route{own: {Prefix: own, Kind: desired.Unreachable}}, Complete: true})
	mustApply(t, r, desired.Delta{Routes: map[netip.Prefix]*desired.Route{own: nil}})
	lead := desired.Rule{Priority: 100, From: own, Table: 300}
	mustApply(t, rules, desired.Delta{Rules: map[desired.Rule]*struct{}{lead: {}}, Complete: true})
	mustApply(t, rules, desired.Delta{Rules: map[desired.Rule]*struct{}{lead: nil}})
	e.mark(t, n)
	ofRules := netmon.Change{Route: netip.MustParsePrefix("0.0.0.0/0"), Protocol: desired.RuleProtocol}
	if e.has(netmon.Change{Route: own, Protocol: desired.RouteProtocol}) || e.has(ofRules) {
		t.Error("our own change was told")
	}
	n.Run("ip", "rule", "add", "table", "300", "protocol", fmt.Sprint(desired.RuleProtocol))
	kerneltest.Eventually(t, "a rule is told that another wrote in our name", func() bool { return e.has(ofRules) })
}

// TestAnOverrunIsTold: the listener is not read while more happens than its
// buffer holds.
func TestAnOverrunIsTold(t *testing.T) {
	n := kerneltest.New(t)
	e := &ears{heard: map[netmon.Change]bool{}}
	var m *netmon.Monitor
	n.Do(func() {
		var err error
		if m, err = netmon.New(); err != nil {
			t.Fatal(err)
		}
	})
	many := map[netip.Prefix]*desired.Route{}
	for i := range 50_000 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 32)
		many[p] = &desired.Route{Prefix: p, Kind: desired.Unreachable}
	}
	mustApply(t, routes(t, n), desired.Delta{Routes: many})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx, e.hear) }()
	kerneltest.Eventually(t, "the overrun is told", func() bool { return e.has(netmon.Change{Lost: true}) })
	again := netmon.Change{Route: netip.MustParsePrefix("fd00::1/128"), Protocol: desired.RouteProtocol}
	kerneltest.Eventually(t, "it goes on", func() bool {
		n.Run("ip", "-6", "route", "replace", "unreachable", "fd00::1", "proto", "112")
		return e.has(again)
	})
	stop()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
}

// A Change converts to what apply takes.
var _ = apply.Poke(netmon.Change{})
