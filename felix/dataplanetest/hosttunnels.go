package dataplanetest

import (
	"fmt"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/eval"
	"github.com/koratnet/korat/policy/ir"
)

// hostTunnels: policies of host endpoints before translation, before tracking and of what
// the node passes on judge what comes out of tunnels and goes into them as policy/eval
// says, whether the endpoint is the tunnel's, the wire's or that of all interfaces. What
// carries packets passes between nodes whatever they say; of what others put in who are let
// in, the host endpoint decides; and strangers put nothing in.
func (w *world) hostTunnels() {
	d := w.open()
	d.Tunnels = w.attachTunnels(insideOf)
	tunnels := []string{}
	for kind := range insideOf {
		tunnels = append(tunnels, kind.Device())
	}
	nodes := &desired.SetChange{Kind: ir.Nets, Whole: true, Add: map[ir.Member]struct{}{}}
	for _, a := range append(addrsOf("host"), addrsOf("node0")...) {
		nodes.Add[single(a)] = struct{}{}
	}
	d.Sets = map[ir.SetID]*desired.SetChange{desired.NodesSet: nodes}
	for _, a := range addrsOf("rem0") {
		d.Settings.TunnelSources = append(d.Settings.TunnelSources, single(a).Prefix)
	}
	for where, ifaces := range map[string][]string{"of tunnels": tunnels, "of the wire": {"eth0"}, "of all": {desired.AnyInterface}} {
		for hook, set := range w.earlyAndForward(d) {
			d.HostEndpoints = map[string]*desired.HostEndpoint{}
			for _, old := range append(tunnels, "eth0", desired.AnyInterface) {
				d.HostEndpoints[old] = nil
			}
			for _, iface := range ifaces {
				ep := &desired.HostEndpoint{Name: "h", Interface: iface, Normal: unjudged, Forward: unjudged, PreDNAT: unjudged, Untracked: unjudged}
				set(ep)
				d.HostEndpoints[iface] = ep
			}
			w.apply(d)
			what := fmt.Sprintf("%s policy of the host endpoint %s", hook, where)
			law := lawOf(d)
			w.insideIsLawful(what, law)
			for kind, end := range d.Tunnels {
				w.carriersPass(what, kind, *end, law)
			}
		}
	}
}

// earlyAndForward returns what sets policies of a host endpoint that allow one port.
func (w *world) earlyAndForward(d desired.Delta) map[string]func(*desired.HostEndpoint) {
	both := func(name string) desired.Chains {
		return desired.Chains{Ingress: allowing(d, name, policy.Ingress, 80), Egress: allowing(d, name, policy.Egress, 80)}
	}
	preDNAT, untracked, forward := allowing(d, "early", policy.Ingress, 80), both("untracked"), both("forward")
	return map[string]func(*desired.HostEndpoint){
		"preDNAT":        func(h *desired.HostEndpoint) { h.PreDNAT.Ingress = preDNAT },
		"untracked":      func(h *desired.HostEndpoint) { h.Untracked = untracked },
		"applyOnForward": func(h *desired.HostEndpoint) { h.Forward = forward },
		"every": func(h *desired.HostEndpoint) {
			h.PreDNAT.Ingress, h.Untracked, h.Forward, h.Normal = preDNAT, untracked, forward, forward
		},
	}
}

// insideIsLawful sends packets out of all tunnels and into them: to and from the node, a
// pod and another interface, and by way of a service. Then answers to those that arrive.
func (w *world) insideIsLawful(what string, law *eval.Host) {
	w.t.Helper()
	var shots []shot
	for kind, site := range insideOf {
		is6 := kind.Is6()
		for _, number := range []uint16{80, 81} {
			for _, other := range []string{"host", "a", "out1"} {
				shots = append(shots, w.shot(site, other, is6, policy.UDP, number), w.shot(other, site, is6, policy.UDP, number))
			}
		}
		for _, nodePort := range []string{"", "host"} {
			s := w.shot(site, services[0], is6, policy.UDP, targetPort)
			shots = append(shots, w.viaService(s.from, 0, is6, s.packet, nodePort))
		}
	}
	var answers []shot
	for i, v := range w.lawful(what, law, shots) {
		if s := shots[i]; v.Action == policy.Allow && !v.Untracked && !s.before.IsValid() {
			answers = append(answers, w.reversed(s))
		}
	}
	w.lawful(what+", answers", law, answers)
}

// lawful checks of shots that those arrive that policy/eval lets through.
func (w *world) lawful(what string, law *eval.Host, shots []shot) []eval.Crossing {
	w.t.Helper()
	got, verdicts := w.fire(shots), make([]eval.Crossing, len(shots))
	for i, s := range shots {
		verdicts[i] = s.judged(law)
		want := verdicts[i].Action == policy.Allow
		if _, arrived := got[s.id]; arrived != want {
			w.t.Errorf("%s: %s: arrived %v, policy/eval says %v", what, s, arrived, want)
		}
	}
	return verdicts
}

// carriersPass sends what carries packets of a tunnel. Of what is not between this node
// and another, policy/eval says what becomes.
func (w *world) carriersPass(what string, kind desired.TunnelKind, end desired.TunnelDevice, law *eval.Host) {
	w.t.Helper()
	number, udp := end.UDPPort()
	proto := policy.UDP
	if !udp {
		proto = ipInIP
	}
	of := func(from, to string) shot { return w.shot(from, to, kind.Is6(), proto, number) }
	what += ", what carries packets of " + kind.Device()
	w.lawful(what, law, []shot{of("rem0", "host"), of("node0", "out1")})
	toNode := of("host", "node0")
	if kind.Encapsulation() == desired.WireGuard { // the other node may listen at another one
		toNode.SrcPort, toNode.DstPort = number, number+1000
	}
	between, stranger := []shot{of("node0", "host"), toNode}, of("out0", "host")
	got := w.fire(append(between, stranger))
	for _, s := range between {
		if _, arrived := got[s.id]; !arrived {
			w.t.Errorf("%s: %s got lost", what, s)
		}
	}
	if _, arrived := got[stranger.id]; arrived {
		w.t.Errorf("%s: %s arrived", what, stranger)
	}
}
