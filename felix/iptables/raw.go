package iptables

import (
	"fmt"
	"maps"
	"slices"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// hook are rules of ours in a built-in chain, one behind the other: a jump to a
// chain of ours, and before it what most packets meet.
type hook struct {
	builtin string
	first   bool // at the head, before everybody; else at the tail
	chain   chain
}

func newHook(builtin string, first bool, target string) hook {
	return hook{builtin, first, newChain(builtin, specs("-j "+target))}
}

// heads reports whether h is what stands at the head of its chain.
func (h hook) heads(hashes []string) bool {
	n := len(h.chain.hashes)
	return n <= len(hashes) && slices.Equal(hashes[:n], h.chain.hashes)
}

// ICMPv6 types. A pod may ask for and answer to neighbours, look for routers and
// join groups whatever its policy says; it is never a router.
var (
	neighbourTypes = []int{130, 131, 132, 133, 135, 136, 143}
	routerTypes    = []int{134, 137} // router advertisement, redirect
)

func icmp6(kind int) string { return fmt.Sprintf("-p ipv6-icmp -m icmp6 --icmpv6-type %d", kind) }

// raw is before conntrack: a forged packet must not change the state of somebody
// else's connection. Here host endpoints also decide what is not tracked at all.
func (s style) raw() layer {
	in, out := s.untrackedIn(), s.untrackedOut()
	var l layer
	sources := s.podSources()
	first, tunnel := s.tunnelsIn()
	strange, clear := s.clearIn()
	first, tunnel = append(first, strange...), append(tunnel, clear...)
	if len(sources) == 1 && !s.hosts.early(policy.Ingress) { // no need for a chain
		sources[0].spec = "-i " + anyPod + " " + sources[0].spec
		l.hooks = []hook{{"PREROUTING", true, newChain("PREROUTING", append(first, sources...))}}
		l.chains = tunnel
	} else {
		l.hooks = []hook{newHook("PREROUTING", true, preroutingChain)}
		l.chains = append(tunnel, newChain(preroutingChain, append(first, s.arriving(in)...)), newChain(podSourceChain, sources))
	}
	if s.hosts.any(in.pick) {
		l.points = append(l.points, in)
	}
	leaving := s.toNodes("-j CT --notrack")
	if s.hosts.any(out.pick) {
		l.points = append(l.points, out)
		leaving = append(leaving, specs(clearMark(s.marks.all()), "-o "+anyPod+" -j RETURN")...)
		leaving = append(leaving, s.toNodes("-j RETURN")...)
		leaving = append(leaving, s.hostRules(out)...)
	}
	if len(leaving) > 0 {
		l.hooks = append(l.hooks, newHook("OUTPUT", true, outputChain))
		l.chains = append(l.chains, newChain(outputChain, leaving))
	}
	for _, p := range l.points {
		l.chains = append(l.chains, s.hostChains(p)...)
	}
	if len(l.points) > 0 {
		l.chains = append(append(l.chains, s.markChains()...), newChain(noTrackChain, specs("-j CT --notrack")))
	}
	return l
}

// arriving tells pods from others, whose accept mark is ours from here on.
func (s style) arriving(in point) []rule {
	rules := specs("-i " + anyPod + " -g " + podSourceChain)
	if s.hosts.early(policy.Ingress) {
		rules = append(rules, rule{spec: clearMark(s.marks.all())})
	}
	if s.hosts.any(in.pick) {
		rules = append(rules, s.fromNodes(toHere("-j RETURN"))...)
	}
	return append(rules, s.hostRules(in)...)
}

// untrackedIn and untrackedOut switch connection tracking off for what a rule has
// allowed, and leave it the accept mark: nobody asks this endpoint again.
func (s style) untrackedIn() point {
	return point{
		flag: "-i", prefix: hostInPrefix, failsafe: append(s.failsafeIn("-j RETURN"), s.repliesIn("-j RETURN")...),
		pick:  byTiers(func(e *desired.HostEndpoint) ir.Chain { return e.Untracked.Ingress }),
		way:   way{direction: policy.Ingress, done: "-g " + noTrackChain},
		after: specs(clearMark(s.marks.all())),
	}
}

func (s style) untrackedOut() point {
	return point{
		flag: "-o", prefix: hostOutPrefix, failsafe: append(s.failsafeOut("-j RETURN"), s.repliesOut("-j RETURN")...),
		pick:  byTiers(func(e *desired.HostEndpoint) ir.Chain { return e.Untracked.Egress }),
		way:   way{direction: policy.Egress, done: "-g " + noTrackChain},
		after: specs(clearMark(s.marks.all())),
	}
}

// podSources drops what a pod never sends.
func (s style) podSources() []rule {
	var rules []rule
	if s.family == ir.IPv6 {
		router := s.deny(desired.Reason{Cause: desired.Router, Direction: policy.Egress})
		for _, t := range routerTypes {
			rules = append(rules, router.when(icmp6(t)))
		}
	}
	for _, iface := range slices.Sorted(maps.Keys(s.sources)) {
		for _, p := range s.sources[iface] {
			rules = append(rules, specs("-i "+iface+" -s "+p.String()+" -j RETURN")...)
		}
	}
	for _, x := range s.floats { // which is routed to where it leads, and nobody's source
		rules = append(rules, s.forged().when("-s "+x.addr.String()))
	}
	source := s.forged().when("-m rpfilter --validmark --invert")
	source.note = "forged source"
	return append(rules, source)
}
