package dataplanetest

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/eval"
	"github.com/koratnet/korat/policy/ir"
)

// Items tries details that are easily got wrong, each by a number under which
// tests of other packages know it too.
func Items(t *testing.T, b Backend) {
	t.Helper()
	for _, item := range []struct {
		name string
		try  func(w *world)
	}{
		{"Item27EstablishedConnectionsOutliveAChangeOfPolicy", (*world).outlive},
		{"Item28RepliesBehindAServiceArePartOfTheConnection", (*world).serviceReplies},
		{"Item28InvalidPacketsCanBeLeftToPolicy", (*world).invalidAllowed},
		{"Item35EverythingIsEverything", (*world).everything},
		{"Item41TheOwnNodeReachesItsPodsAndOthersAskPolicy", (*world).ownNode},
		{"Item42APodReachesItselfThroughAService", (*world).itself},
		{"Item46ErrorsAboutAConnectionPassAndPingsAskPolicy", (*world).errors},
		{"SegmentsOfTCPFitTheWayWhereThatIsAskedFor", (*world).clamped},
		{"Item80PodsHideWhenTheyLeaveTheCluster", (*world).masquerade},
		{"FloatingAddressesLeadToTheirPods", (*world).floating},
		{"Item82RulesStayWithoutAnAgentAndGoWhenAsked", (*world).stay},
		{"Item83NothingGoesBeforeEverythingIsKnown", (*world).keep},
		{"Item85FailsafesComeBeforeEveryPolicyOfTheHost", (*world).failsafes},
		{"TheHostEndpointOfTheWireJudgesWhatIsEncrypted", (*world).hostWire},
		{"HostEndpointsJudgeTunnelsBeforeTranslationAndTrackingAndPassingOn", (*world).hostTunnels},
		{"Item86LongNamesAndLists", (*world).long},
		{"Item86ManyPoliciesOfOnePod", (*world).many},
		{"Item87MarksOfOthers", (*world).foreignMarks},
	} {
		t.Run(item.name, func(t *testing.T) {
			oneCPU(t) // a subtest is a goroutine of its own
			w := newWorld(t, b)
			w.begin()
			item.try(w)
		})
	}
}

func (w *world) outlive() {
	w.apply(w.open())
	flows := w.flows()
	d := w.open()
	for _, pod := range pods {
		w.close(d, pod, policy.Ingress)
		w.close(d, pod, policy.Egress)
	}
	w.apply(d)
	w.all(true, w.again(flows))
	w.all(false, []shot{w.shot("out0", "b", false, policy.UDP, 80), w.shot("a", "out1", true, policy.UDP, 80)})
}

// answered returns the packet that answers one as it arrived, between the same sites.
func (w *world) answered(s shot, a arrival) shot {
	p := s.Packet
	p.Src, p.SrcPort, p.Dst, p.DstPort, p.State = s.Dst, s.DstPort, a.src, a.srcPort, eval.Established
	w.lastID++
	return shot{from: s.to, to: s.from, packet: packet{p, w.lastID}}
}

func (w *world) serviceReplies() {
	d := w.open()
	for _, pod := range pods {
		w.close(d, pod, policy.Egress)
	}
	w.apply(d)
	for _, is6 := range bothFamilies {
		for i, name := range services[:len(pods)] {
			for _, nodePort := range []string{"", "host"} {
				s := w.shot("out1", name, is6, policy.UDP, targetPort)
				s = w.viaService(s.from, i, is6, s.packet, nodePort)
				a, ok := w.fire([]shot{s})[s.id]
				if !ok {
					w.t.Errorf("%s got lost", s)
					continue
				}
				reply := w.answered(s, a)
				got, ok := w.fire([]shot{reply})[reply.id]
				if !ok || got.src != s.before.Addr() || got.srcPort != s.before.Port() {
					w.t.Errorf("the answer to %s: arrived %v, from %s port %d", s, ok, got.src, got.srcPort)
				}
			}
		}
	}
}

func (w *world) invalidAllowed() {
	d := w.open()
	d.Settings.Invalid = policy.Allow
	w.close(d, "b", policy.Ingress, port(policy.UDP, 80))
	w.apply(d)
	for _, is6 := range bothFamilies {
		for number, want := range map[uint16]bool{80: true, 81: false} {
			s := w.shot("out0", "b", is6, policy.UDP, number)
			b := s.transport()
			b[7]++ // a wrong checksum
			s.from.raw(s.Src, s.Dst, s.Protocol, b)
			w.clock.settle()
			if _, ok := w.arrived()[s.id]; ok != want {
				w.t.Errorf("%s with a wrong checksum: arrived: %v, want %v", s, ok, want)
			}
		}
	}
}

