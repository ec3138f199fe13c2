package iptables

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// tunnelChain is where packets go that carry those of a tunnel, and are for this
// node.
const tunnelChain = "KORAT-TUNNEL"

// wantTunnels takes in what changed of this node's ends of tunnels.
func (f *Firewall) wantTunnels(changes map[desired.TunnelKind]*desired.TunnelDevice) {
	for kind, d := range changes {
		if kind.Is6() != (f.cfg.Family == ir.IPv6) {
			continue
		}
		f.restyled = true
		if delete(f.tunnels, kind); d != nil {
			f.tunnels[kind] = *d
		}
	}
}

// ends returns the tunnels in their order; until the set of nodes is known there
// is nothing to ask.
func (f *Firewall) ends() []desired.TunnelDevice {
	if _, known := f.fixed[desired.NodesSet]; !known {
		return nil
	}
	return slices.SortedFunc(maps.Values(f.tunnels), func(a, b desired.TunnelDevice) int { return cmp.Compare(a.Kind, b.Kind) })
}

// arriving matches what carries packets of a tunnel to this node.
func arriving(d desired.TunnelDevice) string { return around(d, "--dport") }

// leaving matches what carries packets of a tunnel from this node.
func leaving(d desired.TunnelDevice) string {
	if d.SendsFromPort() {
		return around(d, "--sport")
	}
	return around(d, "--dport")
}

func around(d desired.TunnelDevice, side string) string {
	if port, udp := d.UDPPort(); udp {
		return fmt.Sprintf("-p udp -m udp %s %d", side, port)
	}
	return "-p 4"
}

// tunnelsIn stand at the head of raw PREROUTING: nobody but nodes puts packets into
// a tunnel, and no connection is tracked of what carries them.
func (s style) tunnelsIn() (rules []rule, chains []chain) {
	if len(s.tunnelEnds) == 0 {
		return nil, nil
	}
	for _, d := range s.tunnelEnds {
		rules = append(rules, specs(arriving(d)+" "+toHere("-j "+tunnelChain))...)
	}
	stranger := s.deny(desired.Reason{Cause: desired.Tunnel, Direction: policy.Ingress}).when("")
	sources := []string{s.member(desired.NodesSet, "src")}
	for _, p := range s.settings.TunnelSources {
		if s.family.Is(p.Addr()) {
			sources = append(sources, "-s "+p.String())
		}
	}
	var known []rule
	for _, from := range sources {
		known = append(known, specs(from+" -j CT --notrack", from+" -j RETURN")...)
	}
	return rules, []chain{newChain(tunnelChain, append(known, stranger))}
}

// fromNodes do target with what carries packets of tunnels from other nodes.
func (s style) fromNodes(target string) []rule { return s.carriers(arriving, "src", target) }

// toNodes do target with what carries packets of tunnels to other nodes.
func (s style) toNodes(target string) []rule { return s.carriers(leaving, "dst", target) }

// carriers do target with what carries packets of tunnels and has a node at an end,
// "src" or "dst".
func (s style) carriers(carries func(desired.TunnelDevice) string, end, target string) (rules []rule) {
	for _, d := range s.tunnelEnds {
		rules = append(rules, specs(carries(d)+" "+s.member(desired.NodesSet, end)+" "+target)...)
	}
	return rules
}

// toHere is a target for packets that are not passed on to others.
func toHere(target string) string { return "-m addrtype --dst-type LOCAL " + target }

// tunnelSources show the node inside of a tunnel under its address there, whatever
// address its programs use: answers come back through the tunnel then. It is named, as
// MASQUERADE ends connections that move to another interface, and keys take turns.
func (s style) tunnelSources() (rules []rule) {
	for _, d := range s.tunnelEnds {
		if d.Addr.IsValid() {
			rules = append(rules, specs(fmt.Sprintf("! -s %s/%d -o %s -m addrtype --src-type LOCAL %s",
				d.Addr, d.Addr.BitLen(), d.Kind.Device(), s.behind(d.Addr, ir.PortRange{})))...)
		}
	}
	return rules
}
