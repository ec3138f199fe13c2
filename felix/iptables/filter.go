package iptables

import (
	"slices"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// filter is where policy decides. The verdict of FORWARD falls at its tail, so
// that rules of others behind ours still see the packet, and the chain's policy
// does not.
func (s style) filter() layer {
	l := layer{
		hooks: []hook{
			newHook("INPUT", true, inputChain),
			{"FORWARD", true, newChain("FORWARD", append(s.known(), specs("-j "+forwardChain)...))},
			{"FORWARD", false, newChain("FORWARD", s.forwarded())},
		},
		chains: append(s.markChains(), newChain(inputChain, s.input()), newChain(podToHostChain, s.podToHost())),
	}
	if !s.hosts.none() {
		l.hooks = append(l.hooks, newHook("OUTPUT", true, outputChain))
		l.chains = append(l.chains, newChain(outputChain, s.output()),
			newChain(failsafeInChain, s.failsafeIn("-j ACCEPT")), newChain(failsafeOutChain, s.failsafeOut("-j ACCEPT")))
	}
	for _, p := range []point{s.normalIn(), s.normalOut(), s.forwardIn(), s.forwardOut()} {
		if s.hosts.any(p.pick) {
			l.points = append(l.points, p)
			l.chains = append(l.chains, s.hostChains(p)...)
		}
	}
	l.chains = append(l.chains, s.forward()...)
	return l
}

// input: the chain behind INPUT. What a rule before translation let in passes.
func (s style) input() []rule {
	rules := specs("-i " + anyPod + " -g " + podToHostChain)
	if s.hosts.early(policy.Ingress) {
		rules = append(rules, s.accepted("-j ACCEPT")...)
	}
	if s.hosts.any(s.normalIn().pick) {
		rules = append(rules, s.fromNodes("-j ACCEPT")...)
	}
	return append(rules, s.hostRules(s.normalIn())...)
}

// podToHost: what a pod's policy lets through is for Settings.PodToHost to take
// in. Answers to the node's own connections always are: it looks whether pods live.
func (s style) podToHost() []rule {
	var rules []rule
	if s.family == ir.IPv6 {
		for _, t := range neighbourTypes {
			rules = append(rules, rule{spec: icmp6(t) + " -j ACCEPT"})
		}
	}
	rules = append(rules, specs(established+" -j ACCEPT", "-j "+fromPodChain)...)
	switch s.settings.PodToHost {
	case policy.Allow:
		return append(rules, specs("-j ACCEPT")...)
	case policy.Pass:
		return append(rules, specs("-j RETURN")...)
	}
	return append(rules, s.deny(desired.Reason{Cause: desired.ToHost, Direction: policy.Egress}).when(""))
}

// output: the chain behind OUTPUT. What the node sends to its pods is never
// judged. What has been translated is judged behind POSTROUTING.
func (s style) output() []rule {
	rules := append(specs("-o "+anyPod+" -j RETURN"), s.toNodes("-j ACCEPT")...)
	if s.hosts.early(policy.Egress) {
		rules = append(rules, s.accepted("-j ACCEPT")...)
	}
	rules = append(rules, specs("-m conntrack --ctstate DNAT -j RETURN")...)
	return append(rules, s.hostRules(s.normalOut())...)
}

// known lets through what belongs to a connection that was let through, most
// packets: they meet no other rule. That the source is routed back to the interface
// has been seen in raw, and to an interface that is not known there is no route.
func (s style) known() []rule {
	rules := specs("-i "+anyPod+" "+established+" -j ACCEPT", "! -i "+anyPod+" -o "+anyPod+" "+established+" -j ACCEPT")
	if lost, ok := s.lost(); ok {
		return append([]rule{lost.when(established + " " + s.member(desired.ServicesSet, "dst"))}, rules...)
	}
	return rules
}

// forward: the chains behind FORWARD. Host endpoints stand on both sides of the
// pods. Where there are none, a packet that has nothing to do with pods meets a few
// tests and is left alone. What came from a pod was asked there whether conntrack
// can place it.
func (s style) forward() []chain {
	var rules []rule
	var chains []chain
	if s.forwards() {
		chains = append(chains, newChain(fromHostChain, s.fromHost()))
		rules = specs("-j " + fromHostChain)
	}
	rules = append(rules, s.dispatched("-i "+anyPod, nearFromChain, fromPodChain)...)
	for _, r := range s.unplaced(policy.Ingress) {
		r.spec = "! -i " + anyPod + " -o " + anyPod + " " + r.spec
		rules = append(rules, r)
	}
	rules = append(rules, s.dispatched("-o "+anyPod, nearToChain, toPodChain)...)
	if out := s.hostRules(s.forwardOut()); len(out) > 0 {
		rules = append(rules, specs("-j "+toHostChain)...)
		chains = append(chains, newChain(toHostChain, append(specs("-o "+anyPod+" -j RETURN"), out...)))
	}
	if lost, ok := s.lost(); ok {
		rules = append(rules, lost.when(s.member(desired.ServicesSet, "dst")))
	}
	return append(chains, newChain(forwardChain, rules))
}

// dispatched leads packets to the chains of pods: by their address, and the few for
// which that leads nowhere by the interface.
func (s style) dispatched(pods, near, trie string) []rule {
	return specs(pods+" -j "+near, pods+" "+mark(s.marks.astray())+" -j "+trie)
}

// forwarded accepts at the tail of FORWARD: chains of pods either drop or return. Of
// what has nothing to do with pods, what host endpoints let through; nobody else's
// mark has come this far then.
func (s style) forwarded() []rule {
	rules := specs("-i "+anyPod+" -j ACCEPT", "-o "+anyPod+" -j ACCEPT")
	if s.forwards() {
		rules = append(rules, s.accepted("-j ACCEPT")...)
	}
	return rules
}

// lost denies packets to addresses of services that nobody serves, whatever
// connection they belong to: after policy, and before those pass that policy is
// not asked about. It reports whether that is wanted.
func (s style) lost() (verdict, bool) {
	return s.deny(desired.Reason{Cause: desired.Loop, Direction: policy.Ingress}), s.services && s.settings.Loops == policy.Deny
}

// forwards reports whether host endpoints decide about what the node passes on.
func (s style) forwards() bool {
	return s.hosts.any(s.forwardIn().pick) || s.hosts.any(s.forwardOut().pick) || s.hosts.early(policy.Ingress)
}

func (s style) fromHost() []rule {
	rules := specs("-i " + anyPod + " -j RETURN")
	if s.hosts.early(policy.Ingress) {
		rules = append(rules, s.accepted("-j RETURN")...)
	} else {
		rules = append(rules, rule{spec: clearMark(s.marks.all())})
	}
	return append(rules, s.hostRules(s.forwardIn())...)
}

// normalIn and normalOut decide about what ends and begins on the node: an
// interface with a host endpoint is closed but for policy and failsafes.
func (s style) normalIn() point {
	return s.normal(policy.Ingress, "-i", hostInPrefix, failsafeInChain, func(e *desired.HostEndpoint) ir.Chain { return e.Normal.Ingress })
}

func (s style) normalOut() point {
	return s.normal(policy.Egress, "-o", hostOutPrefix, failsafeOutChain, func(e *desired.HostEndpoint) ir.Chain { return e.Normal.Egress })
}

func (s style) normal(d policy.Direction, flag, prefix, failsafe string, pick func(*desired.HostEndpoint) ir.Chain) point {
	before := append(specs(established+" -j ACCEPT", "-j "+failsafe), s.unplaced(d)...)
	return point{
		flag: flag, prefix: prefix,
		pick:   func(e *desired.HostEndpoint) (ir.Chain, bool) { return pick(e), true },
		before: append(before, rule{spec: clearMark(s.marks.all())}),
		way:    way{direction: d, done: "-j ACCEPT", open: "-j ACCEPT"},
	}
}

// forwardIn and forwardOut decide about what the node passes on. An interface
// without policy for that is open.
func (s style) forwardIn() point {
	return s.passing(policy.Ingress, "-i", forwardInPrefix, func(e *desired.HostEndpoint) ir.Chain { return e.Forward.Ingress })
}

func (s style) forwardOut() point {
	return s.passing(policy.Egress, "-o", forwardOutPrefix, func(e *desired.HostEndpoint) ir.Chain { return e.Forward.Egress })
}

func (s style) passing(d policy.Direction, flag, prefix string, pick func(*desired.HostEndpoint) ir.Chain) point {
	return point{
		flag: flag, prefix: prefix, before: slices.Clone(s.stateRules(d)), way: podWay(d),
		pick: func(e *desired.HostEndpoint) (ir.Chain, bool) {
			c := pick(e)
			return c, len(c.Tiers) > 0 || c.Default != policy.Allow
		},
	}
}