// everything: a range without bits has every address, in rules and in sets.
func (w *world) everything() {
	all := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	for i, family := range bothFamilies {
		for name, r := range map[string]ir.Rule{
			"rule": {Action: policy.Allow, SrcNets: all[i : i+1]}, "set": {Action: policy.Allow, SrcSets: []ir.SetID{"all"}},
			"both": {Action: policy.Allow, SrcSets: []ir.SetID{"all"}, DstNets: all[i : i+1]},
		} {
			d := w.open()
			d.Sets = map[ir.SetID]*desired.SetChange{"all": {Kind: ir.Nets, Whole: true, Add: map[ir.Member]struct{}{{Prefix: all[i]}: {}}}}
			w.close(d, "b", policy.Ingress, r)
			w.apply(d)
			for _, is6 := range bothFamilies {
				for _, from := range []string{"a", "out0", "rem1"} {
					if s := w.shot(from, "b", is6, policy.TCP, 80); is6 == family {
						w.expect(true, s)
					} else {
						w.expect(false, s)
					}
				}
			}
			if w.t.Failed() {
				w.t.Fatalf("so it is for all of IPv6 %v in %s", family, name)
			}
		}
	}
}

func (w *world) ownNode() {
	d := w.open()
	for _, pod := range pods {
		w.close(d, pod, policy.Ingress)
	}
	w.apply(d)
	for _, is6 := range bothFamilies {
		for _, proto := range []policy.Protocol{policy.TCP, policy.UDP, policy.SCTP, echo(is6)} {
			for _, pod := range pods {
				w.all(true, []shot{w.shot("host", pod, is6, proto, 80), w.shot("host1", pod, is6, proto, 80)})
				w.all(false, []shot{w.shot("node0", pod, is6, proto, 80), w.shot("node1", pod, is6, proto, 80)})
			}
		}
	}
}

func (w *world) itself() {
	d := w.open()
	w.close(d, "a", policy.Ingress)
	w.close(d, "a", policy.Egress)
	w.apply(d)
	for _, is6 := range bothFamilies {
		for _, proto := range []policy.Protocol{policy.TCP, policy.UDP, policy.SCTP} {
			s := w.shot("a", "a", is6, proto, targetPort)
			w.expect(true, w.viaService(s.from, 0, is6, s.packet, ""))
			s = w.shot("b", "a", is6, proto, targetPort)
			w.expect(false, w.viaService(s.from, 0, is6, s.packet, ""))
		}
	}
}

// errors: b takes in one port and sends nothing of its own.
func (w *world) errors() {
	d := w.open()
	w.close(d, "b", policy.Ingress, port(policy.UDP, 80))
	w.close(d, "b", policy.Egress, port(policy.UDP, 80))
	w.apply(d)
	for _, is6 := range bothFamilies {
		in, out := w.shot("out0", "b", is6, policy.UDP, 80), w.shot("b", "out1", is6, policy.UDP, 80)
		unknown := w.shot("out0", "b", is6, policy.UDP, 80)
		w.all(true, []shot{in, out})
		if !w.reports("b", "out0", in) {
			w.t.Errorf("an error of b about %s got lost", in)
		}
		if !w.reports("rem0", "b", out) { // a router on the way
			w.t.Errorf("an error to b about %s got lost", out)
		}
		if w.reports("b", "out0", unknown) || w.reports("rem0", "b", w.shot("b", "out1", is6, policy.UDP, 80)) {
			w.t.Error("an error about nothing arrived")
		}
		w.all(false, []shot{w.shot("b", "out0", is6, echo(is6), 0), w.shot("out0", "b", is6, echo(is6), 0)})
	}
}

