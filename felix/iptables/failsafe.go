package iptables

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// hostTypes are the messages of ICMPv6 without which a node loses its network:
// they pass host endpoints whatever policy says. A redirect is not among them.
var hostTypes = []int{130, 131, 132, 133, 134, 135, 136, 143}

// neighbours lets them go on to target.
func (s style) neighbours(target string) []rule {
	if s.family != ir.IPv6 {
		return nil
	}
	var rules []rule
	for _, t := range hostTypes {
		rules = append(rules, rule{spec: icmp6(t) + " " + target})
	}
	return rules
}

// failsafe lets what keeps the node alive go on to target: what list opens at the
// "d"(estination) or "s"(ource) port, to and from others at the address that other
// names, "-s " or "-d ".
func (s style) failsafe(list []desired.Failsafe, end, other, target string) []rule {
	type group struct {
		protocol policy.Protocol
		net      netip.Prefix
	}
	ports := map[group][]ir.PortRange{}
	var order []group
	for _, f := range list {
		if !f.Protocol.HasPorts() || f.Net.IsValid() && !s.family.Is(f.Net.Addr()) {
			continue
		}
		g := group{f.Protocol, f.Net}
		if !slices.Contains(order, g) {
			order = append(order, g)
		}
		ports[g] = append(ports[g], ir.PortRange{First: f.Port, Last: f.Port})
	}
	var rules []rule
	for _, g := range order {
		from := ""
		if g.net.IsValid() && g.net.Bits() > 0 {
			from = other + g.net.Masked().String()
		}
		for _, list := range portLists(ir.Merged(ports[g])) {
			rules = append(rules, rule{spec: words(protocol(g.protocol), from, portMatch(g.protocol, end, list), target)})
		}
	}
	return rules
}

// portMatch matches a list of ports; one port or range alone is cheaper without multiport.
func portMatch(p policy.Protocol, end, list string) string {
	if strings.Contains(list, ",") {
		return "-m multiport --" + end + "ports " + list
	}
	return "-m " + protocolNames[p] + " --" + end + "port " + list
}

// failsafeIn and failsafeOut are for where the replies are known by their state.
func (s style) failsafeIn(target string) []rule {
	return append(s.neighbours(target), s.failsafe(s.settings.FailsafeIn, "d", "-s ", target)...)
}

func (s style) failsafeOut(target string) []rule {
	return append(s.neighbours(target), s.failsafe(s.settings.FailsafeOut, "d", "-d ", target)...)
}

// replies are for where they are not: before connection tracking. Half of a
// connection would else not be tracked.
func (s style) repliesIn(target string) []rule {
	return s.failsafe(s.settings.FailsafeOut, "s", "-s ", target)
}

func (s style) repliesOut(target string) []rule {
	return s.failsafe(s.settings.FailsafeIn, "s", "-d ", target)
}
