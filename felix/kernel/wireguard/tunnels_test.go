package wireguard_test

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/felix/kernel/wireguard"
)

// status returns what is to be seen of the node's tunnel.
func (s *site) status(t testing.TB) wireguard.Status {
	t.Helper()
	all, err := s.tunnels.Status()
	if err != nil {
		t.Fatal(err)
	}
	return all[s.kind]
}

// listen waits for datagrams on an address of the node.
func (s *site) listen(t testing.TB, addr netip.Addr) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	s.Do(func() {
		var err error
		if c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 5000))); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { c.Close() })
	return c
}

// call opens a socket that sends from an address of the node.
func (s *site) call(t testing.TB, from, to netip.Addr) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	s.Do(func() {
		var err error
		c, err = net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, 5000)))
		if err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { c.Close() })
	return c
}

func send(t testing.TB, c *net.UDPConn, text string) {
	t.Helper()
	if _, err := c.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
}

func receive(t testing.TB, c *net.UDPConn) (text string, from netip.Addr) {
	t.Helper()
	buf := make([]byte, 100)
	if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	n, at, err := c.ReadFromUDPAddrPort(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n]), at.Addr().Unmap()
}

func TestNothingIsToBeReadOnTheWire(t *testing.T) {
	bothFamilies(t, func(t *testing.T, kind desired.TunnelKind) {
		wire, all := sites(t, kind, 2)
		tap := listen(t, wire, port)
		a, b := all[0], all[1]
		a.apply(t, a.knows(a.own(), b))
		a.routes(b)
		_, _ = a.Try("ping", "-c1", "-W1", b.inside.String()) // before the other end is there
		b.apply(t, b.knows(b.own(), a))
		b.routes(a)
		b.reaches(t, a) // the other one would wait some seconds before it tries again
		a.reaches(t, b)
		tap.check(t)
		if got := a.Run("ip", "route", "get", b.inside.String()); !strings.Contains(got, "src "+a.inside.String()) {
			t.Errorf("the node's own packets leave so: %s", got)
		}
		if mtu := a.Link(kind.Device()).Attrs().MTU; mtu != 1500-kind.Overhead() {
			t.Errorf("MTU is %d", mtu)
		}
		a.Run("ping", "-c3", "-M", "do", "-s", fmt.Sprint(1500-kind.Overhead()-map[bool]int{false: 28, true: 48}[kind.Is6()]), b.inside.String())
		tap.check(t)
	})
}

func TestWhoHearsOfAnotherGreetsItBeforeThereIsAnythingToSend(t *testing.T) {
	bothFamilies(t, func(t *testing.T, kind desired.TunnelKind) {
		_, all := sites(t, kind, 2)
		for _, s := range all {
			s.apply(t, s.knows(s.own(), s.others(all)...))
		}
		for i, s := range all {
			kerneltest.Eventually(t, "they have shaken hands", func() bool {
				return !s.status(t).Peers[all[1-i].key()].Handshake.IsZero()
			})
		}
	})
}

func TestASecondInstanceAdoptsWithoutAWrite(t *testing.T) {
	bothFamilies(t, func(t *testing.T, kind desired.TunnelKind) {
		_, all := joined(t, kind, 2)
		a, b := all[0], all[1]
		before := a.status(t).Peers[b.key()]
		m := a.Monitor()
		m.Drain()
		a.tunnels = a.open(t)
		a.apply(t, a.knows(a.own(), b))
		if changes := m.Changes(); len(changes) > 0 {
			t.Errorf("adopting changed the kernel: %v", changes)
		}
		after := a.status(t).Peers[b.key()]
		if !after.Handshake.Equal(before.Handshake) || after.Received < before.Received || after.Sent < before.Sent || after.Handshake.IsZero() {
			t.Errorf("the other end was %+v and is %+v: it was reset", before, after)
		}
		if want := netip.AddrPortFrom(b.underlay, port); after.Endpoint != want {
			t.Errorf("the other end is at %s, want %s", after.Endpoint, want)
		}
	})
}

