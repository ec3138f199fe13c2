package iptables

import (
	"strings"
	"testing"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// eachFlavour runs a test in a world of either flavour in which everything is
// let through and the markers' connections are open.
func eachFlavour(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	for _, flavour := range []Flavour{NFT, Legacy} {
		t.Run(string(flavour), func(t *testing.T) {
			oneCPU(t)
			w := newWorld(t, flavour)
			w.apply(w.open())
			w.openMarkers()
			test(t, w)
		})
	}
}

// expect fires one shot and checks whether it arrives.
func (w *world) expect(arrives bool, s shot) {
	w.t.Helper()
	if got := w.fire([]shot{s})[0]; got != arrives {
		w.t.Errorf("%s: arrived: %v, want %v", s, got, arrives)
	}
}

// new returns a shot of a new connection.
func (w *world) new(from, to string, is6 bool, proto policy.Protocol) shot {
	return shot{from, to, w.fresh(from, to, is6, proto, 1000)}
}

var bothFamilies = []bool{false, true}

func TestForgedSourcesAreDropped(t *testing.T) {
	eachFlavour(t, func(t *testing.T, w *world) {
		// An address that is routed to the pod but is not (or not any more) its own.
		stale := addrs("10.1.0.77", "fd01::77")
		for _, is6 := range bothFamilies {
			w.host.Run("ip", "route", "add", stale[is6].String(), "dev", w.sites["a"].iface)
			forged := map[string]shot{}
			for _, to := range []string{"b", "host", "outside"} {
				w.expect(true, w.new("a", to, is6, policy.UDP))
				for _, owner := range []string{"b", "host", "outside"} {
					if owner != to {
						s := w.new("a", to, is6, policy.UDP)
						s.packet.from = w.sites[owner].addrs[is6]
						forged[owner+" to "+to] = s
					}
				}
				s := w.new("a", to, is6, policy.TCP)
				s.packet.from = stale[is6]
				forged["stale to "+to] = s
			}
			for _, s := range forged {
				w.expect(false, s)
			}
		}
	})
}

func TestAForgedPacketDoesNotPassAsEstablished(t *testing.T) {
	eachFlavour(t, func(t *testing.T, w *world) {
		for _, is6 := range bothFamilies {
			// b and the host outside have an open connection; a claims to be b.
			forged := w.marker("outside", "b", is6)
			forged.packet.from, forged.packet.to = forged.packet.to, forged.packet.from
			w.sites["a"].transmit(forged.packet)
			m := w.marker("a", "outside", is6)
			w.sites["a"].transmit(m.packet)
			got := map[string]map[key]bool{}
			w.await(m, got)
			if got["outside"][forged.key()] {
				t.Errorf("%s arrived", forged.packet)
			}
		}
	})
}

func TestAnUnknownInterfaceIsClosed(t *testing.T) {
	eachFlavour(t, func(t *testing.T, w *world) {
		w.attach("c", desired.HostInterface("test", "c"), addrs("10.1.0.4", "fd01::4"))
		w.sites["c"].wire = newWire(t, w.sites["c"].ns)
		for _, is6 := range bothFamilies {
			for _, other := range []string{"a", "host", "outside"} {
				for _, s := range []shot{w.new("c", other, is6, policy.UDP), w.new(other, "c", is6, policy.UDP)} {
					w.sites[s.from].transmit(s.packet)
					// No marker of that way passes; one of another way on the same CPU tells
					// as well that the packet's fate is sealed.
					m, got := w.marker("a", "b", is6), map[string]map[key]bool{}
					w.sites["a"].transmit(m.packet)
					w.await(m, got)
					want := other == "host" && s.from == "host" // the node always reaches its pods
					if arrived := got[s.to][s.key()]; arrived != want {
						t.Errorf("%s: arrived: %v, want %v", s, arrived, want)
					}
				}
			}
		}
	})
}

// sendICMP6 sends an ICMPv6 message and returns how the receiver knows it: by its type.
func (w *world) sendICMP6(from, to string, kind byte) key {
	w.t.Helper()
	p := packet{from: w.sites[from].addrs[true], to: w.sites[to].addrs[true], proto: policy.ICMPv6, src: uint16(kind)}
	b := make([]byte, 24)
	b[0] = kind
	sum := p.checksum(b)
	b[2], b[3] = byte(sum>>8), byte(sum)
	w.sites[from].raw(p.from, p.to, p.proto, b)
	return p.key()
}

func TestNeighbourDiscoveryPassesBeforePolicyAndRoutersAreNot(t *testing.T) {
	eachFlavour(t, func(t *testing.T, w *world) {
		d := w.open()
		for _, e := range d.Endpoints {
			e.Egress = ir.Chain{Default: policy.Deny}
		}
		w.apply(d)
		w.expect(false, w.new("a", "host", true, policy.ICMPv6))
		for kind, want := range map[byte]bool{130: true, 131: true, 132: true, 133: true, 134: false, 135: true, 136: true, 137: false, 143: true} {
			k := w.sendICMP6("a", "host", kind)
			m, got := w.marker("a", "host", true), map[string]map[key]bool{}
			w.sites["a"].transmit(m.packet)
			w.await(m, got)
			if arrived := got["host"][k]; arrived != want {
				t.Errorf("type %d from a pod to the node: arrived: %v, want %v", kind, arrived, want)
			}
		}
	})
}

func TestPodsAreNoRoutersToEachOther(t *testing.T) {
	eachFlavour(t, func(t *testing.T, w *world) {
		for _, kind := range []byte{134, 137} {
			k := w.sendICMP6("a", "b", kind)
			m, got := w.marker("a", "b", true), map[string]map[key]bool{}
			w.sites["a"].transmit(m.packet)
			w.await(m, got)
			if got["b"][k] {
				t.Errorf("type %d from pod to pod arrived", kind)
			}
		}
	})
}

func TestPodsCannotBuildTunnels(t *testing.T) {
	eachFlavour(t, func(t *testing.T, w *world) {
		for _, is6 := range bothFamilies {
			for _, to := range []string{"b", "host", "outside"} {
				vxlan := w.new("a", to, is6, policy.UDP)
				w.expect(true, vxlan)
				vxlan.src, vxlan.dst = vxlan.src+20000, 4789
				w.expect(false, vxlan)

				p := w.fresh("a", to, is6, 4, 0)
				inner := wrap(w.sites["b"].addrs[false], w.sites[to].addrs[false], policy.UDP, nil)
				w.sites["a"].raw(p.from, p.to, 4, inner)
				m, got := w.marker("a", to, is6), map[string]map[key]bool{}
				w.sites["a"].transmit(m.packet)
				w.await(m, got)
				for k := range got[to] {
					if k.proto == 4 {
						t.Errorf("IPIP from a pod to %s arrived (IPv6 %v)", to, is6)
					}
				}
			}
		}
	})
}

func TestTrafficWithoutPodsIsLeftAlone(t *testing.T) {
	eachFlavour(t, func(t *testing.T, w *world) {
		w.attach("far", "eth9", addrs("192.168.8.9", "fd08::9"))
		w.sites["far"].wire = newWire(t, w.sites["far"].ns)
		for name, f := range families {
			is6 := f == ir.IPv6
			// Somebody else's mark, equal to ours, must not open what the node closes.
			w.iptables(f, "", "-t", "mangle", "-A", "PREROUTING", "-i", "eth0", "-j", "MARK", "--set-mark", "0x10000")
			for policyOfNode, want := range map[string]bool{"ACCEPT": true, "DROP": false} {
				w.iptables(f, "", "-P", "FORWARD", policyOfNode)
				s, m := w.new("outside", "far", is6, policy.UDP), w.marker("a", "b", is6)
				got := map[string]map[key]bool{}
				w.sites["outside"].transmit(s.packet)
				w.sites["a"].transmit(m.packet)
				w.await(m, got)
				if arrived := got["far"][s.key()]; arrived != want {
					t.Errorf("%s, policy of FORWARD %s: arrived: %v", name, policyOfNode, arrived)
				}
			}
		}
	})
}

func TestInvalidPacketsAreDropped(t *testing.T) {
	eachFlavour(t, func(t *testing.T, w *world) {
		for _, is6 := range bothFamilies {
			for _, way := range [][2]string{{"a", "outside"}, {"outside", "b"}} {
				p := w.fresh(way[0], way[1], is6, policy.UDP, 1000)
				b := p.transport()
				b[7]++ // a wrong checksum
				w.sites[way[0]].raw(p.from, p.to, p.proto, b)
				m, got := w.marker(way[0], way[1], is6), map[string]map[key]bool{}
				w.sites[way[0]].transmit(m.packet)
				w.await(m, got)
				if got[way[1]][p.key()] {
					t.Errorf("%s arrived", p)
				}
			}
		}
	})
}

func TestErrorsAboutOpenConnectionsPass(t *testing.T) {
	eachFlavour(t, func(t *testing.T, w *world) {
		d := w.open()
		d.Endpoints[w.sites["b"].iface].Egress = ir.Chain{Default: policy.Deny}
		w.apply(d)
		s := w.new("outside", "b", true, policy.UDP) // nobody listens: b answers with an error
		w.sites["outside"].transmit(s.packet)
		want := key{s.packet.to, policy.ICMPv6, 1}
		m, got := w.marker("b", "outside", true), map[string]map[key]bool{}
		kerneltest.Eventually(t, "destination unreachable from b", func() bool {
			w.sites["b"].transmit(m.packet)
			w.await(m, got)
			delete(got["outside"], m.key())
			return got["outside"][want]
		})
		w.expect(false, w.new("b", "outside", true, policy.ICMPv6))
	})
}

func TestNeighboursFindEachOtherThroughClosedRules(t *testing.T) {
	eachFlavour(t, func(t *testing.T, w *world) {
		s := w.sites["a"]
		gw := "fe80::ecee:eeff:feee:eeee"
		w.host.Run("ip", "addr", "replace", gw+"/64", "dev", s.iface, "nodad")
		s.ns.Run("ip", "neigh", "del", gw, "dev", "eth0")
		w.host.Run("ip", "neigh", "del", s.addrs[true].String(), "dev", s.iface)
		d := w.open()
		d.Endpoints[s.iface].Ingress = ir.Chain{Default: policy.Deny}
		w.apply(d)
		s.ns.Run("ping", "-6", "-c", "1", "-W", "5", w.sites["outside"].addrs[true].String())
		if got := w.host.Run("ip", "neigh", "show", "dev", s.iface); strings.Contains(got, "FAILED") || !strings.Contains(got, s.addrs[true].String()) {
			t.Errorf("the node's neighbours: %s", got)
		}
	})
}
