package iptables

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/ipset"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// world is a node with two pods, and a host outside behind the node. The node's
// own policy is to drop, so that only what we accept gets through.
type world struct {
	t       testing.TB
	host    *kerneltest.Namespace
	flavour Flavour
	walls   []*Firewall
	sites   map[string]*site
	src     uint16 // the last source port that was used
	sets    *ipset.Sets
}

// site is a place that sends and receives.
type site struct {
	*wire
	ns    *kerneltest.Namespace
	iface string // of a pod, on the host
	addrs map[bool]netip.Addr
}

const routerMAC = "ee:ee:ee:ee:ee:ee"

func newWorld(t testing.TB, flavour Flavour) *world {
	t.Helper()
	w := &world{t: t, flavour: flavour, host: kerneltest.New(t), sites: map[string]*site{}}
	// The lock of legacy is one for all namespaces: others on this machine that
	// hold it for seconds are none of the test's concern.
	t.Setenv("XTABLES_LOCKFILE", filepath.Join(t.TempDir(), "xtables.lock"))
	for _, s := range []string{"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"} {
		w.host.Run("sysctl", "-qw", s+"=1")
	}
	w.sites["host"] = &site{ns: w.host, addrs: addrs("192.168.7.1", "fd07::1")}
	w.attach("a", desired.HostInterface("test", "a"), addrs("10.1.0.2", "fd01::2"))
	w.attach("b", desired.HostInterface("test", "b"), addrs("10.1.0.3", "fd01::3"))
	w.attach("outside", "eth0", addrs("192.168.7.9", "fd07::9"))
	for _, a := range []string{"192.168.7.1/32", "fd07::1/128"} {
		w.host.Run("ip", "addr", "add", a, "dev", "lo")
	}
	w.awaitAddress(w.sites["host"])
	for _, s := range w.sites {
		s.wire = newWire(t, s.ns)
	}
	w.openSets()
	w.restarted()
	for _, f := range families {
		for _, c := range []string{"INPUT", "FORWARD"} {
			w.iptables(f, "", "-P", c, "DROP")
		}
	}
	return w
}

func addrs(v4, v6 string) map[bool]netip.Addr {
	return map[bool]netip.Addr{false: netip.MustParseAddr(v4), true: netip.MustParseAddr(v6)}
}

// attach joins a site to the host, with fixed neighbours, so that nothing but
// the test's packets is on the wire.
func (w *world) attach(name, iface string, addrs map[bool]netip.Addr) {
	w.t.Helper()
	s := &site{iface: iface, addrs: addrs, ns: kerneltest.Pod(w.host, iface)}
	w.host.Run("ip", "link", "set", iface, "address", routerMAC)
	kerneltest.Eventually(w.t, "link "+iface+" up", func() bool { // until then it eats packets
		return w.host.Link(iface).Attrs().OperState == netlink.OperUp && s.ns.Link("eth0").Attrs().OperState == netlink.OperUp
	})
	mac := s.ns.Link("eth0").Attrs().HardwareAddr.String()
	for is6, gw := range map[bool]string{false: "169.254.1.1", true: "fe80::ecee:eeff:feee:eeee"} {
		a := addrs[is6]
		full := fmt.Sprintf("%s/%d", a, a.BitLen())
		args := []string{"addr", "add", full, "dev", "eth0"}
		if is6 {
			args = append(args, "nodad")
		}
		s.ns.Run("ip", args...)
		s.ns.Run("ip", "neigh", "replace", gw, "lladdr", routerMAC, "dev", "eth0", "nud", "permanent")
		if !is6 {
			s.ns.Run("ip", "route", "add", gw, "dev", "eth0", "scope", "link")
		}
		s.ns.Run("ip", "route", "add", "default", "via", gw, "dev", "eth0")
		w.host.Run("ip", "route", "add", full, "dev", iface)
		w.host.Run("ip", "neigh", "replace", a.String(), "lladdr", mac, "dev", iface, "nud", "permanent")
	}
	w.awaitAddress(s)
	w.sites[name] = s
}

// awaitAddress waits until a site takes in packets to its IPv6 address: the
// kernel makes the address known at once and its route in a worker, also where
// it looks for no duplicates.
func (w *world) awaitAddress(s *site) {
	w.t.Helper()
	kerneltest.Eventually(w.t, "route of an own address", func() bool {
		return s.ns.Run("ip", "-6", "route", "show", "table", "local", s.addrs[true].String()) != ""
	})
}

// iptables runs iptables in the flavour of the world.
func (w *world) iptables(f ir.Family, suffix string, args ...string) string {
	w.t.Helper()
	path, err := tool{f, w.flavour}.path(suffix)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.host.Run(path, args...)
}

