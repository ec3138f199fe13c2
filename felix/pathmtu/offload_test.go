package pathmtu

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
)

// tunneled joins two nodes by a cable and a tunnel made by hand, and returns the
// second one as a peer of the first.
func tunneled(t *testing.T, kind desired.TunnelKind) (near, far *kerneltest.Namespace, source netip.Addr, peer Peer) {
	t.Helper()
	near, far = kerneltest.New(t), kerneltest.New(t)
	kerneltest.Veth(near, "eth0", far, "eth0")
	pattern, bits, family := "192.0.2.%d", 24, "-4"
	if kind.Is6() {
		pattern, bits, family = "2001:db8::%d", 64, "-6"
	}
	under := func(n int) string { return fmt.Sprintf(pattern, n) }
	for i, n := range []*kerneltest.Namespace{near, far} {
		own, other, dev := under(i+1), under(2-i), kind.Device()
		n.Up("eth0")
		n.Run("ip", "addr", "add", fmt.Sprintf("%s/%d", own, bits), "dev", "eth0", "nodad")
		gateway, mac := kind.Gateway(netip.MustParseAddr(other), other).String(), kind.MACOf(other).String()
		if kind == desired.IPIP4 {
			n.Run("ip", "link", "add", dev, "mtu", "1400", "type", "ipip", "local", own)
			n.Up(dev)
		} else {
			n.Run("ip", "link", "add", dev, "address", kind.MACOf(own).String(), "mtu", "1400", "type", "vxlan", "id", "7", "dstport", "4789", "local", own, "nolearning")
			n.Up(dev)
			n.Run("ip", "neigh", "add", gateway, "lladdr", mac, "dev", dev, "nud", "permanent")
			n.Run("bridge", "fdb", "add", mac, "dev", dev, "dst", other, "self", "permanent")
		}
		n.Run("sysctl", "-qw", "net.ipv4.conf."+dev+".rp_filter=2")
		if !kind.Is6() {
			n.Run("ip", "addr", "add", fmt.Sprintf("10.0.0.%d/32", i+1), "dev", dev)
			n.Run("ip", family, "route", "add", fmt.Sprintf("10.0.0.%d/32", 2-i), "via", gateway, "dev", dev, "onlink")
		}
	}
	source = netip.MustParseAddr("10.0.0.1")
	if kind.Is6() {
		source = kind.MACOf(under(1)).LinkLocal()
		kerneltest.Eventually(t, "an address that may be used", func() bool {
			return !strings.Contains(near.Run("ip", "-6", "addr", "show", "dev", kind.Device())+far.Run("ip", "-6", "addr", "show", "dev", kind.Device()), "tentative")
		})
	}
	gateway := kind.Gateway(netip.MustParseAddr(under(2)), under(2))
	peer = Peer{Node: "far", Addr: gateway, MTU: 1400, Tunnel: kind.Device(), Offloads: true}
	if kind.Encapsulation() == desired.VXLAN {
		peer.MAC = kind.MACOf(under(2))
	}
	return near, far, source, peer
}

// unsummed is what the kernel writes where the checksum of a datagram is to be: the sum
// of the addresses, the protocol and the length, for the device to go on from.
func unsummed(source, to netip.Addr, length int) uint16 {
	b := append(source.AsSlice(), to.AsSlice()...)
	b = binary.BigEndian.AppendUint16(append(b, 0, 17), uint16(length))
	return ^checksum(b)
}

// spoils makes a node lose the packets in tunnels that have one of these sums: what
// arrives of unfinished packets when a device sends them as they are.
func spoils(n *kerneltest.Namespace, kind desired.TunnelKind, sums ...uint16) {
	header := 20
	if kind.Is6() {
		header = 40
	}
	n.Run("nft", "add table inet spoils")
	n.Run("nft", "add chain inet spoils in { type filter hook prerouting priority -300; }")
	for _, sum := range sums {
		// The headers of UDP, VXLAN, Ethernet and IP, and the first three fields of UDP.
		n.Run("nft", fmt.Sprintf("add rule inet spoils in udp dport 4789 @th,%d,16 %#x counter drop", 8*(8+8+14+header+6), sum))
	}
}

func overVXLAN(t *testing.T, f func(*testing.T, desired.TunnelKind)) {
	for _, kind := range []desired.TunnelKind{desired.VXLAN4, desired.VXLAN6} {
		t.Run(kind.String(), func(t *testing.T) { f(t, kind) })
	}
}

