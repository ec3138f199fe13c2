package dataplanetest

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/policy/eval"
)

// world is a node and what is around it; see the package.
type world struct {
	t       testing.TB
	backend Backend
	node    *kerneltest.Namespace
	plane   *plane
	clock   *clock
	sites   map[string]*site
	wires   []*wire
	lastID  uint32
	used    map[uint16]bool // source ports
}

// site is an address that sends and receives, of either family.
type site struct {
	name  string
	iface string // of the node, that leads to it; "" is the node itself
	addrs map[bool]netip.Addr
	ns    *kerneltest.Namespace
	*wire
}

// pods are the sites that are pods of the node.
var pods = []string{"a", "b", "c"}

// uplinks are the interfaces of the node that lead to others, with what is there.
var uplinks = map[string][]string{"eth0": {"out0", "node0", "rem0"}, "eth1": {"out1", "node1", "rem1"}}

// siteAddrs are the addresses of all sites. host and host1 are the node's own at
// its two uplinks.
var siteAddrs = map[string][2]string{
	"a": {"10.1.0.2", "fd01::2"}, "b": {"10.1.0.3", "fd01::3"}, "c": {"10.1.0.4", "fd01::4"},
	"host": {"192.168.7.1", "fd07::1"}, "host1": {"192.168.8.1", "fd08::1"},
	"out0": {"192.168.7.9", "fd07::9"}, "node0": {"192.168.7.2", "fd07::2"}, "rem0": {"10.1.1.2", "fd01:1::2"},
	"out1": {"192.168.8.9", "fd08::9"}, "node1": {"192.168.8.3", "fd08::3"}, "rem1": {"10.1.2.2", "fd01:2::2"},
	// What other nodes are inside of tunnels, where a test attaches them.
	"enc4": {"192.168.7.21", "fd07::21"}, "odd4": {"192.168.7.22", "fd07::22"}, "enc6": {"192.168.7.23", "fd07::23"}, "odd6": {"192.168.7.24", "fd07::24"},
	"vx4": {"192.168.7.25", "fd07::25"}, "vx6": {"192.168.7.26", "fd07::26"}, "ipip4": {"192.168.7.27", "fd07::27"},
}

// addrsOf returns both addresses of a site.
func addrsOf(name string) []netip.Addr {
	return []netip.Addr{netip.MustParseAddr(siteAddrs[name][0]), netip.MustParseAddr(siteAddrs[name][1])}
}

// The router of every pod and of everybody outside is the node, with one address
// and one MAC on all its interfaces.
const routerMAC = "ee:ee:ee:ee:ee:ee"

var routerAddrs = map[bool]string{false: "169.254.1.1", true: "fe80::ecee:eeff:feee:eeee"}

var bothFamilies = []bool{false, true}

// newWorld makes a world in which the backend has not been started.
func newWorld(t testing.TB, b Backend) *world {
	t.Helper()
	w := &world{t: t, backend: b, node: kerneltest.New(t), clock: newClock(t), sites: map[string]*site{}, used: map[uint16]bool{}}
	w.node.Run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1",
		"net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0",
		"net.netfilter.nf_conntrack_udp_timeout=600") // a busy machine may take half a minute to answer
	for _, pod := range pods {
		w.attach(desired.HostInterface("test", pod), []string{pod}, nil)
	}
	w.attach("eth0", uplinks["eth0"], addrsOf("host"))
	w.attach("eth1", uplinks["eth1"], addrsOf("host1"))
	// What nobody else is for goes out by eth0, to a router whose MAC is all that
	// is known of it.
	mac := w.sites["out0"].ns.Link("eth0").Attrs().HardwareAddr.String()
	for _, is6 := range bothFamilies {
		gw := map[bool]string{false: "192.0.2.1", true: "fe80::1"}[is6]
		w.node.Run("ip", "neigh", "replace", gw, "lladdr", mac, "dev", "eth0", "nud", "permanent")
		args := []string{"route", "add", "default", "via", gw, "dev", "eth0", "onlink"}
		if is6 {
			args = append([]string{"-6"}, args...)
		}
		w.node.Run("ip", args...)
	}
	nodeWire := newNodeWire(t, w.node)
	w.wires = append(w.wires, nodeWire)
	for _, name := range []string{"host", "host1"} {
		w.sites[name] = &site{name: name, ns: w.node, wire: nodeWire, addrs: byFamily(name)}
	}
	w.translate()
	return w
}

func byFamily(name string) map[bool]netip.Addr {
	out := map[bool]netip.Addr{}
	for _, a := range addrsOf(name) {
		out[a.Is6()] = a
	}
	return out
}

