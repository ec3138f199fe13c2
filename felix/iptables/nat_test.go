package iptables

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/hack/golden"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

func netSet(texts ...string) *desired.SetChange {
	c := setOf(ir.Nets)
	for _, n := range nets(texts...) {
		c.Add[ir.Member{Prefix: n}] = struct{}{}
	}
	return c
}

func TestMasquerading(t *testing.T) {
	to := desired.Masquerade{To4: netip.MustParseAddr("192.0.2.1"), To6: netip.MustParseAddr("2001:db8::1")}
	ports := ir.PortRange{First: 32768, Last: 60999}
	both := to
	both.Ports = ports
	var b strings.Builder
	for _, f := range []ir.Family{ir.IPv4, ir.IPv6} {
		for _, m := range []desired.Masquerade{{}, {Ports: ports}, to, both} {
			s := plain(f)
			s.masquerade, s.settings.Masquerade = true, m
			fmt.Fprintf(&b, "== IPv%d, to %v, ports %d-%d\n", f, m.To(f), m.Ports.First, m.Ports.Last)
			nat := s.nat()
			b.WriteString(text(append([]chain{nat.hooks[0].chain}, nat.chains...)...))
		}
	}
	golden.Compare(t, "testdata/masquerade.txt", b.String())
}

// seen returns the source under which a packet of a new connection from a arrives
// at "outside", which is known by its source port's being in no other packet.
func (w *world) seen(is6 bool, proto policy.Protocol, to netip.Addr) (netip.Addr, uint16, bool) {
	w.t.Helper()
	p := w.fresh("a", "outside", is6, proto, 1000)
	p.to = to
	w.sites["a"].transmit(p)
	m, got := w.marker("a", "outside", is6), map[string]map[key]bool{}
	w.sites["a"].transmit(m.packet)
	w.await(m, got)
	for k := range got["outside"] {
		if k.proto == proto && k != m.key() && k.from != w.sites["outside"].addrs[is6] {
			return k.from, k.src, true
		}
	}
	return netip.Addr{}, 0, false
}

func TestD12PodsHideBehindTheirNodeOutsideOfTheCluster(t *testing.T) {
	eachFlavour(t, func(t *testing.T, w *world) {
		for _, f := range families { // kube-proxy's, which comes later and stands first
			w.iptables(f, "", "-t", "nat", "-N", "KUBE-POSTROUTING")
		}
		w.withSets(sets{desired.MasqueradeSet: netSet("10.1.0.0/16", "fd01::/64"), desired.InsideSet: netSet("10.0.0.0/8", "fd00::/16")})
		inside := addrs("10.9.9.9", "fd00::9")
		node, pod := w.sites["host"].addrs, w.sites["a"].addrs
		for _, is6 := range bothFamilies {
			w.host.Run("ip", "route", "add", inside[is6].String(), "via", w.sites["outside"].addrs[is6].String(), "dev", "eth0", "onlink")
			w.sites["outside"].ns.Run("ip", "addr", "add", fmt.Sprintf("%s/%d", inside[is6], inside[is6].BitLen()), "dev", "lo")
		}
		w.awaitAddress(&site{ns: w.sites["outside"].ns, addrs: inside})
		outside := w.sites["outside"].addrs
		for _, is6 := range bothFamilies {
			if from, _, ok := w.seen(is6, policy.UDP, outside[is6]); !ok || from != node[is6] {
				t.Errorf("to the outside: seen from %s, want the node, %s", from, node[is6])
			}
			if from, _, ok := w.seen(is6, policy.UDP, inside[is6]); !ok || from != pod[is6] {
				t.Errorf("inside: seen from %s, want the pod, %s", from, pod[is6])
			}
		}
		for _, f := range families { // prepends its jump, as kube-proxy does
			w.iptables(f, "", "-t", "nat", "-I", "POSTROUTING", "1", "-j", "KUBE-POSTROUTING")
		}
		w.check()
		if jumps := rulesWith(w.saved("nat"), "-A POSTROUTING "); len(jumps) != 4 || !strings.Contains(jumps[0], "KUBE-") || !strings.Contains(jumps[1], postroutingChain) {
			t.Errorf("POSTROUTING: %v", jumps)
		}

		hidden := addrs("192.168.7.77", "fd07::77")
		w.apply(set(func(s *desired.Settings) {
			s.Masquerade = desired.Masquerade{To4: hidden[false], To6: hidden[true], Ports: ir.PortRange{First: 40000, Last: 40100}}
		}))
		for _, is6 := range bothFamilies {
			for _, p := range []policy.Protocol{policy.UDP, policy.TCP} {
				from, port, ok := w.seen(is6, p, outside[is6])
				if !ok || from != hidden[is6] || port < 40000 || port > 40100 {
					t.Errorf("%s: seen from %s port %d, want %s and 40000-40100", p, from, port, hidden[is6])
				}
			}
			echo := map[bool]policy.Protocol{false: policy.ICMP, true: policy.ICMPv6}[is6]
			if from, _, ok := w.seen(is6, echo, outside[is6]); !ok || from != hidden[is6] {
				t.Errorf("%s: seen from %s, want %s", echo, from, hidden[is6])
			}
		}
		w.apply(desired.Delta{Sets: sets{desired.MasqueradeSet: netSet()}})
		if left := rulesWith(w.saved("nat"), "KORAT"); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	})
}
