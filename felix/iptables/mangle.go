package iptables

import (
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// layer is what of ours a table holds besides pods and policies.
type layer struct {
	hooks  []hook
	chains []chain
	points []point // where host endpoints decide in it
}

// mangle is where host endpoints decide about packets as their senders addressed
// them, and about those of the node itself whose destination was translated: in
// filter OUTPUT the kernel has not found yet through which interface they leave. It
// stops what would leave in clear and must not, also where a connection is open.
// Nothing is written where nobody wants that.
func (s style) mangle() layer {
	var l layer
	if in := s.preDNAT(); s.hosts.any(in.pick) {
		l.points = append(l.points, in)
		l.hooks = append(l.hooks, newHook("PREROUTING", true, preroutingChain))
		rules := append(specs("-i "+anyPod+" -j RETURN"), s.accepted("-j RETURN")...)
		rules = append(rules, specs(established+" -j RETURN")...)
		rules = append(rules, s.fromNodes(toHere("-j RETURN"))...)
		l.chains = append(l.chains, newChain(preroutingChain, append(rules, s.hostRules(in)...)))
	}
	if out := s.translated(); s.hosts.any(out.pick) {
		l.points = append(l.points, out)
		l.hooks = append(l.hooks, newHook("POSTROUTING", true, postroutingChain))
		rules := specs(
			"-o "+anyPod+" -j RETURN",
			"-m conntrack ! --ctstate DNAT -j RETURN",
			established+" -j RETURN",
			"-m addrtype ! --src-type LOCAL -j RETURN") // passed on
		l.chains = append(l.chains, newChain(postroutingChain, append(rules, s.hostRules(out)...)))
	}
	for _, p := range l.points {
		l.chains = append(l.chains, s.hostChains(p)...)
	}
	if len(l.points) > 0 {
		l.chains = append(l.chains, s.markChains()...)
	}
	passing, others := s.clearOut()
	if s.settings.ClampMSS {
		passing = append(passing, clamped()...)
	}
	if len(passing) > 0 {
		l.hooks = append(l.hooks, newHook("FORWARD", true, forwardChain))
		l.chains = append(append(l.chains, others...), newChain(forwardChain, passing))
	}
	return l
}

// preDNAT leaves the accept mark on what a rule has allowed: filter does not ask
// this endpoint again.
func (s style) preDNAT() point {
	return point{
		flag: "-i", prefix: hostInPrefix, failsafe: s.failsafeIn("-j RETURN"),
		pick:  byTiers(func(e *desired.HostEndpoint) ir.Chain { return e.PreDNAT.Ingress }),
		way:   way{direction: policy.Ingress, done: "-j RETURN"},
		after: specs(clearMark(s.marks.all())),
	}
}

func (s style) translated() point {
	return point{
		flag: "-o", prefix: hostOutPrefix, failsafe: s.failsafeOut("-j RETURN"),
		pick:   func(e *desired.HostEndpoint) (ir.Chain, bool) { return e.Normal.Egress, true },
		before: specs(clearMark(s.marks.all())),
		way:    way{direction: policy.Egress, done: "-j RETURN", open: "-j RETURN"},
	}
}
