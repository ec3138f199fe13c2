package tunnel_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/felix/kernel/route"
	"github.com/koratnet/korat/felix/kernel/tunnel"
)

// site is a node: a namespace with an uplink, a tunnel and a block of addresses.
type site struct {
	*kerneltest.Namespace
	name             string
	underlay, inside netip.Addr
	block            netip.Prefix
	tunnels          *tunnel.Reconciler
	routes           *route.Reconciler
}

// sites makes two nodes in different subnets with a router between them.
func sites(t testing.TB, kind desired.TunnelKind) (a, b *site) {
	t.Helper()
	router := kerneltest.New(t)
	router.Run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
	a, b = &site{name: "a"}, &site{name: "b"}
	for i, s := range []*site{a, b} {
		s.Namespace = kerneltest.New(t)
		leg := "leg" + s.name
		kerneltest.Veth(router, leg, s.Namespace, "eth0")
		router.Up(leg)
		s.Up("eth0")
		addr := func(v4, v6 string) string {
			text := v4
			if kind.Is6() {
				text = v6
			}
			return strings.ReplaceAll(text, "N", string(rune('1'+i)))
		}
		bits := map[bool]string{false: "/24", true: "/64"}[kind.Is6()]
		router.Run("ip", "addr", "add", addr("192.0.N.254", "2001:db8:N::fe")+bits, "dev", leg, "nodad")
		s.underlay, s.inside = netip.MustParseAddr(addr("192.0.N.1", "2001:db8:N::1")), netip.MustParseAddr(addr("10.0.N.1", "fd00:N::1"))
		s.Run("ip", "addr", "add", s.underlay.String()+bits, "dev", "eth0", "nodad")
		s.Run("ip", "route", "add", "default", "via", addr("192.0.N.254", "2001:db8:N::fe"))
		s.block = netip.PrefixFrom(netip.MustParseAddr(addr("10.0.N.0", "fd00:N::")), map[bool]int{false: 26, true: 122}[kind.Is6()])
		s.tunnels = open(t, s.Namespace)
		s.Do(func() {
			var err error
			if s.routes, err = route.New(); err != nil {
				t.Fatal(err)
			}
		})
		t.Cleanup(func() { s.routes.Close() })
		if err := s.routes.Resync(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return a, b
}

func open(t testing.TB, n *kerneltest.Namespace) (r *tunnel.Reconciler) {
	t.Helper()
	n.Do(func() {
		var err error
		if r, err = tunnel.New(); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { r.Close() })
	if err := r.Resync(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r
}

// own is what is desired of the node's own end.
func (s *site) own(kind desired.TunnelKind) desired.Delta {
	return desired.Delta{Complete: true, Learned: true, Tunnels: map[desired.TunnelKind]*desired.TunnelDevice{kind: {
		Kind: kind, Underlay: s.underlay, Addr: s.inside, MAC: kind.MACOf(s.name), MTU: 1500 - kind.Overhead(),
	}}}
}

// knows adds another node's end, and the route to its block.
func knows(d desired.Delta, kind desired.TunnelKind, o *site) desired.Delta {
	gateway := kind.Gateway(o.underlay, o.name)
	d.TunnelPeers = map[desired.TunnelEnd]*desired.TunnelPeer{}
	if kind.Encapsulation() == desired.VXLAN {
		d.TunnelPeers[desired.TunnelEnd{Kind: kind, Gateway: gateway}] = &desired.TunnelPeer{Underlay: o.underlay, MAC: kind.MACOf(o.name)}
	}
	d.Routes = map[netip.Prefix]*desired.Route{o.block: {
		Prefix: o.block, Kind: desired.Tunneled, Interface: kind.Device(), NextHops: []netip.Addr{gateway},
	}}
	return d
}

func (s *site) apply(t testing.TB, d desired.Delta) {
	t.Helper()
	s.tunnels.Want(d)
	if err := s.tunnels.Apply(t.Context()); err != nil {
		t.Fatalf("tunnels of %s: %v", s.name, err)
	}
	s.routes.Want(d)
	if err := s.routes.Apply(t.Context()); err != nil {
		t.Fatalf("routes of %s: %v", s.name, err)
	}
}

// reaches waits for one answer: an underlay of IPv6 that has just come up loses
// packets while its link-local addresses are checked.
func (s *site) reaches(t testing.TB, o *site) {
	t.Helper()
	kerneltest.Eventually(t, s.name+" reaches "+o.name, func() bool {
		_, err := s.Try("ping", "-c1", "-W1", o.inside.String())
		return err == nil
	})
}

// joined makes two sites that reach each other through a tunnel.
func joined(t testing.TB, kind desired.TunnelKind) (a, b *site) {
	t.Helper()
	a, b = sites(t, kind)
	a.apply(t, knows(a.own(kind), kind, b))
	b.apply(t, knows(b.own(kind), kind, a))
	a.reaches(t, b)
	b.reaches(t, a)
	return a, b
}

// overVXLAN runs a test over both families.
func overVXLAN(t *testing.T, f func(*testing.T, desired.TunnelKind)) {
	for _, kind := range []desired.TunnelKind{desired.VXLAN4, desired.VXLAN6} {
		t.Run(kind.String(), func(t *testing.T) { f(t, kind) })
	}
}

func TestItem72NodesReachEachOtherThroughVXLANWithoutAskingOnTheWire(t *testing.T) {
	overVXLAN(t, func(t *testing.T, kind desired.TunnelKind) {
		a, b := joined(t, kind)
		link := a.Link(kind.Device())
		if got := link.Attrs().HardwareAddr.String(); got != kind.MACOf("a").String() {
			t.Errorf("MAC address is %s, want %s", got, kind.MACOf("a"))
		}
		neighbours := a.Run("ip", "neigh", "show", "dev", kind.Device(), "nud", "permanent")
		if want := kind.Gateway(b.underlay, "b").String() + " lladdr " + kind.MACOf("b").String(); !strings.Contains(neighbours, want) {
			t.Errorf("no permanent neighbour %q in:\n%s", want, neighbours)
		}
		entries := a.Run("bridge", "fdb", "show", "dev", kind.Device())
		if want := kind.MACOf("b").String() + " dst " + b.underlay.String() + " self permanent"; !strings.Contains(entries, want) {
			t.Errorf("no forwarding entry %q in:\n%s", want, entries)
		}
		if details := a.Run("ip", "-d", "link", "show", "dev", kind.Device()); !strings.Contains(details, "nolearning") {
			t.Errorf("the interface learns:\n%s", details)
		}
	})
}

func TestASecondInstanceAdoptsWithoutAWrite(t *testing.T) {
	overVXLAN(t, func(t *testing.T, kind desired.TunnelKind) {
		a, b := joined(t, kind)
		m := a.Monitor()
		m.Drain()
		again := open(t, a.Namespace)
		again.Want(knows(a.own(kind), kind, b))
		if err := again.Apply(t.Context()); err != nil {
			t.Fatal(err)
		}
		if changes := m.Changes(); len(changes) > 0 {
			t.Errorf("adopting changed the kernel: %v", changes)
		}
	})
}

func TestWhatOthersBreakIsMended(t *testing.T) {
	overVXLAN(t, func(t *testing.T, kind desired.TunnelKind) {
		a, b := joined(t, kind)
		dev := kind.Device()
		gateway, mac := kind.Gateway(b.underlay, "b").String(), kind.MACOf("b").String()
		for what, command := range map[string]string{
			"the interface is removed":          "ip link del " + dev,
			"the interface is down":             "ip link set " + dev + " down",
			"its MAC address is another":        "ip link set " + dev + " address 02:00:00:00:00:09",
			"its MTU is another":                "ip link set " + dev + " mtu 1300",
			"its address is gone":               "ip addr flush scope global dev " + dev,
			"the neighbour is gone":             "ip neigh del " + gateway + " dev " + dev,
			"the neighbour is another":          "ip neigh replace " + gateway + " lladdr 02:00:00:00:00:09 dev " + dev,
			"the forwarding entry is gone":      "bridge fdb del " + mac + " dev " + dev,
			"the forwarding entry leads astray": "bridge fdb replace " + mac + " dev " + dev + " dst " + a.underlay.String() + " self",
		} {
			t.Run(what, func(t *testing.T) {
				f := strings.Fields(command)
				a.Run(f[0], f[1:]...)
				a.tunnels.LinkChanged(dev)
				a.routes.LinkChanged(dev)
				a.apply(t, desired.Delta{})
				a.reaches(t, b)
				b.reaches(t, a)
				if mtu := a.Link(dev).Attrs().MTU; mtu != 1500-kind.Overhead() {
					t.Errorf("MTU is %d", mtu)
				}
			})
		}
	})
}

func TestWhatIsNotWantedGoesOnceAllIsKnown(t *testing.T) {
	a, b := joined(t, desired.VXLAN4)
	stray := desired.VXLAN4.Gateway(netip.MustParseAddr("192.0.9.9"), "gone").String()
	a.Run("ip", "neigh", "replace", stray, "lladdr", "02:00:00:00:00:09", "dev", "vxlan4-korat", "nud", "permanent")
	again := open(t, a.Namespace)
	d := knows(a.own(desired.VXLAN4), desired.VXLAN4, b)
	d.Complete = false
	mustApply(t, again, d)
	if !strings.Contains(a.Run("ip", "neigh", "show", "dev", "vxlan4-korat"), stray) {
		t.Error("a neighbour went before all was known")
	}
	mustApply(t, again, desired.Delta{Complete: true})
	if strings.Contains(a.Run("ip", "neigh", "show", "dev", "vxlan4-korat"), stray) {
		t.Error("a neighbour that nobody wants stays")
	}
	mustApply(t, open(t, a.Namespace), desired.Delta{})
	a.Link("vxlan4-korat") // ends the test if it is gone
	mustApply(t, open(t, a.Namespace), desired.Delta{Complete: true})
	if out, err := a.Try("ip", "link", "show", "dev", "vxlan4-korat"); err == nil {
		t.Errorf("the interface stays: %s", out)
	}
}

func mustApply(t testing.TB, r *tunnel.Reconciler, d desired.Delta) {
	t.Helper()
	r.Want(d)
	if err := r.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestAnInterfaceThatIsNotOursIsNotTouched(t *testing.T) {
	a, b := sites(t, desired.VXLAN4)
	a.Run("ip", "link", "add", "vxlan4-korat", "type", "vxlan", "id", "7", "dstport", "9999", "dev", "eth0")
	a.tunnels.Want(knows(a.own(desired.VXLAN4), desired.VXLAN4, b))
	if err := a.tunnels.Apply(t.Context()); err == nil || !strings.Contains(err.Error(), "not ours") {
		t.Errorf("Apply: %v", err)
	}
	if err := a.tunnels.State()[desired.VXLAN4]; err == nil {
		t.Error("the tunnel counts as ready")
	}
	mustApply(t, a.tunnels, desired.Delta{Complete: true, Tunnels: map[desired.TunnelKind]*desired.TunnelDevice{desired.VXLAN4: nil}})
	a.Link("vxlan4-korat")
}

// TestItem79ATunnelFollowsTheAddressOfItsNode: of the node itself and of another,
// also where the new address was another node's before.
func TestItem79ATunnelFollowsTheAddressOfItsNode(t *testing.T) {
	a, b := joined(t, desired.VXLAN4)
	before := desired.TunnelEnd{Kind: desired.VXLAN4, Gateway: b.underlay}
	b.Run("ip", "addr", "add", "192.0.2.77/24", "dev", "eth0")
	b.underlay = netip.MustParseAddr("192.0.2.77")
	b.apply(t, b.own(desired.VXLAN4))
	d := knows(desired.Delta{}, desired.VXLAN4, b)
	d.TunnelPeers[before] = &desired.TunnelPeer{Underlay: before.Gateway, MAC: desired.VXLAN4.MACOf("c")}
	a.apply(t, d)
	b.apply(t, knows(desired.Delta{}, desired.VXLAN4, a))
	b.routes.LinkChanged("vxlan4-korat")
	b.apply(t, desired.Delta{})
	a.reaches(t, b)
	want := []string{desired.VXLAN4.MACOf("b").String() + " dst 192.0.2.77 self permanent", desired.VXLAN4.MACOf("c").String() + " dst 192.0.2.1 self permanent"}
	for _, entry := range want {
		if out := a.Run("bridge", "fdb", "show", "dev", "vxlan4-korat"); !strings.Contains(out, entry) {
			t.Errorf("no %q in:\n%s", entry, out)
		}
	}
}

func TestRoutesThroughTunnelsAreAdoptedAndReplacedInOneStep(t *testing.T) {
	overVXLAN(t, func(t *testing.T, kind desired.TunnelKind) {
		a, b := joined(t, kind)
		m := a.Monitor()
		m.Drain()
		if err := a.routes.Resync(t.Context()); err != nil {
			t.Fatal(err)
		}
		a.apply(t, knows(desired.Delta{}, kind, b))
		if changes := m.Changes(); len(changes) > 0 {
			t.Errorf("what is as wanted was written: %v", changes)
		}
		gateway := strings.Fields(a.Run("ip", "route", "show", "default"))
		if kind.Is6() {
			gateway = strings.Fields(a.Run("ip", "-6", "route", "show", "default"))
		}
		plain := &desired.Route{Prefix: b.block, Kind: desired.Via, NextHops: []netip.Addr{netip.MustParseAddr(gateway[2])}}
		a.apply(t, desired.Delta{Routes: map[netip.Prefix]*desired.Route{b.block: plain}})
		a.apply(t, knows(desired.Delta{}, kind, b))
		if diff := cmp.Diff(false, strings.Contains(strings.Join(m.Changes(), ","), "delroute")); diff != "" {
			t.Error("the route was gone on the way")
		}
		a.reaches(t, b)
	})
}
