package dataplanetest

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/eval"
	"github.com/koratnet/korat/policy/ir"
)

// Attacks tries what a hostile pod or a stranger would, while policy allows
// everything that it can. None of it may pass.
func Attacks(t *testing.T, b Backend) {
	t.Helper()
	for _, a := range []struct {
		name string
		try  func(w *world)
	}{
		{"forged sources", (*world).forgedSources},
		{"sources that only one pod may use", (*world).furtherSources},
		{"a forged packet of an open connection", (*world).forgedEstablished},
		{"Item71: tunnels that a pod builds", (*world).tunnelsOfPods},
		{"Item71: tunnels that a stranger builds", (*world).tunnelsOfStrangers},
		{"Item81: what comes and goes through a tunnel of the node's own", (*world).ownTunnel},
		{"packets in clear of pools that require encryption", (*world).neverInClear},
		{"what goes to nodes encrypted", (*world).seenAtNodes},
		{"Item88: router messages", (*world).routerMessages},
		{"packets of no connection", (*world).invalidPackets},
		{"fragments", (*world).fragments},
		{"extension headers", (*world).extensionHeaders},
		{"forged neighbours", (*world).forgedNeighbours},
		{"an interface that is not known", (*world).unknownInterface},
		{"before the first sync", (*world).beforeSync},
		{"an agent that begins anew", (*world).restart},
	} {
		t.Run(a.name, func(t *testing.T) {
			oneCPU(t) // a subtest is a goroutine of its own
			w := newWorld(t, b)
			w.begin()
			a.try(w)
		})
	}
}

func (w *world) forgedSources() {
	w.apply(w.open())
	for _, is6 := range bothFamilies {
		// An address that is routed to the pod but is not, or not any more, its own.
		stale := map[bool]string{false: "10.1.0.77", true: "fd01::77"}[is6]
		w.node.Run("ip", "route", "replace", stale, "dev", w.sites["a"].iface)
		sources := []netip.Addr{netip.MustParseAddr(stale)}
		for _, owner := range []string{"b", "host", "host1", "out0", "rem0", "node1"} {
			sources = append(sources, w.sites[owner].addrs[is6])
		}
		odd := []string{"0.0.0.0", "127.0.0.1", "255.255.255.255", "224.0.0.1", "169.254.1.1"}
		if is6 {
			odd = []string{"::", "::1", "fe80::1", "ff02::1", "fe80::ecee:eeff:feee:eeee"}
		}
		for _, a := range odd {
			sources = append(sources, netip.MustParseAddr(a))
		}
		var honest, forged []shot
		for _, to := range []string{"b", "host", "out0", "out1", "rem0"} {
			for _, proto := range []policy.Protocol{policy.UDP, policy.TCP, echo(is6)} {
				honest = append(honest, w.shot("a", to, is6, proto, 80))
				for _, a := range sources {
					if a != w.sites[to].addrs[is6] {
						forged = append(forged, w.shot("a", to, is6, proto, 80).claiming(a))
					}
				}
			}
		}
		for i := range services {
			s := w.shot("a", services[i], is6, policy.UDP, targetPort)
			forged = append(forged, w.viaService(w.sites["a"], i, is6, s.packet, "").claiming(w.sites["out0"].addrs[is6]))
		}
		w.all(true, honest)
		for _, s := range forged {
			s.from.packet(s.sent())
		}
		w.clock.settle()
		got := w.arrived()
		for _, s := range forged {
			if _, arrived := got[s.id]; arrived {
				w.t.Errorf("%s arrived", s)
			}
		}
		w.node.Run("ip", "route", "del", stale, "dev", w.sites["a"].iface)
	}
}

// forgedEstablished: b and a stranger have an open connection, and a claims to be b.
func (w *world) forgedEstablished() {
	w.apply(w.open())
	for _, is6 := range bothFamilies {
		first := w.shot("out0", "b", is6, policy.UDP, 80)
		w.all(true, []shot{first})
		reply := first
		reply.from, reply.to = first.to, first.from
		reply.Src, reply.Dst, reply.SrcPort, reply.DstPort = first.Dst, first.Src, first.DstPort, first.SrcPort
		w.lastID++
		reply.id = w.lastID
		w.all(true, []shot{reply})
		w.lastID++
		reply.id, reply.from = w.lastID, w.sites["a"]
		w.all(false, []shot{reply})
	}
}