func TestWhatOthersBreakIsMended(t *testing.T) {
	bothFamilies(t, func(t *testing.T, kind desired.TunnelKind) {
		_, all := joined(t, kind, 2)
		a, b := all[0], all[1]
		dev := kind.Device()
		for what, command := range map[string]string{
			"the interface is removed": "ip link del " + dev,
			"the interface is down":    "ip link set " + dev + " down",
			"its MTU is another":       "ip link set " + dev + " mtu 1300",
			"its address is gone":      "ip addr flush scope global dev " + dev,
		} {
			t.Run(what, func(t *testing.T) {
				f := strings.Fields(command)
				a.Run(f[0], f[1:]...)
				a.tunnels.LinkChanged(dev)
				a.apply(t, desired.Delta{})
				a.routes(b)
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
	_, all := joined(t, desired.WireGuard4, 3)
	a, b, c := all[0], all[1], all[2]
	a.tunnels = a.open(t)
	d := a.knows(a.own(), b)
	d.Complete = false
	a.apply(t, d)
	if _, there := a.status(t).Peers[c.key()]; !there {
		t.Error("a node went before all was known")
	}
	a.apply(t, desired.Delta{Complete: true})
	if peers := a.status(t).Peers; len(peers) != 1 {
		t.Errorf("%d nodes are left, want one", len(peers))
	}
	a.tunnels = a.open(t)
	a.apply(t, desired.Delta{})
	a.Link("wg4-korat") // ends the test if it is gone
	a.apply(t, desired.Delta{Complete: true})
	if out, err := a.Try("ip", "link", "show", "dev", "wg4-korat"); err == nil {
		t.Errorf("the interface stays: %s", out)
	}
	if len(a.tunnels.State()) > 0 {
		t.Errorf("state is %v, want none", a.tunnels.State())
	}
}

func TestAnInterfaceThatIsNotOursIsNotTouched(t *testing.T) {
	_, all := sites(t, desired.WireGuard4, 2)
	a, b := all[0], all[1]
	a.Run("ip", "link", "add", "wg4-korat", "type", "bridge")
	if err := a.try(a.knows(a.own(), b)); err == nil || !strings.Contains(err.Error(), "wg4-korat: an interface of this name is there that is not ours") {
		t.Errorf("Apply: %v", err)
	}
	if err := a.tunnels.State()[desired.WireGuard4]; err == nil {
		t.Error("the tunnel counts as ready")
	}
	a.apply(t, desired.Delta{Tunnels: map[desired.TunnelKind]*desired.TunnelDevice{desired.WireGuard4: nil}})
	if kind := a.Link("wg4-korat").Type(); kind != "bridge" {
		t.Errorf("the interface is a %s now", kind)
	}
	a.Run("ip", "link", "del", "wg4-korat")
	a.apply(t, a.own())
}

// TestNobodyTakesTheAddressOfAnother: what may come from a node is what is in its
// block.
func TestNobodyTakesTheAddressOfAnother(t *testing.T) {
	bothFamilies(t, func(t *testing.T, kind desired.TunnelKind) {
		_, all := joined(t, kind, 3)
		a, b, c := all[0], all[1], all[2]
		stolen := b.inside.Next()
		c.Run("ip", "addr", "add", stolen.String(), "dev", "lo", "nodad")
		heard := a.listen(t, a.inside)
		send(t, c.call(t, stolen, a.inside), "stolen")
		send(t, c.call(t, c.inside, a.inside), "honest")
		if text, from := receive(t, heard); text != "honest" || from != c.inside {
			t.Errorf("heard %q from %s", text, from)
		}
	})
}

func TestAnUnknownKeyIsNotHeard(t *testing.T) {
	_, all := joined(t, desired.WireGuard4, 2)
	a, b := all[0], all[1]
	known := b.key()
	if err := b.ring.Renew(b.kind); err != nil {
		t.Fatal(err)
	}
	b.apply(t, b.own()) // with the new key, which nobody was told
	heard := a.listen(t, a.inside)
	unknown := b.call(t, b.inside, a.inside)
	send(t, unknown, "unknown")
	if out, err := b.Try("ping", "-c2", "-i0.2", "-W1", a.inside.String()); err == nil {
		t.Errorf("an unknown node is answered: %s", out)
	}
	if peers := a.status(t).Peers; len(peers) != 1 {
		t.Errorf("the node knows %d others, want one", len(peers))
	}
	d := a.knows(desired.Delta{}, b)
	d.EncryptedPeers[desired.EncryptedEnd{Kind: a.kind, Key: known}] = nil
	a.apply(t, d)
	b.reaches(t, a)
	send(t, b.call(t, b.inside, a.inside), "known")
	for text := ""; text != "known"; { // what waited for the key may come first
		text, _ = receive(t, heard)
	}
}

// TestAPrefixMovesFromNodeToNodeWithoutLoss: it belongs to one of them at any time.
func TestAPrefixMovesFromNodeToNodeWithoutLoss(t *testing.T) {
	bothFamilies(t, func(t *testing.T, kind desired.TunnelKind) {
		_, all := joined(t, kind, 3)
		a := all[0]
		moving := netip.MustParseAddr(map[bool]string{false: "10.0.9.9", true: "fd00:9::9"}[kind.Is6()])
		prefix := netip.PrefixFrom(moving, moving.BitLen())
		a.Run("ip", "route", "add", prefix.String(), "dev", kind.Device(), "src", a.inside.String())
		var arrived atomic.Int64
		for _, s := range all[1:] {
			s.Run("ip", "addr", "add", prefix.String(), "dev", "lo", "nodad")
			go count(s.listen(t, moving), &arrived)
		}
		holder := func(s *site) desired.Delta {
			d := a.knows(desired.Delta{}, all[1:]...)
			p := d.EncryptedPeers[desired.EncryptedEnd{Kind: kind, Key: s.key()}]
			p.Prefixes = append(p.Prefixes, prefix)
			return d
		}
		a.apply(t, holder(all[1]))
		to := a.call(t, a.inside, moving)
		var sent int64
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			for tick := time.NewTicker(200 * time.Microsecond); ; <-tick.C {
				select {
				case <-stop:
					return
				default:
				}
				if sent-arrived.Load() > 16 { // more could be lost by who is slow
					continue
				}
				if _, err := to.Write([]byte("x")); err == nil {
					sent++
				}
			}
		}()
		for i := range 40 {
			a.apply(t, holder(all[1+i%2]))
		}
		close(stop)
		<-stopped
		kerneltest.Eventually(t, "all packets arrive", func() bool { return arrived.Load() == sent })
	})
}

// count counts datagrams.
func count(c *net.UDPConn, arrived *atomic.Int64) {
	for buf := make([]byte, 10); ; arrived.Add(1) {
		if _, err := c.Read(buf); err != nil {
			return
		}
	}
}

func TestAPrefixThatNobodyHasIsDropped(t *testing.T) {
	_, all := joined(t, desired.WireGuard4, 2)
	a, b := all[0], all[1]
	end := desired.EncryptedEnd{Kind: a.kind, Key: b.key()}
	at := netip.AddrPortFrom(b.underlay, port)
	few := desired.Delta{EncryptedPeers: map[desired.EncryptedEnd]*desired.EncryptedPeer{end: {
		Endpoint: at, Prefixes: []netip.Prefix{netip.PrefixFrom(b.inside, 32)},
	}}}
	a.apply(t, few)
	a.reaches(t, b)
	if peers := a.status(t).Peers; len(peers) != 1 {
		t.Errorf("%d nodes, want one", len(peers))
	}
	heard := b.listen(t, netip.IPv4Unspecified())
	next := b.inside.Next()
	b.Run("ip", "addr", "add", next.String(), "dev", "lo")
	_, _ = a.call(t, a.inside, next).Write([]byte("lost")) // the kernel may say that there is no way
	send(t, a.call(t, a.inside, b.inside), "kept")
	if text, _ := receive(t, heard); text != "kept" {
		t.Errorf("heard %q", text)
	}
}

func TestAPortThatIsTakenIsAnErrorUntilItIsFree(t *testing.T) {
	_, all := sites(t, desired.WireGuard4, 2)
	a, b := all[0], all[1]
	var c *net.UDPConn
	a.Do(func() {
		var err error
		if c, err = net.ListenUDP("udp", &net.UDPAddr{Port: port}); err != nil {
			t.Fatal(err)
		}
	})
	d := a.knows(a.own(), b)
	for range 2 {
		if err := a.try(d); err == nil {
			t.Error("no error")
		}
	}
	c.Close()
	a.apply(t, d)
	b.apply(t, b.knows(b.own(), a))
	a.routes(b)
	b.routes(a)
	a.reaches(t, b)
}
