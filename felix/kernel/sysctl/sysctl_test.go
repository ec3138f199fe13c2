package sysctl_test

import (
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/felix/kernel/sysctl"
)

var node4 = map[string]string{
	"net/ipv4/ip_forward":                "1",
	"net/ipv4/fib_multipath_hash_policy": "1",
}

var link4 = map[string]string{
	"net/ipv4/conf/kor1/forwarding":     "1",
	"net/ipv4/conf/kor1/proxy_arp":      "1",
	"net/ipv4/conf/kor1/route_localnet": "1",
	"net/ipv4/conf/kor1/rp_filter":      "0",
	"net/ipv4/neigh/kor1/proxy_delay":   "0",
	"net/ipv6/conf/kor1/accept_ra":      "0",
}

var all6 = map[string]string{
	"net/ipv6/conf/all/forwarding":       "1",
	"net/ipv6/fib_multipath_hash_policy": "1",
	"net/ipv6/conf/kor1/disable_ipv6":    "0",
	"net/ipv6/conf/kor1/forwarding":      "1",
	"net/ipv6/conf/kor1/proxy_ndp":       "1",
}

func endpoint(addrs ...string) desired.Delta {
	ep := &desired.Endpoint{Interface: "kor1"}
	for _, a := range addrs {
		ep.Addrs = append(ep.Addrs, netip.MustParseAddr(a))
	}
	return desired.Delta{Endpoints: map[string]*desired.Endpoint{"kor1": ep}}
}

// compare reads the parameters named by want. It runs inside the namespace.
func compare(t *testing.T, wants ...map[string]string) {
	t.Helper()
	for _, want := range wants {
		got := map[string]string{}
		for path := range want {
			b, err := os.ReadFile(filepath.Join(sysctl.Root, path))
			if err != nil {
				t.Fatal(err)
			}
			got[path] = strings.TrimSpace(string(b))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("parameters (-want +got):\n%s", diff)
		}
	}
}

func mustApply(t *testing.T, r *sysctl.Reconciler, d desired.Delta) {
	t.Helper()
	r.Want(d)
	if err := r.Apply(t.Context()); err != nil {
		t.Fatalf("Apply: %v", err)
	}
}

func TestItems1And3ParametersFollowTheInterface(t *testing.T) {
	n := kerneltest.New(t)
	r := sysctl.New(sysctl.Root)
	n.Do(func() {
		mustApply(t, r, endpoint("10.0.0.1", "fd00::1"))
		compare(t, node4)
	})
	if err := r.Closed()["kor1"]; err == nil || !strings.Contains(err.Error(), "no such interface") {
		t.Errorf("closed: %v", err)
	}
	for range 2 {
		kerneltest.Pod(n, "kor1")
		n.Run("sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/kor1/disable_ipv6")
		r.LinkChanged("kor1")
		n.Do(func() {
			mustApply(t, r, desired.Delta{})
			compare(t, node4, link4, all6)
		})
		if len(r.Closed()) > 0 {
			t.Errorf("closed: %v", r.Closed())
		}
		n.Remove("kor1")
	}
}

func TestIPv6OfTheNodeIsLeftAloneWithoutAPool(t *testing.T) {
	n := kerneltest.New(t)
	kerneltest.Pod(n, "kor1")
	r := sysctl.New(sysctl.Root)
	pools := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")}
	n.Do(func() {
		d := endpoint("10.0.0.1")
		d.Pools = &pools
		mustApply(t, r, d)
		compare(t, node4, link4, map[string]string{"net/ipv6/conf/all/forwarding": "0", "net/ipv6/conf/kor1/proxy_ndp": "0"})
		pools6 := append(pools, netip.MustParsePrefix("fd00::/48"))
		mustApply(t, r, desired.Delta{Pools: &pools6})
		compare(t, map[string]string{"net/ipv6/conf/all/forwarding": "1"})
	})
}

func TestItem3AReadBackUndoesForeignEdits(t *testing.T) {
	n := kerneltest.New(t)
	kerneltest.Pod(n, "kor1")
	r := sysctl.New(sysctl.Root)
	n.Do(func() {
		mustApply(t, r, endpoint("10.0.0.1", "fd00::1"))
		for path := range maps.Keys(link4) {
			if err := os.WriteFile(filepath.Join(sysctl.Root, path), []byte("1"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.Resync(t.Context()); err != nil {
			t.Fatal(err)
		}
		mustApply(t, r, desired.Delta{})
		compare(t, node4, link4, all6)
	})
}

func TestAKernelWithoutIPv6(t *testing.T) {
	root := t.TempDir()
	write := func(path string) {
		t.Helper()
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("7\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for path := range node4 {
		write(path)
	}
	for path := range link4 {
		if strings.HasPrefix(path, "net/ipv4/") {
			write(path)
		}
	}
	r := sysctl.New(root)
	mustApply(t, r, endpoint("10.0.0.1"))
	if len(r.Closed()) > 0 {
		t.Errorf("closed: %v", r.Closed())
	}
}

// TestItem73WhatComesOutOfATunnelIsNotAskedForItsReversePath: also not where the
// node asks of all interfaces.
func TestItem73WhatComesOutOfATunnelIsNotAskedForItsReversePath(t *testing.T) {
	n := kerneltest.New(t)
	r := sysctl.New(sysctl.Root)
	tunnel := &desired.TunnelDevice{Kind: desired.VXLAN4}
	n.Run("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=1")
	n.Do(func() {
		mustApply(t, r, desired.Delta{Tunnels: map[desired.TunnelKind]*desired.TunnelDevice{desired.VXLAN4: tunnel}})
	})
	if closed := r.Closed(); len(closed) > 0 {
		t.Errorf("a tunnel counts as a pod: %v", closed)
	}
	n.Run("ip", "link", "add", "vxlan4-korat", "type", "vxlan", "id", "7", "dstport", "4789")
	r.LinkChanged("vxlan4-korat")
	n.Do(func() {
		mustApply(t, r, desired.Delta{})
		compare(t, map[string]string{"net/ipv4/conf/vxlan4-korat/rp_filter": "2", "net/ipv4/conf/vxlan4-korat/forwarding": "1"})
	})
}
