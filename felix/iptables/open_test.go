package iptables

import (
	"strings"
	"testing"

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
		s.ns.Run("ping", "-6", "-c", "1", "-W", "30", w.sites["outside"].addrs[true].String())
		if got := w.host.Run("ip", "neigh", "show", "dev", s.iface); strings.Contains(got, "FAILED") || !strings.Contains(got, s.addrs[true].String()) {
			t.Errorf("the node's neighbours: %s", got)
		}
	})
}
