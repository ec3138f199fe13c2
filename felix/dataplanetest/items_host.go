package dataplanetest

import (
	"net/netip"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// masquerade: pods of one range hide when they leave the cluster, and not inside.
func (w *world) masquerade() {
	of := func(nets ...string) *desired.SetChange {
		c := &desired.SetChange{Kind: ir.Nets, Whole: true, Add: map[ir.Member]struct{}{}}
		for _, n := range nets {
			c.Add[ir.Member{Prefix: netip.MustParsePrefix(n)}] = struct{}{}
		}
		return c
	}
	d := w.open()
	d.Sets = map[ir.SetID]*desired.SetChange{
		desired.MasqueradeSet: of("10.1.0.0/30", "fd01::2/127"), // a and b
		desired.InsideSet:     of("10.1.0.0/16", "fd01::/16", "192.168.8.3/32", "fd08::3/128"),
		desired.NodesSet:      of(), desired.ServicesSet: of(),
	}
	to := map[bool]netip.Addr{false: netip.MustParseAddr("192.168.7.77"), true: netip.MustParseAddr("fd07::77")}
	ports := ir.PortRange{First: 20000, Last: 20999}
	for _, hide := range []desired.Masquerade{{}, {To4: to[false], To6: to[true]}, {Ports: ports}, {To4: to[false], To6: to[true], Ports: ports}} {
		d.Settings = new(*d.Settings)
		d.Settings.Masquerade = hide
		w.apply(d)
		for _, is6 := range bothFamilies {
			for _, proto := range []policy.Protocol{policy.TCP, policy.UDP, echo(is6)} {
				family := ir.IPv4
				if is6 {
					family = ir.IPv6
				}
				for dst, node := range map[string]string{"out0": "host", "out1": "host1", "node0": "host"} {
					face := hide.To(family)
					if !face.IsValid() {
						face = w.sites[node].addrs[is6]
					}
					w.hides("a", dst, is6, proto, face, hide.Ports)
					w.hides("c", dst, is6, proto, w.sites["c"].addrs[is6], ir.PortRange{})
				}
				for _, dst := range []string{"b", "host", "rem0", "node1"} {
					w.hides("a", dst, is6, proto, w.sites["a"].addrs[is6], ir.PortRange{})
				}
				w.hides("out0", "a", is6, proto, w.sites["out0"].addrs[is6], ir.PortRange{})
				w.hides("host", "out0", is6, proto, w.sites["host"].addrs[is6], ir.PortRange{})
			}
		}
	}
}

// hides checks from which address a packet arrives, and that an answer to it does.
func (w *world) hides(from, to string, is6 bool, proto policy.Protocol, face netip.Addr, ports ir.PortRange) {
	w.t.Helper()
	s := w.shot(from, to, is6, proto, 80)
	a, ok := w.fire([]shot{s})[s.id]
	if !ok || a.src != face && !(to == "host" && is6) {
		w.t.Errorf("%s: arrived %v, from %s, want %s", s, ok, a.src, face)
		return
	}
	if ports.Last != 0 && proto.HasPorts() && (a.srcPort < ports.First || a.srcPort > ports.Last) {
		w.t.Errorf("%s: arrived from port %d, want %d to %d", s, a.srcPort, ports.First, ports.Last)
	}
	if proto == policy.UDP && to != "host" {
		w.expect(true, w.answered(s, a))
	}
}

// failsafes: a host whose policies deny everything at every point.
func (w *world) failsafes() {
	d := w.open()
	deny := ir.Rule{Action: policy.Deny}
	chain := func(name string, dir policy.Direction) ir.Chain {
		id := ir.ProgramID{Policy: policy.Key{Kind: policy.GlobalNetworkPolicy, Name: name}, Direction: dir}
		d.Programs[id] = &ir.Program{ID: id, Rules: []ir.Rule{deny}}
		return ir.Chain{Tiers: []ir.Tier{{Name: "default", Programs: []ir.ProgramID{id}, End: policy.Pass}}, Default: policy.Allow}
	}
	both := func(name string) desired.Chains {
		return desired.Chains{Ingress: chain(name, policy.Ingress), Egress: chain(name, policy.Egress)}
	}
	h := desired.HostEndpoint{Name: "h", Interface: desired.AnyInterface, Normal: unjudged, Forward: unjudged, PreDNAT: unjudged, Untracked: unjudged}
	for _, set := range []func(h *desired.HostEndpoint){
		func(h *desired.HostEndpoint) { h.Normal = both("normal") },
		func(h *desired.HostEndpoint) { h.PreDNAT.Ingress = chain("early", policy.Ingress) },
		func(h *desired.HostEndpoint) { h.Untracked = both("untracked") },
		func(h *desired.HostEndpoint) { h.Normal, h.Untracked = both("normal"), both("untracked") },
	} {
		one := h
		set(&one)
		d.HostEndpoints = map[string]*desired.HostEndpoint{one.Interface: &one}
		w.apply(d)
		for _, is6 := range bothFamilies {
			w.alive(is6, len(one.PreDNAT.Ingress.Tiers) == 0)
		}
	}
}

// alive checks that a node talks through its failsafe ports and no others.
func (w *world) alive(is6, out bool) {
	w.t.Helper()
	in := []shot{w.shot("out0", "host", is6, policy.TCP, 22), w.shot("out1", "host1", is6, policy.TCP, 10250), w.shot("node0", "host", is6, policy.UDP, 68), w.shot("out0", "host", is6, policy.UDP, 3784)}
	own := []shot{w.shot("host", "out0", is6, policy.UDP, 53), w.shot("host", "out0", is6, policy.UDP, 4784), w.shot("host1", "out1", is6, policy.TCP, 6443)}
	w.all(true, append(in, own...))
	w.all(true, []shot{w.reversed(in[2]), w.reversed(own[0])})
	w.all(false, []shot{w.shot("out0", "host", is6, policy.TCP, 23), w.shot("out1", "host", is6, policy.UDP, 22), w.shot("out0", "host", is6, echo(is6), 0)})
	if out {
		w.all(false, []shot{w.shot("host", "out0", is6, policy.UDP, 54), w.shot("host", "out1", is6, policy.TCP, 22)})
	}
	w.all(true, []shot{w.shot("a", "host", is6, policy.TCP, 23), w.shot("host", "a", is6, policy.TCP, 23)})
}

// reversed is an answer within an established connection.
func (w *world) reversed(s shot) shot {
	return w.answered(s, arrival{src: s.Src, srcPort: s.SrcPort})
}