// apply makes the kernel as wanted.
func (w *world) apply(d desired.Delta) {
	w.t.Helper()
	for _, f := range w.walls {
		f.Want(d)
		w.host.Do(func() {
			if err := f.Apply(w.t.Context()); err != nil {
				w.t.Fatalf("%s: %v", f.Name(), err)
			}
		})
		if closed := f.Closed(); len(closed) > 0 {
			w.t.Fatalf("%s: closed after Apply: %v", f.Name(), closed)
		}
	}
}

// endpoint returns a pod's endpoint that lets everything through.
func (w *world) endpoint(pod string) *desired.Endpoint {
	s := w.sites[pod]
	open := ir.Chain{Default: policy.Allow}
	return &desired.Endpoint{
		Interface: s.iface, Pod: "test/" + pod, Ingress: open, Egress: open,
		Addrs: []netip.Addr{s.addrs[false], s.addrs[true]},
	}
}

// open is the Delta with which everything passes.
func (w *world) open() desired.Delta {
	d := desired.Delta{Complete: true, Endpoints: map[string]*desired.Endpoint{}}
	for _, pod := range []string{"a", "b"} {
		e := w.endpoint(pod)
		d.Endpoints[e.Interface] = e
	}
	return d
}

// firstSrc is the first source port of fresh packets.
const firstSrc = 10000

// fresh returns a packet of a new connection.
func (w *world) fresh(from, to string, is6 bool, proto policy.Protocol, port uint16) packet {
	if w.src++; w.src < firstSrc {
		w.src = firstSrc
	}
	return packet{from: w.sites[from].addrs[is6], to: w.sites[to].addrs[is6], proto: proto, src: w.src, dst: port}
}

// shot is a packet on its way from one site to another.
type shot struct {
	from, to string
	packet
}

func (s shot) String() string { return s.from + " -> " + s.to + ": " + s.packet.String() }

const markerPort = 9

// marker is the packet, of a connection that is open since before the rules,
// behind which all earlier packets of the same way have arrived or are lost.
func (w *world) marker(from, to string, is6 bool) shot {
	return shot{from, to, packet{from: w.sites[from].addrs[is6], to: w.sites[to].addrs[is6], proto: policy.UDP, src: markerPort, dst: markerPort}}
}

// ways are all pairs of sites between which packets are sent.
var ways = [][2]string{{"a", "b"}, {"b", "a"}, {"a", "host"}, {"host", "a"}, {"a", "outside"}, {"outside", "b"}}

// openMarkers begins the markers' connections; the rules must let them.
func (w *world) openMarkers() {
	w.t.Helper()
	for _, way := range ways {
		for _, is6 := range []bool{false, true} {
			for _, m := range []shot{w.marker(way[0], way[1], is6), w.marker(way[1], way[0], is6)} {
				w.sites[m.from].transmit(m.packet)
				w.await(m, map[string]map[key]bool{})
			}
		}
	}
}

// await collects what arrives until m has, and with it all that was before it.
func (w *world) await(m shot, got map[string]map[key]bool) {
	w.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; runtime.Gosched() {
		w.collect(got)
		if got[m.to][m.key()] {
			// Some sites were looked at before m arrived: what was delivered to them
			// between has been overlooked so far.
			w.collect(got)
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("marker lost: %s", m)
		}
	}
}

// collect adds to got what has arrived at every site.
func (w *world) collect(got map[string]map[key]bool) {
	w.t.Helper()
	for name, s := range w.sites {
		if got[name] == nil {
			got[name] = map[key]bool{}
		}
		for k := range s.drain() {
			got[name][k] = true
		}
	}
}

// fire sends all shots and returns whether each arrived.
func (w *world) fire(shots []shot) []bool {
	w.t.Helper()
	ends := map[shot]bool{}
	for _, s := range shots {
		w.sites[s.from].transmit(s.packet)
		ends[w.marker(s.from, s.to, s.packet.to.Is6())] = true
	}
	got := map[string]map[key]bool{}
	for m := range ends {
		w.sites[m.from].transmit(m.packet)
		w.await(m, got)
	}
	arrived := make([]bool, len(shots))
	for i, s := range shots {
		arrived[i] = got[s.to][s.key()]
	}
	return arrived
}

// oneCPU keeps the test's packets in order: what is sent on one CPU is forwarded
// and delivered by it, one packet after the other.
func oneCPU(t testing.TB) {
	t.Helper()
	runtime.LockOSThread() // without Unlock: the runtime ends the thread
	var set unix.CPUSet
	set.Set(0)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		t.Fatalf("stay on one CPU: %v", err)
	}
}
