package dataplanetest

import (
	"maps"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy"
)

// hostWire: the host endpoint of the wire also stands for the tunnels that encrypt, but for
// what the node passes on: what comes to the node out of them, and what it sends into them,
// is denied and allowed as on the wire itself. Where it stands for none, all passes.
func (w *world) hostWire() {
	inside := maps.Clone(insideOf)
	maps.DeleteFunc(inside, func(kind desired.TunnelKind, _ string) bool { return kind.Encapsulation() != desired.WireGuard })
	d := w.open()
	d.Tunnels = w.attachTunnels(inside)
	both := func(name string, in, out uint16) desired.Chains {
		return desired.Chains{Ingress: allowing(d, name, policy.Ingress, in), Egress: allowing(d, name, policy.Egress, out)}
	}
	wire := desired.HostEndpoint{Name: "wire", Interface: "eth0", Normal: both("normal", 80, 90), Forward: both("forward", 70, 70), PreDNAT: unjudged, Untracked: unjudged}
	d.HostEndpoints = map[string]*desired.HostEndpoint{"eth0": &wire}
	w.apply(d)
	for kind, site := range inside {
		in, out := w.throughHost("out0", kind.Is6())
		w.all(true, []shot{in(80), out(90)})
		w.all(false, []shot{in(81), out(91)})
		in, out = w.throughHost(site, kind.Is6())
		w.all(true, []shot{in(80), in(81), out(90), out(91)})
	}
	more := desired.Delta{HostEndpoints: map[string]*desired.HostEndpoint{}}
	for kind := range inside {
		ep := wire
		ep.Interface, ep.Forward = kind.Device(), unjudged
		more.HostEndpoints[ep.Interface] = &ep
	}
	w.apply(more)
	for kind, site := range inside {
		for _, from := range []string{"out0", site} {
			in, out := w.throughHost(from, kind.Is6())
			w.all(true, []shot{in(80), out(90)})
			w.all(false, []shot{in(81), out(91), in(90), out(80)})
		}
		w.all(false, []shot{w.shot("out0", "a", kind.Is6(), policy.UDP, 81), w.shot("a", "out0", kind.Is6(), policy.UDP, 81)})
		w.all(true, []shot{w.shot(site, "a", kind.Is6(), policy.UDP, 81), w.shot("a", site, kind.Is6(), policy.UDP, 81)})
	}
}

// throughHost returns what makes packets of UDP from a site to the node, and back.
func (w *world) throughHost(site string, is6 bool) (in, out func(port uint16) shot) {
	return func(port uint16) shot { return w.shot(site, "host", is6, policy.UDP, port) },
		func(port uint16) shot { return w.shot("host", site, is6, policy.UDP, port) }
}
