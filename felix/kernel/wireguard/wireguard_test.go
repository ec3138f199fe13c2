package wireguard_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netns"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/felix/kernel/wireguard"
)

// TestMain makes the test binary a process in user space when a Reconciler starts it
// as one, and into others that tests start.
func TestMain(m *testing.M) {
	var err error
	switch {
	case len(os.Args) == 7 && os.Args[1] == "wireguard":
		err = serve(os.Args[2], os.Args[4], os.Args[6])
	case len(os.Args) == 4 && os.Args[1] == "churn":
		err = churn(os.Args[2], os.Args[3])
	case len(os.Args) == 4 && os.Args[1] == "hand":
		err = hand(os.Args[2], os.Args[3])
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// enter takes this process's thread, for good, into a network namespace.
func enter(namespace string) error {
	runtime.LockOSThread()
	ns, err := netns.GetFromPath(namespace)
	if err != nil {
		return err
	}
	return netns.Set(ns)
}

func serve(version, device, runDir string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return wireguard.Serve(ctx, wireguard.ServeConfig{
		Device: device, RunDir: runDir, Version: version, Log: slog.New(slog.DiscardHandler),
	})
}

// site is a node: a namespace with an uplink, ends of tunnels and a block of
// addresses.
type site struct {
	*kerneltest.Namespace
	n                int
	kind             desired.TunnelKind
	underlay, inside netip.Addr
	block            netip.Prefix
	dir              string
	ring             *wireguard.Ring
	tunnels          *wireguard.Reconciler
}

// sites makes count nodes on one wire, which is a namespace with a bridge.
func sites(t testing.TB, kind desired.TunnelKind, count int) (wire *kerneltest.Namespace, all []*site) {
	t.Helper()
	wire = kerneltest.New(t)
	wire.Run("ip", "link", "add", "wire", "type", "bridge")
	wire.Up("wire")
	for n := 1; n <= count; n++ {
		s := &site{Namespace: kerneltest.New(t), n: n, kind: kind, dir: directory(t)}
		addr := func(v4, v6 string) netip.Addr {
			text := v4
			if kind.Is6() {
				text = v6
			}
			return netip.MustParseAddr(strings.ReplaceAll(text, "N", fmt.Sprint(n)))
		}
		leg := fmt.Sprint("leg", n)
		kerneltest.Veth(wire, leg, s.Namespace, "eth0")
		wire.Run("ip", "link", "set", leg, "master", "wire", "up")
		s.Up("eth0")
		s.underlay, s.inside = addr("192.0.2.N", "2001:db8::N"), addr("10.0.N.1", "fd00:N::1")
		s.block, _ = s.inside.Prefix(map[bool]int{false: 26, true: 122}[kind.Is6()])
		s.Run("ip", "addr", "add", fmt.Sprintf("%s/%d", s.underlay, map[bool]int{false: 24, true: 64}[kind.Is6()]), "dev", "eth0", "nodad")
		t.Cleanup(func() { _, _ = s.Try("ip", "link", "del", kind.Device()) }) // ends a process
		var err error
		if s.ring, err = wireguard.OpenRing(s.dir); err != nil {
			t.Fatal(err)
		}
		s.tunnels = s.open(t)
		all = append(all, s)
	}
	return wire, all
}

// directory is one that processes of other users may enter, as /run is. What lives
// there ends with the test.
func directory(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "korat-wireguard-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

const version = "v1"

func (s *site) open(t testing.TB) (r *wireguard.Reconciler) { return s.openAs(t, version) }

func (s *site) openAs(t testing.TB, version string) (r *wireguard.Reconciler) {
	t.Helper()
	s.Do(func() {
		var err error
		r, err = wireguard.New(s.config(version))
		if err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { r.Close() })
	if err := r.Resync(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r
}

func (s *site) config(version string) wireguard.Config {
	return wireguard.Config{Ring: s.ring, RunDir: s.dir, Version: version, Command: []string{"korat", "wireguard", version}}
}

// look reads what is left of tunnels at some time.
func (s *site) look(now time.Time) (left wireguard.Left, err error) {
	s.Do(func() { left, err = wireguard.Look(s.config(version), now) })
	return left, err
}

// key is the one that the node is known by.
func (s *site) key() desired.Key {
	key, _ := s.ring.Key(s.kind)
	return key
}

const port = 51820

// own is what is desired of the node's own end.
func (s *site) own() desired.Delta {
	return desired.Delta{Complete: true, Tunnels: map[desired.TunnelKind]*desired.TunnelDevice{s.kind: {
		Kind: s.kind, Underlay: s.underlay, Addr: s.inside, Key: s.key(), Port: port, MTU: 1500 - s.kind.Overhead(),
	}}}
}

// knows adds other nodes' ends.
func (s *site) knows(d desired.Delta, others ...*site) desired.Delta {
	d.EncryptedPeers = map[desired.EncryptedEnd]*desired.EncryptedPeer{}
	for _, o := range others {
		d.EncryptedPeers[desired.EncryptedEnd{Kind: s.kind, Key: o.key()}] = &desired.EncryptedPeer{
			Endpoint: netip.AddrPortFrom(o.underlay, port), Prefixes: []netip.Prefix{o.block},
		}
	}
	return d
}

func (s *site) try(d desired.Delta) (err error) {
	s.tunnels.Want(d)
	s.Do(func() { err = s.tunnels.Apply(context.Background()) })
	return err
}

func (s *site) apply(t testing.TB, d desired.Delta) {
	t.Helper()
	if err := s.try(d); err != nil {
		t.Fatalf("tunnels of node %d: %v", s.n, err)
	}
}

func (s *site) routes(others ...*site) {
	for _, o := range others {
		s.Run("ip", "route", "replace", o.block.String(), "dev", s.kind.Device(), "src", s.inside.String())
	}
}

// reaches waits for one answer.
func (s *site) reaches(t testing.TB, o *site) {
	t.Helper()
	kerneltest.Eventually(t, fmt.Sprintf("node %d reaches node %d", s.n, o.n), func() bool {
		_, err := s.Try("ping", "-c1", "-W1", o.inside.String())
		return err == nil
	})
}

// joined makes nodes that all reach each other.
func joined(t testing.TB, kind desired.TunnelKind, count int) (wire *kerneltest.Namespace, all []*site) {
	t.Helper()
	wire, all = sites(t, kind, count)
	for _, s := range all {
		others := s.others(all)
		s.apply(t, s.knows(s.own(), others...))
		s.routes(others...)
	}
	for _, s := range all {
		for _, o := range s.others(all) {
			s.reaches(t, o)
		}
	}
	return wire, all
}

func (s *site) others(all []*site) (others []*site) {
	for _, o := range all {
		if o != s {
			others = append(others, o)
		}
	}
	return others
}

// bothFamilies runs a test over IPv4 and IPv6.
func bothFamilies(t *testing.T, f func(*testing.T, desired.TunnelKind)) {
	for _, kind := range []desired.TunnelKind{desired.WireGuard4, desired.WireGuard6} {
		t.Run(kind.String(), func(t *testing.T) { f(t, kind) })
	}
}