// attach joins a namespace with some sites to the node, with fixed neighbours, so
// that nothing but the test's packets is on the wire. Its kernel takes nothing in:
// that would only answer.
func (w *world) attach(iface string, names []string, own []netip.Addr) {
	w.t.Helper()
	ns := kerneltest.Pod(w.node, iface)
	w.node.Run("ip", "link", "set", iface, "address", routerMAC)
	kerneltest.Eventually(w.t, "link "+iface+" up", func() bool { return up(w.node, iface) && up(ns, "eth0") })
	for _, a := range own {
		w.node.Run("ip", "addr", "add", full(a), "dev", iface, "nodad")
	}
	mac := ns.Link("eth0").Attrs().HardwareAddr.String()
	for _, gw := range routerAddrs {
		ns.Run("ip", "neigh", "replace", gw, "lladdr", routerMAC, "dev", "eth0", "nud", "permanent")
	}
	ns.Run("ip", "route", "add", routerAddrs[false], "dev", "eth0", "scope", "link")
	for i, name := range names {
		for _, a := range addrsOf(name) {
			ns.Run("ip", "addr", "add", full(a), "dev", "eth0", "nodad")
			w.node.Run("ip", "route", "add", full(a), "dev", iface)
			w.node.Run("ip", "neigh", "replace", a.String(), "lladdr", mac, "dev", iface, "nud", "permanent")
			if i == 0 {
				ns.Run("ip", "route", "add", "default", "via", routerAddrs[a.Is6()], "dev", "eth0")
			}
		}
	}
	ns.Run("nft", "add table inet quiet; add chain inet quiet in { type filter hook input priority 0; policy drop; }")
	wire := newWire(w.t, ns)
	w.wires = append(w.wires, wire)
	for _, name := range names {
		w.sites[name] = &site{name: name, iface: iface, ns: ns, wire: wire, addrs: byFamily(name)}
	}
	for _, a := range own {
		if a.Is6() {
			w.awaitLocal(a)
		}
	}
}

// awaitLocal waits until the node takes in packets to its IPv6 address: the
// kernel makes an address known at once and its route in a worker.
func (w *world) awaitLocal(a netip.Addr) {
	w.t.Helper()
	kerneltest.Eventually(w.t, "route of an own address", func() bool {
		return w.node.Run("ip", "-6", "route", "show", "table", "local", a.String()) != ""
	})
}

func full(a netip.Addr) string { return fmt.Sprintf("%s/%d", a, a.BitLen()) }

// begin starts the backend.
func (w *world) begin() {
	w.t.Helper()
	var err error
	w.plane, err = w.backend.start(w.node)
	w.must(err)
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// apply makes the kernel as wanted.
func (w *world) apply(d desired.Delta) {
	w.t.Helper()
	w.must(w.plane.want(w.t.Context(), d))
}

// shot is a packet on its way between two sites.
type shot struct {
	from, to *site // to is where it arrives
	packet
	before netip.AddrPort // the destination it is sent to, where that is translated
	// beforeOut is by which interface the node would have sent it there.
	beforeOut string
}

func (s shot) String() string {
	text := fmt.Sprintf("%s -> %s: %s", s.from.name, s.to.name, s.packet)
	if s.before.IsValid() {
		text += " by way of " + s.before.String()
	}
	return text
}

// way is how policy/eval knows a shot.
func (s shot) way() eval.Way {
	return eval.Way{In: s.from.iface, Out: s.to.iface, Packet: s.Packet, Before: s.before, BeforeOut: s.beforeOut}
}

// sent is the packet as its sender makes it.
func (s shot) sent() packet {
	p := s.packet
	if s.before.IsValid() {
		p.Dst, p.DstPort = s.before.Addr(), s.before.Port()
	}
	return p
}

// fire sends all shots and returns what arrived, by id, and where.
func (w *world) fire(shots []shot) map[uint32]arrival {
	w.t.Helper()
	for _, s := range shots {
		s.from.transmit(s.sent())
	}
	w.clock.settle()
	return w.arrived()
}

// arrived returns what has arrived anywhere since the last time.
func (w *world) arrived() map[uint32]arrival {
	w.t.Helper()
	got := map[uint32]arrival{}
	for _, wire := range w.wires {
		wire.drain(func(b []byte) {
			if a, ok := parse(b); ok {
				a.at = wire
				got[a.id] = a
			}
		})
	}
	return got
}

// firstSrc is the first source port of packets.
const firstSrc = 10000

// numbered gives a packet an id, and the port that it wants or the next that no
// packet had before, as long as there are any.
func (w *world) numbered(p eval.Packet) packet {
	w.lastID++
	if len(w.used) > 50_000 || len(w.used) == 0 {
		w.freePorts()
	}
	if p.Protocol.HasPorts() {
		p.SrcPort = max(p.SrcPort, firstSrc)
		for w.used[p.SrcPort] {
			p.SrcPort = max(p.SrcPort+1, firstSrc)
		}
		w.used[p.SrcPort] = true
	}
	return packet{p, w.lastID}
}

// freePorts lets all ports be used again, but for those from which the node
// itself answers.
func (w *world) freePorts() {
	clear(w.used)
	for i := range services {
		w.used[uint16(firstNode+i)] = true
	}
}

// expect fires one shot and checks whether it arrives.
func (w *world) expect(arrives bool, s shot) {
	w.t.Helper()
	if _, got := w.fire([]shot{s})[s.id]; got != arrives {
		w.t.Errorf("%s: arrived: %v, want %v", s, got, arrives)
	}
}
