package iptables

import (
	"fmt"
	"net/netip"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy/ir"
)

// nat hides the node in tunnels, and pods behind their node where they leave the
// cluster, which what goes to a node encrypted does not, and leads floating addresses
// to their pods. Our jump stands at the tail of POSTROUTING: kube-proxy comes first,
// takes its mark off what it masquerades, and ends the packet's way there.
func (s style) nat() layer {
	var l layer
	if to := s.floating(); len(to) > 0 {
		l.hooks = []hook{newHook("PREROUTING", false, floatingChain), newHook("OUTPUT", false, floatingChain)}
		l.chains = []chain{newChain(floatingChain, to)}
	}
	leaving := s.tunnelSources()
	if s.masquerade {
		leaving = append(leaving, specs(words(
			s.member(desired.MasqueradeSet, "src"), s.stranger(desired.InsideSet, "dst"), s.inClear(), "-g "+masqueradeChain))...)
		l.chains = append(l.chains, newChain(masqueradeChain, s.hide()))
	}
	if leaving = append(leaving, s.floated()...); len(leaving) > 0 {
		l.hooks = append([]hook{newHook("POSTROUTING", false, postroutingChain)}, l.hooks...)
		l.chains = append([]chain{newChain(postroutingChain, leaving)}, l.chains...)
	}
	return l
}

// hide ends the way of every packet in one of its rules, so that those behind do
// not follow the ones with ports. Ports are chosen at random in any case: two
// connections that choose the same at the same time lose one.
func (s style) hide() []rule {
	m := s.settings.Masquerade
	var rules []rule
	for _, p := range []struct {
		name  string
		ports ir.PortRange
	}{{"tcp", m.Ports}, {"udp", m.UDPPorts(s.tunnelEnds)}} {
		if p.ports != (ir.PortRange{}) {
			rules = append(rules, specs("-p "+p.name+" "+s.behind(m.To(s.family), p.ports))...)
		}
	}
	return append(rules, specs(s.behind(m.To(s.family), ir.PortRange{}))...)
}

// behind is the target that gives packets the source to, or the address of the
// interface, and one of some ports, or any.
func (s style) behind(to netip.Addr, ports ir.PortRange) string {
	target, host := "-j MASQUERADE", ""
	if to.IsValid() {
		target, host = "-j SNAT --to-source ", to.String()
	}
	switch {
	case ports == (ir.PortRange{}):
		target += host
	case !to.IsValid():
		target += fmt.Sprintf(" --to-ports %d-%d", ports.First, ports.Last)
	default:
		target += fmt.Sprintf("%s:%d-%d", bracketed(to), ports.First, ports.Last)
	}
	return target + " --random-fully"
}

// bracketed is how an address before a port is written.
func bracketed(a netip.Addr) string {
	if a.Is6() {
		return "[" + a.String() + "]"
	}
	return a.String()
}
