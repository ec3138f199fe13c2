package netmon_test

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/felix/netmon"
)

// TestItem70HowNodesAreReachedIsAskedOfTheKernel: the prefix of the node's address
// and the kernel's route are told both, and followed.
func TestItem70HowNodesAreReachedIsAskedOfTheKernel(t *testing.T) {
	n := kerneltest.New(t)
	kerneltest.Pod(n, "eth0")
	n.Run("ip", "addr", "add", "192.0.2.1/24", "dev", "eth0")
	n.Run("ip", "addr", "add", "2001:db8::1/64", "dev", "eth0", "nodad")
	n.Run("ip", "route", "add", "default", "via", "192.0.2.254")
	n.Run("ip", "route", "add", "192.0.2.128/25", "via", "192.0.2.253", "mtu", "1400")

	var mu sync.Mutex // guards told
	told := map[string]event.Reach{}
	var r *netmon.Reaches
	n.Do(func() {
		var err error
		r, err = netmon.NewReaches(func(evs ...event.Event) {
			mu.Lock()
			defer mu.Unlock()
			for _, ev := range evs {
				if delete(told, ev.Key.Name); ev.Value != nil {
					told[ev.Key.Name] = *ev.Value.(*event.Reach)
				}
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx, func(err error) { t.Errorf("look: %v", err) }) }()
	t.Cleanup(func() {
		stop()
		<-done
		r.Close()
	})
	reach := func(a, gateway, source string, mtu int) event.Reach {
		e := event.Reach{Addr: netip.MustParseAddr(a), Interface: "eth0", Source: netip.MustParsePrefix(source), MTU: mtu}
		if gateway != "" {
			e.Gateway = netip.MustParseAddr(gateway)
		}
		return e
	}
	expect := func(what string, want ...event.Reach) {
		t.Helper()
		all := map[string]event.Reach{}
		for _, w := range want {
			all[w.Addr.String()] = w
		}
		kerneltest.Eventually(t, what, func() bool {
			mu.Lock()
			defer mu.Unlock()
			return maps.Equal(all, told)
		})
	}
	addr := netip.MustParseAddr
	r.SetNode("near", []netip.Addr{addr("192.0.2.2"), addr("2001:db8::2")})
	r.SetNode("routed", []netip.Addr{addr("192.0.2.200")})
	r.SetNode("far", []netip.Addr{addr("198.51.100.1"), addr("2001:db8:9::1")})
	r.SetNode("self", []netip.Addr{addr("192.0.2.1")})
	near, near6 := reach("192.0.2.2", "", "192.0.2.1/24", 1500), reach("2001:db8::2", "", "2001:db8::1/64", 1500)
	routed, far := reach("192.0.2.200", "192.0.2.253", "192.0.2.1/24", 1400), reach("198.51.100.1", "192.0.2.254", "192.0.2.1/24", 1500)
	expect("all ways that there are", near, near6, routed, far)

	n.Run("ip", "link", "set", "eth0", "mtu", "9000")
	r.Look(netmon.Change{Link: "eth0"})
	near.MTU, near6.MTU, far.MTU = 9000, 9000, 9000
	expect("another MTU", near, near6, routed, far)

	n.Run("ip", "route", "del", "default")
	r.Look(netmon.Change{Lost: true})
	expect("no way to what is far", near, near6, routed)

	r.SetNode("routed", nil)
	expect("a node that went", near, near6)

	for _, refusal := range []string{"unreachable", "blackhole", "prohibit"} {
		n.Run("ip", "route", "add", refusal, "192.0.2.2")
		r.Look(netmon.Change{Lost: true})
		expect(refusal+" is no way", near6)
		n.Run("ip", "route", "del", refusal, "192.0.2.2")
		r.Look(netmon.Change{Lost: true})
		expect("the way is back after "+refusal, near, near6)
	}
}

// TestItem70AKernelThatDoesNotAnswerChangesNothing: only its word that there is no
// way counts as that.
func TestItem70AKernelThatDoesNotAnswerChangesNothing(t *testing.T) {
	n := kerneltest.New(t)
	kerneltest.Pod(n, "eth0")
	n.Run("ip", "addr", "add", "192.0.2.1/24", "dev", "eth0")
	posted := 0
	var r *netmon.Reaches
	n.Do(func() {
		var err error
		if r, err = netmon.NewReaches(func(evs ...event.Event) { posted += len(evs) }); err != nil {
			t.Fatal(err)
		}
	})
	r.SetNode("near", []netip.Addr{netip.MustParseAddr("192.0.2.2")})
	if err := r.LookNow(); err != nil || posted != 1 {
		t.Fatalf("%d ways were told (%v), expected one", posted, err)
	}
	t.Cleanup(r.Close)
	r.Break(unix.ENOBUFS)
	if err := r.LookNow(); !errors.Is(err, unix.ENOBUFS) || posted != 1 {
		t.Errorf("without an answer: error %v, and %d events; expected the error and nothing new", err, posted-1)
	}
	r.Break(unix.ENETUNREACH)
	if err := r.LookNow(); err != nil || posted != 2 {
		t.Errorf("without a route: error %v, and %d events, expected that the way is gone", err, posted-1)
	}
}