// proberOf returns a Prober of a node that hears.
func proberOf(t *testing.T, n *kerneltest.Namespace, peers ...Peer) (p *Prober) {
	t.Helper()
	var err error
	n.Do(func() { p, err = New(func() []Peer { return peers }, func(Offload) {}) })
	if err != nil {
		t.Fatal(err)
	}
	heard := make(chan struct{}, len(p.wire.conns))
	for is6 := range p.wire.conns {
		go func() { p.wire.listen(is6); heard <- struct{}{} }()
	}
	t.Cleanup(func() {
		p.wire.close()
		for range p.wire.conns {
			<-heard
		}
	})
	return p
}

// eventuallySaid tries, from within the node, until the summary is good.
func eventuallySaid(t *testing.T, n *kerneltest.Namespace, p *Prober, what string, good func(Summary) bool) {
	t.Helper()
	deadline := time.Now().Add(3 * time.Minute)
	for {
		n.Do(func() { p.round(t.Context(), 200*time.Millisecond) })
		s := p.Summary()
		if good(s) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: the summary is %+v", what, s)
		}
	}
}

func TestUnfinishedPacketsArriveWhereDevicesFinishThem(t *testing.T) {
	overVXLAN(t, func(t *testing.T, kind desired.TunnelKind) {
		near, _, _, peer := tunneled(t, kind)
		p := proberOf(t, near, peer)
		eventuallySaid(t, near, p, "a good device", func(s Summary) bool {
			return s.Clear == 1 && len(s.Offloads) == 1 && s.Offloads[0] == Offload{Tunnel: kind.Device(), Intact: 1}
		})
	})
}

func TestADeviceThatMakesNoChecksumsIsFoundOut(t *testing.T) {
	overVXLAN(t, func(t *testing.T, kind desired.TunnelKind) {
		near, far, source, peer := tunneled(t, kind)
		spoils(far, kind, unsummed(source, peer.Addr, 8+segment), unsummed(source, peer.Addr, 8+segments*segment))
		p := proberOf(t, near, peer)
		bad := Offload{Tunnel: kind.Device(), Node: "far"}
		eventuallySaid(t, near, p, "a bad device", func(s Summary) bool {
			return s.Clear == 1 && len(s.Offloads) == 1 && s.Offloads[0] == bad
		})
		far.Run("nft", "delete table inet spoils")
		eventuallySaid(t, near, p, "a mended device", func(s Summary) bool {
			return len(s.Offloads) == 1 && s.Offloads[0].Intact == 1
		})
	})
}

// TestWhoAnswersNoDatagramIsNotJudged: a firewall may keep them from closed ports.
func TestWhoAnswersNoDatagramIsNotJudged(t *testing.T) {
	near, far, _, peer := tunneled(t, desired.VXLAN4)
	far.Run("iptables", "-A", "INPUT", "-p", "udp", "--dport", fmt.Sprint(closedPort), "-j", "DROP")
	p := proberOf(t, near, peer)
	for range attempts + 1 {
		near.Do(func() { p.round(t.Context(), 50*time.Millisecond) })
	}
	if s := p.Summary(); len(s.Offloads) != 0 {
		t.Errorf("%+v, want nothing to be said of offloads", s)
	}
}

func TestWhatIsLostInARowIsJudged(t *testing.T) {
	all := left{finished: true, summed: true, cut: whole}
	for what, c := range map[string]struct {
		came []left
		want []Offload
	}{
		"all arrives":                  {[]left{all}, []Offload{{Tunnel: "vx", Intact: 1}}},
		"nothing is answered":          {[]left{{}, {}, {}, {}}, nil},
		"lost twice":                   {[]left{{finished: true}, {finished: true}}, nil},
		"lost three times":             {[]left{{finished: true}, {finished: true}, {finished: true}}, []Offload{{Tunnel: "vx", Node: "a"}}},
		"lost between answers":         {[]left{{finished: true}, {finished: true}, all, {finished: true}}, nil},
		"only what is cut is lost":     {[]left{{finished: true, summed: true}, {finished: true, summed: true}, {finished: true, summed: true}}, []Offload{{Tunnel: "vx", Node: "a", Segments: true}}},
		"half of what is cut arrives":  {[]left{{true, true, 5}, {true, true, 9}, {true, true, 10}}, []Offload{{Tunnel: "vx", Intact: 1}}},
		"a quarter arrives":            {[]left{{true, true, 1}, {true, true, 1}, {true, true, 8}}, []Offload{{Tunnel: "vx", Node: "a", Segments: true}}},
		"silence keeps what was found": {[]left{all, {}}, []Offload{{Tunnel: "vx", Intact: 1}}},
	} {
		b := newBook()
		p := peer(0)
		p.Tunnel, p.Offloads = "vx", true
		b.follow([]Peer{p})
		for _, l := range c.came {
			b.noteLeft(p, l)
		}
		got := b.offloads()
		if fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%s: %+v, want %+v", what, got, c.want)
		}
	}
}
