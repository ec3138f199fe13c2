package iptables

import (
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/koratnet/korat/felix/apply"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

var (
	_ apply.Reconciler  = (*Unfiltered)(nil)
	_ apply.Gated       = (*Unfiltered)(nil)
	_ apply.LinkWatcher = (*Unfiltered)(nil)
)

// onlyIPv4 leaves no programs in the path but those of iptables, and ip6tables
// as the script, if there is one.
func onlyIPv4(t *testing.T, script string) {
	t.Helper()
	dir := t.TempDir()
	for _, flavour := range []string{"", "-nft", "-legacy"} {
		for _, suffix := range []string{"", "-save", "-restore"} {
			path, err := exec.LookPath("iptables" + flavour + suffix)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(path, filepath.Join(dir, filepath.Base(path))); err != nil {
				t.Fatal(err)
			}
			if script == "" {
				continue
			}
			if err := os.WriteFile(filepath.Join(dir, "ip6tables"+flavour+suffix), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Setenv("PATH", dir)
}

func TestAHostThatCannotFilterIPv6(t *testing.T) {
	host := kerneltest.New(t)
	host.Do(func() {
		for _, flavour := range []Flavour{NFT, Legacy} {
			for _, f := range []ir.Family{ir.IPv4, ir.IPv6} {
				if err := Usable(t.Context(), f, flavour); err != nil {
					t.Errorf("%s, IPv%d: %v", flavour, f, err)
				}
			}
		}
	})
	for name, c := range map[string]struct{ script, want string }{
		"without the programs":   {"", "executable file not found"},
		"where they do not work": {"echo no such family >&2; exit 3", "no such family"},
	} {
		t.Run(name, func(t *testing.T) {
			onlyIPv4(t, c.script)
			host.Do(func() {
				flavour, err := Detect(t.Context())
				if err != nil {
					t.Fatalf("Detect: %v", err)
				}
				if err := Usable(t.Context(), ir.IPv4, flavour); err != nil {
					t.Errorf("IPv4: %v", err)
				}
				if err := Usable(t.Context(), ir.IPv6, flavour); err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("IPv6: %v, want %q", err, c.want)
				}
			})
		})
	}
}

// applied is an Unfiltered's Apply in the host of the world.
func (w *world) applied(u *Unfiltered) map[string]error {
	w.t.Helper()
	w.host.Do(func() {
		if err := u.Apply(w.t.Context()); err != nil {
			w.t.Errorf("Apply: %v", err)
		}
	})
	return u.Closed()
}

func TestWhereIPv6CannotBeFilteredOnlyPodsWithoutItAreOpen(t *testing.T) {
	oneCPU(t)
	w := newWorld(t, NFT)
	w.walls = w.walls[:1] // that of IPv4
	d := w.open()
	w.apply(d)
	w.iptables(ir.IPv6, "", "-P", "INPUT", "ACCEPT")
	a, b := w.sites["a"].iface, w.sites["b"].iface
	d.Endpoints[a].Addrs = d.Endpoints[a].Addrs[:1]

	six := func() bool {
		s, m := w.new("a", "host", true, policy.UDP), w.marker("a", "host", false)
		got := map[string]map[key]bool{}
		w.sites["a"].transmit(s.packet)
		w.sites["a"].transmit(m.packet)
		w.await(m, got)
		return got["host"][s.key()]
	}
	if !six() {
		t.Fatal("IPv6 does not arrive where nobody filters it")
	}
	u := NewUnfiltered(errors.New("just so"))
	u.Want(d)
	if closed := u.Closed(); closed[a] == nil || closed[b] == nil {
		t.Errorf("before the first Apply: closed are %v", closed)
	}
	closed := w.applied(u)
	if err := closed[b]; len(closed) != 1 || err == nil || !strings.Contains(err.Error(), "fd01::3") || !strings.Contains(err.Error(), "just so") {
		t.Errorf("closed: %v; want the pod with the IPv6 address, and why", closed)
	}
	if six() {
		t.Error("IPv6 that nobody filters arrives")
	}
	w.expect(true, w.new("a", "host", false, policy.UDP))

	w.host.Run("sysctl", "-qw", "net.ipv6.conf."+a+".disable_ipv6=0")
	u.LinkChanged(a)
	if u.Closed()[a] == nil {
		t.Error("open, and nobody has looked at the interface since it changed")
	}
	if w.applied(u)[a] != nil || six() {
		t.Error("an interface that was made anew stays as it is")
	}
}

func TestUnfilteredInterfacesThatAreNotThere(t *testing.T) {
	u := NewUnfiltered(errNoIPv6)
	u.root = t.TempDir()
	e := &desired.Endpoint{Interface: "kor1", Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}
	u.Want(desired.Delta{Endpoints: map[string]*desired.Endpoint{"kor1": e}})
	if err := u.Apply(t.Context()); err != nil || len(u.Closed()) != 0 {
		t.Errorf("a kernel without IPv6: %v, closed %v", err, u.Closed())
	}
	conf := filepath.Join(u.root, "net/ipv6/conf")
	if err := os.MkdirAll(conf, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := u.Resync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := u.Apply(t.Context()); err != nil || !errors.Is(u.Closed()["kor1"], errNoInterface) {
		t.Errorf("an interface that is not there: %v, closed %v", err, u.Closed())
	}
	u.Want(desired.Delta{Endpoints: map[string]*desired.Endpoint{"kor1": nil}})
	if closed := u.Closed(); len(closed) != 0 {
		t.Errorf("closed, and not wanted: %v", closed)
	}
}
