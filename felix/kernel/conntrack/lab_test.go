package conntrack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/koratnet/korat/felix/apply"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/iptables"
	"github.com/koratnet/korat/felix/kernel/ipset"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/felix/nft"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// lab is a node with the pods a and b, and a host outside, over both families.
// Its rules are those of the real data plane.
type lab struct {
	t         *testing.T
	host      *kerneltest.Namespace
	sites     map[string]*site
	before    []apply.Reconciler // that stand before ours
	flusher   *Flusher
	rechecker *Rechecker
	closed    map[string]error
}

type site struct {
	ns    *kerneltest.Namespace
	iface string
	addrs []netip.Addr // IPv4, IPv6
}

func newLab(t *testing.T, recheck bool) *lab {
	t.Helper()
	return newLabOver(t, overNFT, recheck)
}

// plane makes the reconcilers of a data plane, on a thread in its namespace.
type plane func(*testing.T) []apply.Reconciler

func overNFT(t *testing.T) []apply.Reconciler {
	wall, err := nft.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { wall.Close() })
	return []apply.Reconciler{wall}
}

func overIPTables(t *testing.T) []apply.Reconciler {
	sets, err := ipset.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sets.Close() })
	parts := []apply.Reconciler{ipset.Adder{Sets: sets}}
	for _, f := range []ir.Family{ir.IPv4, ir.IPv6} {
		parts = append(parts, iptables.New(iptables.Config{Family: f, Flavour: iptables.NFT, Log: slog.New(slog.DiscardHandler)}))
	}
	return parts
}