func (w *world) tunnelsOfPods() {
	w.apply(w.open())
	for _, is6 := range bothFamilies {
		for _, to := range []string{"b", "host", "out0", "rem1"} {
			w.all(true, []shot{w.shot("a", to, is6, policy.UDP, 4790)})
			w.all(false, []shot{w.shot("a", to, is6, policy.UDP, 4789), w.shot("a", to, is6, ipInIP, 0)})
		}
	}
	d := w.open()
	d.Settings.PodTunnels = true
	w.apply(d)
	for _, is6 := range bothFamilies {
		for _, to := range []string{"b", "out0", "rem1"} {
			w.all(true, []shot{w.shot("a", to, is6, policy.UDP, 4789), w.shot("a", to, is6, ipInIP, 0)})
		}
	}
	w.apply(w.open())
	w.all(false, []shot{w.shot("a", "b", false, policy.UDP, 4789), w.shot("a", "b", true, ipInIP, 0)})
}

// tunnelsOfStrangers: nobody but a node that is known may put a packet inside of
// another, and what is inside never gets out.
func (w *world) tunnelsOfStrangers() {
	w.apply(w.open())
	for _, from := range []string{"out0", "rem0", "node0"} {
		inner := w.shot("rem1", "a", false, policy.UDP, 80)
		inside := wrap(inner.Src, inner.Dst, inner.Protocol, inner.transport())
		outer := w.shot(from, "host", false, ipInIP, 0)
		outer.from.raw(outer.Src, outer.Dst, ipInIP, inside)
		frame := append([]byte{8, 0, 0, 0, 0, 0, 1, 0, 0xee, 0xee, 0xee, 0xee, 0xee, 0xee, 2, 2, 2, 2, 2, 2, 8, 0}, inside...)
		vxlan := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, 40000), 4789)
		vxlan = binary.BigEndian.AppendUint16(vxlan, uint16(8+len(frame)))
		outer.from.raw(outer.Src, outer.Dst, policy.UDP, append(append(vxlan, 0, 0), frame...))
		w.clock.settle()
		if a, ok := w.arrived()[inner.id]; ok {
			w.t.Errorf("what %s put into a tunnel arrived: %+v", from, a)
		}
	}
}

// routerMessages: a pod is never a router, to nobody, while neighbours find each
// other whatever policy says.
func (w *world) routerMessages() {
	d := w.open()
	for _, dir := range policy.Directions {
		w.close(d, "a", dir)
	}
	w.apply(d)
	for kind, want := range map[uint8]bool{
		130: true, 131: true, 132: true, 133: true, 134: false, 135: true, 136: true, 137: false, 143: true, echoRequest6: false,
	} {
		for _, to := range []string{"host", "b", "out0"} {
			s := w.shot("a", to, true, policy.ICMPv6, 0)
			s.Type = kind
			w.expect(want && to == "host", s)
		}
	}
	w.apply(w.open())
	for _, kind := range []uint8{134, 137} {
		for _, to := range []string{"host", "b", "c", "out0"} {
			s := w.shot("a", to, true, policy.ICMPv6, 0)
			s.Type = kind
			w.expect(false, s)
		}
		s := w.shot("a", "host", true, policy.ICMPv6, 0)
		s.Type, s.Dst = kind, netip.MustParseAddr("ff02::1")
		packet := wrap(s.Src, s.Dst, s.Protocol, s.transport())
		w.sites["a"].frame(append([]byte{0x33, 0x33, 0, 0, 0, 1, 2, 2, 2, 2, 2, 2, 0x86, 0xdd}, packet...))
		w.clock.settle()
		if _, ok := w.arrived()[s.id]; ok {
			w.t.Errorf("a message of type %d to all nodes arrived", kind)
		}
	}
}

