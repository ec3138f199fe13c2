package wireguard_test

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/koratnet/korat/bgp/bfd"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/felix/kernel/wireguard"
)

// hosts says that what the node itself sends to others is encrypted too, or not.
func (s *site) hosts(encrypted bool, others ...*site) desired.Delta {
	d := s.knowsAll(s.own(), others...)
	for _, p := range d.EncryptedPeers {
		p.Host = encrypted
	}
	return d
}

// hostRules makes the rules that lead there, but for those of what goes outside whose
// ports the test does not use.
func (s *site) hostRules() {
	family := map[bool]string{false: "-4", true: "-6"}[s.kind.Is6()]
	rule := func(priority int, words string) {
		s.Run("ip", strings.Fields(fmt.Sprint(family, " rule add iif lo priority ", priority, " ", words))...)
	}
	rule(desired.PastHostRule, "nop")
	rule(desired.ApartRule, fmt.Sprint("ipproto udp sport ", port, " goto ", desired.PastHostRule))
	for _, control := range bfdPorts {
		rule(desired.ApartRule, fmt.Sprint("ipproto udp dport ", control, " goto ", desired.PastHostRule))
	}
	rule(desired.ApartRule, fmt.Sprint("fwmark ", desired.ApartMark, " goto ", desired.PastHostRule))
	if s.kind.Is6() {
		rule(desired.BoundRule, fmt.Sprint("from ::/1 goto ", desired.PastHostRule))
		rule(desired.BoundRule, fmt.Sprint("from 8000::/1 goto ", desired.PastHostRule))
		rule(desired.UnboundRule, fmt.Sprint("lookup ", desired.HostTable))
	} else {
		rule(desired.UnboundRule, fmt.Sprint("from 0.0.0.0/32 lookup ", desired.HostTable))
	}
	rule(desired.HostRule, fmt.Sprint("from ", s.underlay, " lookup ", desired.HostTable))
}

// bfdPorts are those of BFD's control packets, of its echoes, and over several hops (RFC
// 5881, RFC 5883), to which packets go from any port.
var bfdPorts = []uint16{3784, 3785, 4784}

// by returns the interface that the kernel sends such packets by.
func (s *site) by(to netip.Addr, words ...string) string {
	f := strings.Fields(s.Run("ip", append([]string{"route", "get", to.String()}, words...)...))
	for i, word := range f {
		if word == "dev" {
			return f[i+1]
		}
	}
	return ""
}

// TestWhatNodesSendEachOtherIsEncryptedWhereThatIsWanted: with the node's address and
// before a socket has one, but neither what carries it, nor with another address.
func TestWhatNodesSendEachOtherIsEncryptedWhereThatIsWanted(t *testing.T) {
	bothFamilies(t, func(t *testing.T, kind desired.TunnelKind) {
		wire, all := sites(t, kind, 2)
		a, b := all[0], all[1]
		further := netip.MustParsePrefix(map[bool]string{false: "192.0.2.77/24", true: "2001:db8::77/64"}[kind.Is6()])
		a.Run("ip", "addr", "add", further.String(), "dev", "eth0", "nodad")
		for _, s := range all {
			s.apply(t, s.hosts(true, s.others(all)...))
			s.hostRules()
		}
		a.Run("ping", "-c1", "-W30", b.underlay.String())
		tap := listen(t, wire, port)
		a.Run("ping", "-c3", "-i0.2", "-W10", b.underlay.String())
		a.Run("ping", "-c3", "-i0.2", "-W10", "-I", a.underlay.String(), b.underlay.String())
		heard := a.listen(t, a.underlay)
		send(t, b.call(t, b.underlay, a.underlay), "from a program")
		if text, from := receive(t, heard); text != "from a program" || from != b.underlay {
			t.Errorf("heard %q from %s", text, from)
		}
		tap.check(t)
		for words, want := range map[string]string{
			"": kind.Device(), "from " + a.underlay.String(): kind.Device(), "from " + further.Addr().String(): "eth0",
			fmt.Sprint("ipproto udp sport ", port): "eth0", fmt.Sprint("mark ", desired.ApartMark): "eth0",
		} {
			if got := a.by(b.underlay, strings.Fields(words)...); got != want {
				t.Errorf("%q leaves by %s, want %s", words, got, want)
			}
		}

		// b encrypts no more: each takes what comes either way.
		b.apply(t, b.hosts(false, a))
		a.Run("ping", "-c3", "-i0.2", "-W10", b.underlay.String())
		b.Run("ping", "-c3", "-i0.2", "-W10", a.underlay.String())
		if got := b.by(a.underlay); got != "eth0" {
			t.Errorf("the other leaves by %s", got)
		}
	})
}

