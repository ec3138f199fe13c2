package iptables

import (
	"fmt"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy/ir"
)

// nat hides the node in tunnels, and pods behind their node where they leave the
// cluster. Our jump stands at the tail of POSTROUTING: kube-proxy comes first, takes
// its mark off what it masquerades, and ends the packet's way there.
func (s style) nat() layer {
	leaving := s.tunnelSources()
	var hidden []chain
	if s.masquerade {
		leaving = append(leaving, specs(fmt.Sprintf("-m set --match-set %s src -m set ! --match-set %s dst -g %s",
			desired.SetName(desired.MasqueradeSet, s.family), desired.SetName(desired.InsideSet, s.family), masqueradeChain))...)
		hidden = []chain{newChain(masqueradeChain, s.hide())}
	}
	if len(leaving) == 0 {
		return layer{}
	}
	return layer{
		hooks:  []hook{newHook("POSTROUTING", false, postroutingChain)},
		chains: append([]chain{newChain(postroutingChain, leaving)}, hidden...),
	}
}

// hide ends the way of every packet in one of its rules, so that those behind do
// not follow the ones with ports. Ports are chosen at random in any case: two
// connections that choose the same at the same time lose one.
func (s style) hide() []rule {
	m := s.settings.Masquerade
	behind, ports := "-j MASQUERADE --random-fully", " --to-ports %d-%d"
	to := m.To(s.family)
	if to.IsValid() {
		behind = "-j SNAT --to-source " + to.String() + " --random-fully"
	}
	if m.Ports == (ir.PortRange{}) {
		return specs(behind)
	}
	within := "-j MASQUERADE" + fmt.Sprintf(ports, m.Ports.First, m.Ports.Last) + " --random-fully"
	if to.IsValid() {
		host := to.String()
		if s.family == ir.IPv6 {
			host = "[" + host + "]"
		}
		within = fmt.Sprintf("-j SNAT --to-source %s:%d-%d --random-fully", host, m.Ports.First, m.Ports.Last)
	}
	return specs("-p tcp "+within, "-p udp "+within, behind)
}