// reports sends an error about a packet, that it was too big, and reports whether
// it arrived.
func (w *world) reports(from, to string, about shot) bool {
	w.t.Helper()
	is6 := about.Src.Is6()
	e := eval.Packet{Src: w.sites[from].addrs[is6], Dst: w.sites[to].addrs[is6], Protocol: echo(is6)}
	b := []byte{3, 4, 0, 0, 0, 0, 5, 0} // fragmentation needed, 1280
	if is6 {
		b[0], b[1] = 2, 0 // packet too big
	}
	b = append(b, wrap(about.Src, about.Dst, about.Protocol, about.transport())...)
	sum := checksum(e, b)
	b[2], b[3] = byte(sum>>8), byte(sum)
	w.sites[from].raw(e.Src, e.Dst, e.Protocol, b)
	w.clock.settle()
	return slices.ContainsFunc(w.packets(w.sites[to], e.Src), func(p []byte) bool {
		proto, body := upper(p)
		return proto == e.Protocol && body[0] == b[0]
	})
}

// stay: what is in the kernel needs no agent, and goes whole when it is asked to.
func (w *world) stay() {
	none := w.backend.Dump(w.node)
	w.apply(w.guarded())
	probe := w.probe()
	w.plane = nil // nobody is at work
	probe()
	w.begin() // a life that has heard of nothing
	w.must(w.plane.uninstall(w.t.Context()))
	if left := w.backend.Dump(w.node); left != none {
		w.t.Errorf("left behind:\n%s", differing(none, left))
	}
	w.all(true, []shot{w.shot("out0", "b", false, policy.TCP, 80), w.shot("c", "out1", true, policy.UDP, 80)})
}

// keep: endpoints that the new life has not heard of stay as they are until it
// has heard everything.
func (w *world) keep() {
	d := w.guarded()
	w.apply(d)
	probe := w.probe()
	w.begin()
	part := desired.Delta{Settings: d.Settings, Endpoints: map[string]*desired.Endpoint{}}
	iface := w.sites["a"].iface
	part.Endpoints[iface] = d.Endpoints[iface]
	w.apply(part)
	probe()
	w.apply(desired.Delta{Complete: true})
	for _, pod := range []string{"b", "c"} {
		w.expect(false, w.shot("out0", pod, false, policy.UDP, 80))
	}
	w.expect(true, w.shot("out0", "a", false, policy.UDP, 80))
}

// long: two policies whose long names differ at the end, and more ports than fit
// into a rule.
func (w *world) long() {
	d := w.open()
	base := strings.Repeat("x", 252)
	ep := *d.Endpoints[w.sites["b"].iface]
	ep.Ingress = ir.Chain{Default: policy.Deny, Tiers: []ir.Tier{{Name: base + "tier", End: policy.Pass}}}
	for i, end := range []string{"y", "z"} {
		id := ir.ProgramID{Policy: policy.Key{Namespace: base[:63], Name: base + end}, Direction: policy.Ingress}
		r := ir.Rule{Action: policy.Allow, Protocol: policy.TCP}
		for k := range 40 {
			first := uint16(1000*(i+1) + 10*k)
			r.DstPorts = append(r.DstPorts, ir.PortRange{First: first, Last: first + uint16(k%2)})
		}
		d.Programs[id] = &ir.Program{ID: id, Rules: []ir.Rule{r}}
		ep.Ingress.Tiers[0].Programs = append(ep.Ingress.Tiers[0].Programs, id)
	}
	d.Endpoints[ep.Interface] = &ep
	w.apply(d)
	var in, out []shot
	for _, is6 := range bothFamilies {
		for _, base := range []uint16{1000, 2000} {
			for k := range uint16(40) {
				in = append(in, w.shot("out0", "b", is6, policy.TCP, base+10*k))
				out = append(out, w.shot("out0", "b", is6, policy.TCP, base+10*k+2), w.shot("out0", "b", is6, policy.UDP, base+10*k))
			}
		}
	}
	w.all(true, in)
	w.all(false, out)
}

// foreignMarks: marks of others come through, and bits like ours open nothing.
func (w *world) foreignMarks() {
	for _, ours := range []uint32{desired.DefaultSettings().Marks, 0xf1f00000} {
		d := w.guarded()
		d.Settings.Marks = ours
		w.apply(d)
		probe := w.probe()
		probe()
		w.node.Run("nft", "add table inet marks; flush table inet marks; "+
			"add chain inet marks before { type filter hook prerouting priority -400; }; add rule inet marks before meta mark set 0xffff4000; "+
			"add chain inet marks after { type filter hook postrouting priority 90; }; add rule inet marks after iifname kor* meta mark & 0x4000 == 0 drop")
		probe()
		w.node.Run("nft", "delete", "table", "inet", "marks")
	}
}