func newLabOver(t *testing.T, over plane, recheck bool) *lab {
	t.Helper()
	l := &lab{t: t, host: kerneltest.New(t), sites: map[string]*site{}}
	t.Setenv("XTABLES_LOCKFILE", filepath.Join(t.TempDir(), "xtables.lock"))
	for _, s := range []string{"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"} {
		l.host.Run("sysctl", "-qw", s+"=1")
	}
	l.attach("a", "kora", "10.1.0.2", "fd01::2")
	l.attach("b", "korb", "10.1.0.3", "fd01::3")
	l.attach("outside", "eth0", "192.168.7.9", "fd07::9")
	l.host.Do(func() {
		l.before = over(t)
		for _, r := range l.before {
			if err := r.Resync(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		var err error
		if l.flusher, err = NewFlusher(); err == nil {
			l.rechecker, err = NewRechecker(slog.New(slog.DiscardHandler))
		}
		if err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() {
		if err := errors.Join(l.flusher.Close(), l.rechecker.Close()); err != nil {
			t.Error(err)
		}
	})
	settings := desired.DefaultSettings()
	settings.Recheck = recheck
	l.apply(desired.Delta{
		Settings: &settings, Complete: true, Learned: true,
		Endpoints: map[string]*desired.Endpoint{"kora": l.endpoint("a", allAllowed, allAllowed), "korb": l.endpoint("b", allAllowed, allAllowed)},
	})
	return l
}

// attach joins a site to the node; the node answers for everybody.
func (l *lab) attach(name, iface, v4, v6 string) {
	l.t.Helper()
	s := &site{iface: iface, ns: kerneltest.Pod(l.host, iface), addrs: []netip.Addr{netip.MustParseAddr(v4), netip.MustParseAddr(v6)}}
	l.host.Run("ip", "link", "set", iface, "address", "ee:ee:ee:ee:ee:ee")
	l.host.Run("sysctl", "-qw", "net.ipv4.conf."+iface+".proxy_arp=1")
	kerneltest.Eventually(l.t, "link "+iface+" up", func() bool {
		return l.host.Link(iface).Attrs().OperState == netlink.OperUp && s.ns.Link("eth0").Attrs().OperState == netlink.OperUp
	})
	mac := s.ns.Link("eth0").Attrs().HardwareAddr.String()
	for i, gw := range []string{"169.254.1.1", "fe80::ecee:eeff:feee:eeee"} {
		full := fmt.Sprintf("%s/%d", s.addrs[i], s.addrs[i].BitLen())
		args := []string{"addr", "add", full, "dev", "eth0"}
		if i == 1 {
			args = append(args, "nodad")
		}
		s.ns.Run("ip", args...)
		s.ns.Run("ip", "neigh", "replace", gw, "lladdr", "ee:ee:ee:ee:ee:ee", "dev", "eth0", "nud", "permanent")
		s.ns.Run("ip", "route", "add", gw, "dev", "eth0")
		s.ns.Run("ip", "route", "add", "default", "via", gw, "dev", "eth0")
		l.host.Run("ip", "route", "add", full, "dev", iface)
		l.host.Run("ip", "neigh", "replace", s.addrs[i].String(), "lladdr", mac, "dev", iface, "nud", "permanent")
	}
	kerneltest.Eventually(l.t, "route of an own address", func() bool {
		return s.ns.Run("ip", "-6", "route", "show", "table", "local", v6) != ""
	})
	l.sites[name] = s
}

var (
	allAllowed = ir.Chain{Default: policy.Allow}
	allDenied  = ir.Chain{Default: policy.Deny}
)

func (l *lab) endpoint(name string, ingress, egress ir.Chain) *desired.Endpoint {
	s := l.sites[name]
	return &desired.Endpoint{Interface: s.iface, Pod: "shop/" + name, Addrs: s.addrs, Ingress: ingress, Egress: egress}
}

// want makes one endpoint what it is to be.
func (l *lab) want(name string, ingress, egress ir.Chain) {
	l.t.Helper()
	l.apply(desired.Delta{Endpoints: map[string]*desired.Endpoint{l.sites[name].iface: l.endpoint(name, ingress, egress)}})
}

// apply brings d to the kernel, in the order of the agent.
func (l *lab) apply(d desired.Delta) {
	l.t.Helper()
	l.host.Do(func() {
		for _, r := range append(slices.Clone(l.before), l.flusher, l.rechecker) {
			r.Want(d)
		}
		l.rechecker.Withhold(l.closed)
		for _, r := range append(slices.Clone(l.before), l.flusher, l.rechecker) {
			if err := r.Apply(context.Background()); err != nil {
				l.t.Fatalf("%s: %v", r.Name(), err)
			}
		}
	})
}

// entries lists the connections that the node knows with an address.
func (l *lab) entries(a netip.Addr) (all []entry) {
	l.t.Helper()
	_, err := l.rechecker.table.purge(nil, func(e *entry) bool {
		if slices.Contains([]netip.Addr{e.orig.src, e.orig.dst, e.reply.src, e.reply.dst}, a) {
			all = append(all, *e)
		}
		return false
	})
	if err != nil {
		l.t.Fatal(err)
	}
	return all
}

// flow is a connection between two sites, over TCP or UDP.
type flow struct {
	t              *testing.T
	client, server net.Conn
}

// connect opens a connection; the name of its protocol is as of net.Dial.
func (l *lab) connect(from, to, protocol string, v6 bool) *flow {
	l.t.Helper()
	return l.connectTo(from, to, protocol, l.sites[to].addrs[family(v6)], 0)
}

func family(v6 bool) int {
	if v6 {
		return 1
	}
	return 0
}

// connectTo is connect to an address and port that lead to a site; port 0 is the
// one that it serves on.
func (l *lab) connectTo(from, to, protocol string, addr netip.Addr, port int) *flow {
	l.t.Helper()
	f := &flow{t: l.t}
	s := l.sites[to]
	own := s.addrs[family(addr.Is6())]
	accepted := make(chan net.Conn, 1)
	s.ns.Do(func() {
		listen := net.JoinHostPort(own.String(), "8080")
		if protocol == "udp" {
			c, err := net.ListenPacket("udp", listen)
			if err != nil {
				l.t.Fatal(err)
			}
			l.t.Cleanup(func() { c.Close() })
			accepted <- &answerer{PacketConn: c}
			return
		}
		ear, err := net.Listen("tcp", listen)
		if err != nil {
			l.t.Fatal(err)
		}
		go func() {
			defer ear.Close()
			if c, err := ear.Accept(); err == nil {
				accepted <- c
			}
		}()
		l.t.Cleanup(func() { ear.Close() })
	})
	if port == 0 {
		port = 8080
	}
	l.sites[from].ns.Do(func() {
		c, err := net.DialTimeout(protocol, net.JoinHostPort(addr.String(), strconv.Itoa(port)), 5*time.Second)
		if err != nil {
			l.t.Fatal(err)
		}
		f.client = c
	})
	f.server = <-accepted
	l.t.Cleanup(func() { f.client.Close(); f.server.Close() })
	if !f.asks() || !f.tells() {
		l.t.Fatalf("%s from %s to %s does not work from the start", protocol, from, to)
	}
	return f
}

// answerer is the server's side of a flow over UDP.
type answerer struct {
	net.PacketConn
	peer net.Addr
}

func (a *answerer) Read(b []byte) (n int, err error) {
	n, a.peer, err = a.ReadFrom(b)
	return n, err
}

func (a *answerer) Write(b []byte) (int, error) { return a.WriteTo(b, a.peer) }
func (a *answerer) RemoteAddr() net.Addr        { return a.peer }

// patience is how long a packet may take that is to arrive, and how long one is
// waited for that is not to.
const patience = 300 * time.Millisecond

// asks reports whether what the client says arrives, tells the same of the server.
func (f *flow) asks() bool  { return passes(f.t, f.client, f.server) }
func (f *flow) tells() bool { return passes(f.t, f.server, f.client) }

func passes(t *testing.T, from, to net.Conn) bool {
	t.Helper()
	if _, err := from.Write([]byte("!")); err != nil {
		return false
	}
	if err := to.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	_, err := to.Read(make([]byte, 1))
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, io.EOF) {
		t.Logf("read: %v", err)
	}
	return err == nil
}