func (w *world) invalidPackets() {
	w.apply(w.open())
	for _, is6 := range bothFamilies {
		for _, way := range [][2]string{{"a", "out0"}, {"out0", "b"}, {"a", "b"}, {"a", "host"}} {
			s := w.shot(way[0], way[1], is6, policy.UDP, 80)
			b := s.transport()
			b[7]++ // a wrong checksum
			s.from.raw(s.Src, s.Dst, s.Protocol, b)
			w.clock.settle()
			if _, ok := w.arrived()[s.id]; ok {
				w.t.Errorf("%s arrived with a wrong checksum", s)
			}
		}
	}
}

// unknownInterface: a pod that the agent has not heard of is closed, but to its node.
func (w *world) unknownInterface() {
	d := w.open()
	iface := w.sites["c"].iface
	d.Endpoints[iface] = nil
	w.apply(d)
	for _, is6 := range bothFamilies {
		for _, other := range []string{"a", "host", "out0", "rem1"} {
			w.expect(false, w.shot("c", other, is6, policy.UDP, 80))
			w.expect(other == "host", w.shot(other, "c", is6, policy.UDP, 80))
		}
	}
}

// guarded is what is desired while flows and denied are tried: b takes in UDP
// port 80 only, and c may send nothing.
func (w *world) guarded() desired.Delta {
	d := w.open()
	w.close(d, "b", policy.Ingress, port(policy.UDP, 80))
	w.close(d, "c", policy.Egress)
	return d
}

// restart: an agent that begins anew opens nothing, at no step, and breaks no
// connection that is allowed.
func (w *world) restart() {
	d := w.guarded()
	w.apply(d)
	probe := w.probe()
	probe()
	for _, told := range []desired.Delta{{}, {Settings: d.Settings, Programs: d.Programs, Endpoints: d.Endpoints}, d} {
		w.begin()
		w.plane.between = probe
		w.apply(told)
		probe()
	}
}

// Switch puts one backend in the place of another and back, and looks after every
// step of it: at no moment may a denied packet pass, or one of an established
// connection get lost. What is removed leaves nothing behind.
func Switch(t *testing.T, from, to Backend) {
	t.Helper()
	oneCPU(t)
	w := newWorld(t, from)
	none := map[string]string{from.Name: from.Dump(w.node), to.Name: to.Dump(w.node)}
	w.begin()
	w.apply(w.guarded())
	probe := w.probe()
	for _, next := range []Backend{to, from, to} {
		old, leaves := w.plane, w.backend
		w.backend = next
		w.begin()
		w.plane.between = probe
		w.apply(w.guarded())
		old.between = probe
		w.must(old.uninstall(t.Context()))
		probe()
		if left := leaves.Dump(w.node); left != none[leaves.Name] {
			t.Errorf("%s left behind:\n%s", leaves.Name, differing(none[leaves.Name], left))
		}
	}
}

// probe begins connections, and returns what makes sure that they go on and that
// what is denied stays out.
func (w *world) probe() func() {
	flows := w.flows()
	return func() {
		w.t.Helper()
		w.denied()
		w.all(true, w.again(flows))
	}
}

// denied checks that what the policies of guarded deny stays out.
func (w *world) denied() {
	w.t.Helper()
	var shots []shot
	for _, is6 := range bothFamilies {
		for _, from := range []string{"a", "out0", "rem1"} {
			shots = append(shots, w.shot(from, "b", is6, policy.TCP, 80), w.shot(from, "b", is6, policy.UDP, 81))
		}
		shots = append(shots, w.shot("c", "out0", is6, policy.TCP, 80), w.shot("c", "host", is6, policy.UDP, 80),
			w.shot("a", "out0", is6, policy.UDP, 80).claiming(w.sites["b"].addrs[is6]))
	}
	w.all(false, shots)
}

// flows begins connections that stay allowed, and returns them as established.
func (w *world) flows() []shot {
	w.t.Helper()
	var flows []shot
	for _, is6 := range bothFamilies {
		for _, way := range [][2]string{{"out0", "b"}, {"a", "b"}, {"a", "out1"}, {"rem0", "b"}, {"host", "b"}} {
			s := w.shot(way[0], way[1], is6, policy.UDP, 80)
			answer := s
			answer.from, answer.to = s.to, s.from
			answer.Src, answer.Dst, answer.SrcPort, answer.DstPort = s.Dst, s.Src, s.DstPort, s.SrcPort
			s.State, answer.State = eval.Established, eval.Established
			w.all(true, []shot{s})
			w.all(true, w.again([]shot{answer}))
			flows = append(flows, s, answer)
		}
	}
	return flows
}