// TestBFDTellsOfTheWireAndNotOfTheTunnel: what the speaker's BFD sends, and echoes, leave by
// the wire, while all else goes into the tunnel, from a port of BFD too.
func TestBFDTellsOfTheWireAndNotOfTheTunnel(t *testing.T) {
	bothFamilies(t, func(t *testing.T, kind desired.TunnelKind) {
		wire, all := sites(t, kind, 2)
		for _, s := range all {
			s.apply(t, s.hosts(true, s.others(all)...))
			s.hostRules()
		}
		all[0].Run("ping", "-c1", "-W30", all[1].underlay.String())
		tap := listen(t, wire, port)
		want := map[string]bool{}
		for i, s := range all {
			o := all[1-i]
			heard := o.listen(t, o.underlay)
			for _, number := range bfdPorts {
				s.datagram(t, number, netip.AddrPortFrom(o.underlay, 5000))
				if _, from := receive(t, heard); from != s.underlay {
					t.Errorf("heard from %s", from)
				}
				want[fmt.Sprintf("%s > %s port %d", s.underlay, o.underlay, number)] = true
			}
		}
		tap.check(t)
		for i, s := range all {
			peer := all[1-i].underlay
			speaker := bfd.New(bfd.Config{})
			t.Cleanup(func() { speaker.Close() })
			var err error
			s.Do(func() {
				err = speaker.Set(t.Context(), []bfd.Session{
					{Key: bfd.Key{Peer: peer}, Timing: bfd.DefaultTiming()},
					{Key: bfd.Key{Peer: peer, Local: s.underlay, Multihop: true}, Timing: bfd.DefaultTiming()},
				})
			})
			if err != nil {
				t.Fatal(err)
			}
			s.datagram(t, 0, netip.AddrPortFrom(peer, 3785)) // the speaker sends no echoes
		}
		kerneltest.Eventually(t, "all of BFD is seen on the wire", func() bool { return maps.Equal(tap.open(), want) })
	})
}

// datagram sends one from the node's address, and a port, 0 for any.
func (s *site) datagram(t testing.TB, from uint16, to netip.AddrPort) {
	t.Helper()
	s.Do(func() {
		c, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(s.underlay, from)), net.UDPAddrFromAddrPort(to))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		send(t, c, "datagram")
	})
}

// open returns what was seen in clear, each once.
func (w *tap) open() map[string]bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := map[string]bool{}
	for _, p := range w.clear {
		all[p] = true
	}
	return all
}

// TestWaysOfTheNodeItselfOutliveTheAgentAsLongAsTheyAreProved, and no longer: nobody else
// has to be asked for them to go, and nothing else goes.
func TestWaysOfTheNodeItselfOutliveTheAgentAsLongAsTheyAreProved(t *testing.T) {
	bothFamilies(t, func(t *testing.T, kind desired.TunnelKind) {
		_, all := sites(t, kind, 3)
		a, b, c := all[0], all[1], all[2]
		a.apply(t, a.hosts(true, b, c)) // c is never there
		b.apply(t, b.hosts(true, a))
		a.routes(b)
		b.routes(a)
		a.reaches(t, b)
		ways := func() (all []string) {
			return a.RoutesIn(desired.HostTable, desired.RuleProtocol)
		}
		if got := ways(); len(got) != 2 {
			t.Fatalf("ways of the node itself: %v", got)
		}
		left, err := a.look(time.Now())
		if err != nil {
			t.Fatal(err)
		}
		proved := desired.EncryptedEnd{Kind: kind, Key: b.key()}
		if _, works := left.Live[proved]; !works || len(left.Live) != 1 {
			t.Errorf("proved is %v, want %v", left.Live, proved)
		}
		if !left.Hosts {
			t.Error("nothing of the node itself is led into tunnels")
		}
		if got := ways(); len(got) != 1 || !strings.Contains(got[0], b.underlay.String()) {
			t.Errorf("ways that are left: %v", got)
		}
		if left, err = a.look(time.Now().Add(3 * time.Minute)); err != nil || len(left.Live) > 0 || left.Hosts {
			t.Errorf("proved three minutes later is %v, %v", left.Live, err)
		}
		if got := ways(); len(got) > 0 {
			t.Errorf("ways that are left three minutes later: %v", got)
		}
		a.leads(t, b, c) // those of pods stay

		a.tunnels = a.open(t)
		d := a.hosts(false, b, c)
		d.Complete = false
		end := desired.EncryptedEnd{Kind: kind, Key: b.key()}
		d.EncryptedPeers[end].Host = true
		a.apply(t, d)
		if got := ways(); len(got) != 1 {
			t.Errorf("ways that are wanted again: %v", got)
		}
		a.tunnels = a.open(t)
		d.EncryptedPeers[end].Host = false
		a.apply(t, d)
		if got := ways(); len(got) > 0 {
			t.Errorf("a way stays until all is known: %v", got)
		}
	})
}

// TestAGlanceLetsAProcessOfAnotherVersionGoOn, which Apply replaces.
func TestAGlanceLetsAProcessOfAnotherVersionGoOn(t *testing.T) {
	_, all := joined(t, desired.WireGuard4, 2)
	a := all[0]
	before, err := a.look(time.Now())
	if err != nil || len(before.Live) != 1 {
		t.Fatalf("proved is %v, %v", before.Live, err)
	}
	if !a.status(t).Userspace {
		return // the kernel has one version
	}
	a.Do(func() { _, err = wireguard.Look(a.config("v2"), time.Now()) })
	if err == nil {
		t.Error("a process of another version answers")
	}
	a.reaches(t, all[1])
	if after, err := a.look(time.Now()); err != nil || len(after.Live) != 1 {
		t.Errorf("proved is %v, %v", after.Live, err)
	}
}
