package dataplanetest

import (
	"net/netip"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// floatingAddrs are those of pod a, of which it leaves under the first of a family,
// and that of pod b.
var floatingAddrs = map[string][]netip.Addr{
	"a": {netip.MustParseAddr("203.0.113.7"), netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("2001:db8::7"), netip.MustParseAddr("2001:db8::9")},
	"b": {netip.MustParseAddr("203.0.113.8"), netip.MustParseAddr("2001:db8::8")},
}

// floats is open with the floating addresses of pods a and b. Pod b hides behind its
// node.
func (w *world) floats() desired.Delta {
	d := w.open()
	for pod, addrs := range floatingAddrs {
		ep := *d.Endpoints[w.sites[pod].iface]
		ep.Floating = addrs
		d.Endpoints[ep.Interface] = &ep
	}
	of := func(nets ...string) *desired.SetChange {
		c := &desired.SetChange{Kind: ir.Nets, Whole: true, Add: map[ir.Member]struct{}{}}
		for _, n := range nets {
			c.Add[ir.Member{Prefix: netip.MustParsePrefix(n)}] = struct{}{}
		}
		return c
	}
	d.Sets = map[ir.SetID]*desired.SetChange{
		desired.MasqueradeSet: of(eachAlone(w.sites["b"])...), desired.InsideSet: of("10.1.0.0/16", "fd01::/16"),
		desired.NodesSet: of(), desired.ServicesSet: of(),
	}
	return d
}

func eachAlone(s *site) (nets []string) {
	for _, a := range s.addrs {
		nets = append(nets, netip.PrefixFrom(a, a.BitLen()).String())
	}
	return nets
}

// toFloating returns a shot at pod to by way of a floating address.
func (w *world) toFloating(from, to string, a netip.Addr, proto policy.Protocol, port uint16) shot {
	s := w.shot(from, to, a.Is6(), proto, port)
	s.before = netip.AddrPortFrom(a, s.DstPort)
	return s
}

// comes checks that s arrives at its pod from face, and that an answer comes back
// from whom was asked.
func (w *world) comes(s shot, face netip.Addr) {
	w.t.Helper()
	got, ok := w.fire([]shot{s})[s.id]
	if !ok || got.at != s.to.wire || got.src != face {
		w.t.Errorf("%s: arrived %v, from %s, want %s", s, ok, got.src, face)
		return
	}
	if s.Protocol != policy.UDP {
		return
	}
	reply := w.answered(s, got)
	if back, ok := w.fire([]shot{reply})[reply.id]; !ok || back.src != s.before.Addr() {
		w.t.Errorf("the answer to %s: arrived %v, from %s", s, ok, back.src)
	}
}

func (w *world) floating() {
	for pod, addrs := range floatingAddrs { // as the agent routes them
		for _, a := range addrs {
			w.node.Run("ip", "route", "replace", a.String(), "dev", w.sites[pod].iface)
		}
	}
	w.apply(w.floats())
	for pod, addrs := range floatingAddrs {
		for _, a := range addrs {
			for _, proto := range []policy.Protocol{policy.TCP, policy.UDP, echo(a.Is6())} {
				for _, from := range []string{"out0", "rem1", "c"} {
					w.comes(w.toFloating(from, pod, a, proto, 80), w.sites[from].addrs[a.Is6()])
				}
				got := w.toFloating("host", pod, a, proto, 80)
				w.expect(true, got)
			}
			w.reachItself(pod, a)
			forged := w.shot(pod, "out0", a.Is6(), policy.UDP, 80)
			forged.Src = a
			w.expect(false, forged)
		}
	}
	for _, is6 := range bothFamilies {
		first := firstFloating("a", is6)
		for _, proto := range []policy.Protocol{policy.TCP, policy.UDP, echo(is6)} {
			w.hides("a", "out0", is6, proto, first, ir.PortRange{})
			w.hides("a", "b", is6, proto, w.sites["a"].addrs[is6], ir.PortRange{})
			w.hides("b", "out0", is6, proto, w.sites["host"].addrs[is6], ir.PortRange{})
			w.hides("c", "out0", is6, proto, w.sites["c"].addrs[is6], ir.PortRange{})
		}
	}
	w.judgedByOwnAddress()
	w.apply(w.open())
	for _, is6 := range bothFamilies {
		w.expect(false, w.toFloating("out0", "a", firstFloating("a", is6), policy.TCP, 80))
		w.hides("a", "out0", is6, policy.UDP, w.sites["a"].addrs[is6], ir.PortRange{})
	}
}

func firstFloating(pod string, is6 bool) netip.Addr {
	for _, a := range floatingAddrs[pod] {
		if a.Is6() == is6 {
			return a
		}
	}
	panic("bug: no floating address of the family")
}

// reachItself: a pod that asks for its floating address does not see its own as the
// source, or the answer would not come back through the node. Who serves services may
// have hidden it before.
func (w *world) reachItself(pod string, a netip.Addr) {
	w.t.Helper()
	s := w.toFloating(pod, pod, a, policy.UDP, 80)
	got, ok := w.fire([]shot{s})[s.id]
	if !ok || got.at != s.to.wire || got.src == s.Src {
		w.t.Errorf("%s: arrived %v, from %s", s, ok, got.src)
		return
	}
	reply := w.answered(s, got)
	if back, ok := w.fire([]shot{reply})[reply.id]; !ok || back.src != a {
		w.t.Errorf("the answer to %s: arrived %v, from %s", s, ok, back.src)
	}
}

// judgedByOwnAddress: policies see where packets go in the end, and who sends them.
func (w *world) judgedByOwnAddress() {
	d := w.floats()
	var ofA, ofB []netip.Prefix
	for _, is6 := range bothFamilies {
		ofA = append(ofA, netip.PrefixFrom(w.sites["a"].addrs[is6], w.sites["a"].addrs[is6].BitLen()))
		ofB = append(ofB, netip.PrefixFrom(w.sites["b"].addrs[is6], w.sites["b"].addrs[is6].BitLen()))
	}
	in := port(policy.UDP, 80)
	in.DstNets = ofA
	w.close(d, "a", policy.Ingress, in)
	out := port(policy.UDP, 80)
	out.DstNets = ofB
	w.close(d, "c", policy.Egress, out)
	w.apply(d)
	for _, is6 := range bothFamilies {
		a, b := firstFloating("a", is6), firstFloating("b", is6)
		w.expect(true, w.toFloating("out0", "a", a, policy.UDP, 80))
		w.expect(false, w.toFloating("out0", "a", a, policy.UDP, 81))
		w.expect(true, w.toFloating("c", "b", b, policy.UDP, 80))
		w.expect(false, w.toFloating("c", "a", a, policy.UDP, 80))
	}
}