// again returns packets of the same connections.
func (w *world) again(flows []shot) []shot {
	out := make([]shot, len(flows))
	for i, s := range flows {
		w.lastID++
		s.id = w.lastID
		out[i] = s
	}
	return out
}

// beforeSync: an agent that knows nothing yet keeps all pods closed.
func (w *world) beforeSync() {
	s := desired.DefaultSettings()
	for _, told := range []desired.Delta{{}, {Settings: &s}, {Programs: map[ir.ProgramID]*ir.Program{}}} {
		w.apply(told)
		for _, is6 := range bothFamilies {
			var shots []shot
			for _, pod := range pods {
				for _, other := range []string{"out0", "rem1", "host"} {
					if shots = append(shots, w.shot(pod, other, is6, policy.UDP, 80)); other != "host" {
						shots = append(shots, w.shot(other, pod, is6, policy.UDP, 80))
					}
				}
			}
			w.all(false, append(shots, w.shot("a", "b", is6, policy.TCP, 80)))
		}
	}
}

// forgedNeighbours: a pod that claims the addresses of others in ARP and ND gets
// none of their packets.
func (w *world) forgedNeighbours() {
	w.apply(w.open())
	for _, pod := range []string{"a", "b"} { // they shall be asked for
		s := w.sites[pod]
		s.ns.Run("nft", "flush ruleset")
		for _, a := range addrsOf(pod) {
			w.node.Run("ip", "neigh", "del", a.String(), "dev", s.iface)
		}
	}
	w.node.Run("ip", "addr", "add", routerAddrs[true]+"/64", "dev", w.sites["b"].iface, "nodad")
	probe := func(is6 bool) bool {
		s := w.shot("out0", "b", is6, policy.UDP, 80)
		got := w.fire([]shot{s})
		a, ok := got[s.id]
		if ok && a.at != w.sites["b"].wire {
			w.t.Errorf("%s arrived at somebody else", s)
		}
		return ok
	}
	for _, is6 := range bothFamilies {
		kerneltest.Eventually(w.t, "a packet to b", func() bool { return probe(is6) })
		for _, victim := range []string{"b", "host", "out0", "rem0"} {
			w.claim("a", w.sites[victim].addrs[is6])
		}
		w.clock.settle()
		for range 5 {
			if !probe(is6) {
				w.t.Errorf("a packet to b got lost (IPv6 %v)", is6)
			}
		}
	}
}

// claim lets a pod tell everybody that an address is its own.
func (w *world) claim(pod string, a netip.Addr) {
	s := w.sites[pod]
	mac := []byte(s.ns.Link("eth0").Attrs().HardwareAddr)
	router := []byte{0xee, 0xee, 0xee, 0xee, 0xee, 0xee}
	if a.Is4() {
		for _, op := range []byte{1, 2} { // request and reply
			for _, to := range [][]byte{{255, 255, 255, 255, 255, 255}, router} {
				f := append(append(append([]byte{}, to...), mac...), 8, 6, 0, 1, 8, 0, 6, 4, 0, op)
				f = append(append(append(f, mac...), a.AsSlice()...), append(append([]byte{}, router...), a.AsSlice()...)...)
				s.frame(f)
			}
		}
		return
	}
	all := netip.MustParseAddr("ff02::1")
	for to, dst := range map[netip.Addr][]byte{all: {0x33, 0x33, 0, 0, 0, 1}, w.sites["host"].addrs[true]: router} {
		b := append([]byte{136, 0, 0, 0, 0x20, 0, 0, 0}, a.AsSlice()...) // an advertisement that overrides
		b = append(append(b, 2, 1), mac...)
		sum := checksum(eval.Packet{Src: a, Dst: to, Protocol: policy.ICMPv6}, b)
		b[2], b[3] = byte(sum>>8), byte(sum)
		f := append(append(append([]byte{}, dst...), mac...), 0x86, 0xdd)
		s.frame(append(f, wrap(a, to, policy.ICMPv6, b)...))
	}
}
