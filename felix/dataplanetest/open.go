package dataplanetest

import (
	"net/netip"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/eval"
	"github.com/koratnet/korat/policy/ir"
)

// open is the Delta with which everything passes that no rule for all pods stops.
func (w *world) open() desired.Delta {
	s := desired.DefaultSettings()
	d := desired.Delta{Complete: true, Settings: &s, Endpoints: map[string]*desired.Endpoint{}, Programs: map[ir.ProgramID]*ir.Program{}}
	for _, pod := range pods {
		iface := w.sites[pod].iface
		open := ir.Chain{Default: policy.Allow}
		d.Endpoints[iface] = &desired.Endpoint{
			Interface: iface, Pod: "test/" + pod, Generation: 1, Addrs: addrsOf(pod), Ingress: open, Egress: open,
		}
	}
	return d
}

// close makes a direction of a pod in d one that lets in or out what the rules allow.
func (w *world) close(d desired.Delta, pod string, dir policy.Direction, rules ...ir.Rule) {
	id := ir.ProgramID{Policy: policy.Key{Namespace: "test", Name: pod}, Direction: dir}
	d.Programs[id] = &ir.Program{ID: id, Rules: rules}
	chain := ir.Chain{Tiers: []ir.Tier{{Name: "default", Programs: []ir.ProgramID{id}, End: policy.Deny}}}
	ep := *d.Endpoints[w.sites[pod].iface]
	if dir == policy.Ingress {
		ep.Ingress = chain
	} else {
		ep.Egress = chain
	}
	d.Endpoints[ep.Interface] = &ep
}

// unjudged are the chains of a host endpoint that no policy selects.
var unjudged = desired.Chains{Ingress: ir.Chain{Default: policy.Allow}, Egress: ir.Chain{Default: policy.Allow}}

// allowing adds to d a policy of hosts that lets pass one port of UDP, and returns the
// chain of a host endpoint that it selects.
func allowing(d desired.Delta, name string, dir policy.Direction, number uint16) ir.Chain {
	id := ir.ProgramID{Policy: policy.Key{Kind: policy.GlobalNetworkPolicy, Name: name}, Direction: dir}
	d.Programs[id] = &ir.Program{ID: id, Rules: []ir.Rule{port(policy.UDP, number)}}
	return ir.Chain{Tiers: []ir.Tier{{Name: "default", Programs: []ir.ProgramID{id}, End: policy.Deny}}}
}

// insideOf are the sites that tunnels lead to, where a test attaches them.
var insideOf = map[desired.TunnelKind]string{
	desired.VXLAN4: "vx4", desired.VXLAN6: "vx6", desired.IPIP4: "ipip4",
	desired.WireGuard4: "enc4", desired.WireGuard4Odd: "odd4", desired.WireGuard6: "enc6", desired.WireGuard6Odd: "odd6",
}

// attachTunnels attaches to the node what is inside of tunnels, and returns its ends.
func (w *world) attachTunnels(inside map[desired.TunnelKind]string) map[desired.TunnelKind]*desired.TunnelDevice {
	ends := map[desired.TunnelKind]*desired.TunnelDevice{}
	for kind, site := range inside {
		w.attach(kind.Device(), []string{site}, nil) // the name is what counts
		ends[kind] = &desired.TunnelDevice{Kind: kind, Underlay: w.sites["host"].addrs[kind.Is6()], Port: desired.WireGuardPort4 + uint16(kind-desired.WireGuard4)}
	}
	return ends
}

// port is the rule that allows one port of a protocol.
func port(p policy.Protocol, number uint16) ir.Rule {
	return ir.Rule{Action: policy.Allow, Protocol: p, DstPorts: []ir.PortRange{{First: number, Last: number}}}
}

// shot makes a packet between two sites.
func (w *world) shot(from, to string, is6 bool, proto policy.Protocol, dst uint16) shot {
	p := eval.Packet{Src: w.sites[from].addrs[is6], Dst: w.sites[to].addrs[is6], Protocol: proto, DstPort: dst}
	switch proto {
	case policy.ICMP:
		p.Type = echoRequest
	case policy.ICMPv6:
		p.Type = echoRequest6
	}
	return shot{from: w.sites[from], to: w.sites[to], packet: w.numbered(p)}
}

// echo returns the protocol of pings.
func echo(is6 bool) policy.Protocol {
	if is6 {
		return policy.ICMPv6
	}
	return policy.ICMP
}

// claiming returns a shot that says to be from another address.
func (s shot) claiming(a netip.Addr) shot {
	s.Src = a
	return s
}

// all checks of many shots at once whether they arrive.
func (w *world) all(arrive bool, shots []shot) {
	w.t.Helper()
	got := w.fire(shots)
	for _, s := range shots {
		if _, arrived := got[s.id]; arrived != arrive {
			w.t.Errorf("%s: arrived: %v, want %v", s, arrived, arrive)
		}
	}
}
