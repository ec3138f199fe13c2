package nft

import (
	"net/netip"

	"github.com/google/nftables/expr"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/nftables"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// Priorities of base chains; the kernel calls the lowest first. Translation of
// sources stands behind that of kube-proxy, in both its modes.
const (
	prioRaw    = -300
	prioMangle = -150

	prioDestinationNAT = -100

	prioFilter    = 0
	prioLoops     = 5
	prioSourceNAT = 110
)

func baseChain(name string, kind nftables.ChainType, hook nftables.HookNumber, priority int32, rules []nftables.Rule) nftables.Chain {
	return nftables.Chain{
		Name: name, Base: &nftables.Hook{Type: kind, Number: hook, Priority: priority},
		Rules: rules, Fallback: closedToPods(hook),
	}
}

// closedToPods is what a base chain holds while the kernel refuses its rules: pods
// are closed, and the node is not cut off.
func closedToPods(hook nftables.HookNumber) []nftables.Rule {
	switch hook {
	case nftables.Prerouting, nftables.Input:
		return []nftables.Rule{rule(fromPods(), drop)}
	case nftables.Forward:
		return []nftables.Rule{rule(fromPods(), drop), rule(toPods(), drop)}
	}
	return []nftables.Rule{}
}

func filterChain(name string, hook nftables.HookNumber, priority int32, rules []nftables.Rule) nftables.Chain {
	return baseChain(name, nftables.Filter, hook, priority, rules)
}

// Sources of packets by which IPv6 finds neighbours, before a pod has an address.
var unaddressed = []netip.Prefix{netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("::/128")}

// statics returns the chains that are there whatever pods and policies there are.
func (s style) statics(set desired.Settings, h hosts) []nftables.Chain {
	return []nftables.Chain{
		s.rawPrerouting(h), s.strangeSource(), s.forgedSource(), neighbourChain(),
		s.forward(set, h), s.invalid(),
		s.fromPod(), s.toPod(),
		s.input(h), s.podToHost(set),
	}
}

// rawPrerouting drops what pods send with sources that are not theirs, before
// connection tracking sees it: a forged packet must not change the state of
// somebody else's connection. The sources of a pod are exactly those that the
// routes to its interface are for, so nothing has to be asked of the routes.
func (s style) rawPrerouting(h hosts) nftables.Chain {
	rules := []nftables.Rule{
		rule(knownSource(ir.IPv4)),
		rule(fromPods(), goTo(strangeSource)),
	}
	return filterChain(rawIn, nftables.Prerouting, prioRaw, append(rules, h.rawRules(s)...))
}

// strangeSource decides about packets of pods that are not of IPv4 with a known
// source.
func (s style) strangeSource() nftables.Chain {
	router := desired.Reason{Cause: desired.Router, Direction: policy.Egress}
	unknown := desired.Reason{Cause: desired.Unknown, Direction: policy.Egress}
	var rules []nftables.Rule
	for _, t := range routerTypes {
		rules = append(rules, rule(ofProtocol(policy.ICMPv6), ofType(t, t), s.deny(router)))
	}
	rules = append(rules, rule(knownSource(ir.IPv6)))
	for _, p := range unaddressed {
		rules = append(rules, rule(ofFamily(ir.IPv6), ofProtocol(policy.ICMPv6), source.within(p, expr.CmpOpEq), jump(neighbours)))
	}
	rules = append(rules, rule(word{meta(expr.MetaKeyIIFNAME), decide(knownPods)}), rule(s.deny(unknown)))
	return nftables.Chain{Name: strangeSource, Rules: rules}
}

func (s style) forgedSource() nftables.Chain {
	forged := desired.Reason{Cause: desired.Forged, Direction: policy.Egress}
	return nftables.Chain{Name: forgedSource, Rules: []nftables.Rule{rule(s.deny(forged))}}
}

// neighbourChain accepts the messages by which a pod and its node find each
// other, and lets others come back.
func neighbourChain() nftables.Chain {
	var rules []nftables.Rule
	for _, t := range neighbourTypes {
		rules = append(rules, rule(ofType(t[0], t[1]), accept))
	}
	return nftables.Chain{Name: neighbours, Rules: rules}
}

// forward is on the way of every packet that is passed on, so what is common
// stands first: one rule for packets of open connections.
func (s style) forward(set desired.Settings, h hosts) nftables.Chain {
	rules := []nftables.Rule{rule(inState(established), accept)}
	if set.Invalid == policy.Deny {
		rules = append(rules, rule(inState(expr.CtStateBitINVALID), jump(invalidState)))
	}
	rules = append(rules, h.jumpTo(forwardIn)...)
	rules = append(rules,
		rule(fromPods(), jump(fromPod)),
		rule(toPods(), word{decide(toPodsMap)}), // the name of the interface is still loaded
		rule(toPods(), goTo(toPod)),
	)
	return filterChain(forward, nftables.Forward, prioFilter, append(rules, h.jumpTo(forwardOut)...))
}

// unserved returns the chain that drops packets for addresses of services that
// nobody serves here: they would go back to the router they came from.
func (s style) unserved() nftables.Chain {
	loop := s.deny(desired.Reason{Cause: desired.Loop, Direction: policy.Ingress})
	var rules []nftables.Rule
	for _, f := range bothFamilies {
		services := desired.SetName(desired.ServicesSet, f)
		rules = append(rules, rule(ofFamily(f), destination.inSet(f, services, false), loop))
	}
	return filterChain(loops, nftables.Forward, prioLoops, rules)
}

// invalid drops packets of no connection that pods send or are sent.
func (s style) invalid() nftables.Chain {
	reason := func(d policy.Direction) word { return s.deny(desired.Reason{Cause: desired.Invalid, Direction: d}) }
	return nftables.Chain{Name: invalidState, Rules: []nftables.Rule{
		rule(fromPods(), reason(policy.Egress)),
		rule(toPods(), reason(policy.Ingress)),
	}}
}

// vxlan is the port of tunnels that a pod could build itself, and with them walk
// around its egress policy and forge sources behind the tunnel's end; so it could
// with IP in IP.
const (
	vxlan  = 4789
	ipInIP = policy.Protocol(4)
)

// tunnels are asked for by all new packets of pods: the port stands first, because
// few have it.
func (s style) tunnels() []nftables.Rule {
	if s.podTunnels {
		return nil
	}
	reason := s.deny(desired.Reason{Cause: desired.Tunnel, Direction: policy.Egress})
	return []nftables.Rule{
		rule(ofProtocol(ipInIP), reason),
		rule(destination.at(vxlan), ofProtocol(policy.UDP), reason),
	}
}

// fromPod leads packets to the chain of the interface they came through. One that
// is not known is closed, with or without agent.
func (s style) fromPod() nftables.Chain {
	unknown := desired.Reason{Cause: desired.Unknown, Direction: policy.Egress}
	return nftables.Chain{Name: fromPod, Rules: append(s.tunnels(),
		rule(word{meta(expr.MetaKeyIIFNAME), decide(fromPodsMap)}),
		rule(s.deny(unknown)),
	)}
}

// toPod is where packets go for which there is no chain: those to an interface
// that is not known.
func (s style) toPod() nftables.Chain {
	unknown := desired.Reason{Cause: desired.Unknown, Direction: policy.Ingress}
	return nftables.Chain{Name: toPod, Rules: []nftables.Rule{rule(s.deny(unknown))}}
}

func (s style) input(h hosts) nftables.Chain {
	rules := []nftables.Rule{rule(fromPods(), goTo(podToHost))}
	if h.used[normalIn] {
		rules = append(rules, s.ends.carriers(carriesFromNodes)...)
	}
	return filterChain(input, nftables.Input, prioFilter, append(rules, h.jumpTo(normalIn)...))
}

// podToHost decides about packets from pods to their own node.
func (s style) podToHost(set desired.Settings) nftables.Chain {
	rules := []nftables.Rule{
		rule(inState(established), accept),
		rule(ofProtocol(policy.ICMPv6), jump(neighbours)),
	}
	if set.Invalid == policy.Deny {
		rules = append(rules, rule(inState(expr.CtStateBitINVALID), s.deny(desired.Reason{Cause: desired.Invalid, Direction: policy.Egress})))
	}
	rules = append(rules, rule(jump(fromPod)))
	if set.PodToHost == policy.Deny {
		rules = append(rules, rule(s.deny(desired.Reason{Cause: desired.ToHost, Direction: policy.Egress})))
	}
	return nftables.Chain{Name: podToHost, Rules: rules}
}

// masquerade returns the chain that hides pods behind the node's address when
// they leave the cluster, which what goes to a node encrypted does not.
func (s style) masquerade(m desired.Masquerade) nftables.Chain {
	var rules []nftables.Rule
	for _, f := range bothFamilies {
		from := append(ofFamily(f), source.inSet(f, desired.SetName(desired.MasqueradeSet, f), false)...)
		match := append(from, destination.inSet(f, desired.SetName(desired.InsideSet, f), true)...)
		for _, d := range s.ends.of(f) {
			if d.Kind.Encapsulation() == desired.WireGuard {
				match = append(match, notOut(d.Kind.Device())...)
			}
		}
		for _, p := range []struct {
			policy.Protocol
			ports ir.PortRange
		}{{policy.TCP, m.Ports}, {policy.UDP, m.UDPPorts(s.ends.of(f))}} {
			if p.ports != (ir.PortRange{}) {
				rules = append(rules, rule(ofProtocol(p.Protocol), match, translate(f, m.To(f), p.ports)))
			}
		}
		rules = append(rules, rule(match, translate(f, m.To(f), ir.PortRange{})))
	}
	return baseChain(nat, nftables.NAT, nftables.Postrouting, prioSourceNAT, rules)
}

// translate gives packets the source address to, or where that is zero the one of
// the interface they leave by.
func translate(f ir.Family, to netip.Addr, ports ir.PortRange) word {
	var w word
	var first, last uint32
	if ports != (ir.PortRange{}) {
		first, last = wordAt(16), wordAt(20)
		w = append(w, &expr.Immediate{Register: first, Data: port2(ports.First)}, &expr.Immediate{Register: last, Data: port2(ports.Last)})
	}
	if !to.IsValid() {
		return append(w, &expr.Masq{FullyRandom: true, ToPorts: first != 0, RegProtoMin: first, RegProtoMax: last})
	}
	return append(w, &expr.Immediate{Register: reg, Data: to.AsSlice()}, &expr.NAT{
		Type: expr.NATTypeSourceNAT, Family: uint32(familyNumbers[f]), FullyRandom: true,
		RegAddrMin: reg, RegProtoMin: first, RegProtoMax: last, Specified: first != 0,
	})
}
