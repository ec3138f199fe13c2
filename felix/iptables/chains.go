package iptables

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// hook is a rule of ours in a built-in chain.
type hook struct {
	builtin string
	first   bool // at the head, before everybody; else at the tail
	chain   chain
}

func newHook(builtin string, first bool, target string) hook {
	return hook{builtin, first, newChain(builtin, specs("-j "+target))}
}

func rawHooks() []hook { return []hook{newHook("PREROUTING", true, preroutingChain)} }

// filterHooks: the verdict of FORWARD falls at its tail, so that rules of others
// behind ours still see the packet, and the chain's policy does not.
func filterHooks() []hook {
	return []hook{
		newHook("INPUT", true, inputChain),
		newHook("FORWARD", true, forwardChain),
		newHook("FORWARD", false, forwardedChain),
	}
}

// ICMPv6 types. A pod may ask for and answer to neighbours, look for routers and
// join groups whatever its policy says; it is never a router.
var (
	neighbourTypes = []int{130, 131, 132, 133, 135, 136, 143}
	routerTypes    = []int{134, 137} // router advertisement, redirect
)

func icmp6(kind int) string { return fmt.Sprintf("-p ipv6-icmp -m icmp6 --icmpv6-type %d", kind) }

func rawChains(f ir.Family) []chain {
	var source []rule
	if f == ir.IPv6 {
		for _, t := range routerTypes {
			source = append(source, rule{spec: icmp6(t) + " -j DROP"})
		}
	}
	// Before conntrack sees the packet: a forged one must not change the state of
	// somebody else's connection.
	source = append(source, rule{spec: "-m rpfilter --validmark --invert -j DROP", note: "forged source"})
	return []chain{
		newChain(preroutingChain, specs("-i "+anyPod+" -g "+podSourceChain)),
		newChain(podSourceChain, source),
	}
}

func filterChains(f ir.Family) []chain {
	var toHost []rule
	if f == ir.IPv6 {
		for _, t := range neighbourTypes {
			toHost = append(toHost, rule{spec: icmp6(t) + " -j ACCEPT"})
		}
	}
	toHost = append(toHost, specs("-j "+fromPodChain, mark(acceptMark)+" -j ACCEPT", "-j DROP")...)
	return []chain{
		newChain(inputChain, specs("-i "+anyPod+" -g "+podToHostChain)),
		newChain(podToHostChain, toHost),
		newChain(forwardChain, specs("-i "+anyPod+" -j "+fromPodChain, "-o "+anyPod+" -j "+toPodChain)),
		newChain(forwardedChain, specs("-i "+anyPod+" "+mark(acceptMark)+" -j ACCEPT", "-o "+anyPod+" "+mark(acceptMark)+" -j ACCEPT")),
		newChain(allowChain, specs(fmt.Sprintf("-j MARK --set-xmark %#x/%#x", acceptMark, allMarks))),
		newChain(passChain, specs(fmt.Sprintf("-j MARK --set-xmark %#x/%#x", passMark, allMarks))),
	}
}

// familyAddrs returns the addresses of e in family f.
func familyAddrs(e *desired.Endpoint, f ir.Family) []netip.Addr {
	var own []netip.Addr
	for _, a := range e.Addrs {
		if f.Is(a) {
			own = append(own, a)
		}
	}
	slices.SortFunc(own, netip.Addr.Compare)
	return own
}

// Tunnels that a pod could build itself, and with them walk around its egress
// policy and forge sources behind the tunnel's end.
var tunnels = []string{"-p 4 -j DROP", "-p udp -m udp --dport 4789 -j DROP"}

// fromPod decides about packets that came out of e's interface. The check of the
// source stands first: what is forged must not pass as established.
func fromPod(e *desired.Endpoint, f ir.Family) chain {
	rules := sourceRules(familyAddrs(e, f))
	rules = append(rules, stateRules()...)
	rules = append(rules, specs(tunnels...)...)
	return endpointChain(fromPrefix, e, f, append(rules, walk(e.Egress)...))
}

// toPod decides about packets that go into e's interface.
func toPod(e *desired.Endpoint, f ir.Family) chain {
	return endpointChain(toPrefix, e, f, append(stateRules(), walk(e.Ingress)...))
}

// endpointChain notes the addresses in the first rule: its hash tells whether a
// chain found in the kernel was made for the same attachment.
func endpointChain(prefix string, e *desired.Endpoint, f ir.Family, rules []rule) chain {
	var note strings.Builder
	note.WriteString(e.Pod)
	for _, a := range familyAddrs(e, f) {
		note.WriteString(" " + a.String())
	}
	rules[0].note = note.String()
	return newChain(prefix+e.Interface, rules)
}

// sourceRules drop packets whose source is none of addrs.
func sourceRules(addrs []netip.Addr) []rule {
	if len(addrs) == 1 {
		return specs("! -s " + addrs[0].String() + " -j DROP")
	}
	lines := []string{clearMark(everyMark)}
	for _, a := range addrs {
		lines = append(lines, "-s "+a.String()+" "+setMark(everyMark))
	}
	return specs(append(lines, noMark(everyMark)+" -j DROP")...)
}

// stateRules let established flows continue and clear the marks for the rest: a
// packet from another pod of this node still has the accept mark of its egress.
func stateRules() []rule {
	return specs(
		"-m conntrack --ctstate RELATED,ESTABLISHED -g "+allowChain,
		"-m conntrack --ctstate INVALID -j DROP",
		clearMark(allMarks),
	)
}

// walk writes the meaning of an ir.Chain.
func walk(c ir.Chain) []rule {
	var lines []string
	for i, t := range c.Tiers {
		if i > 0 {
			lines = append(lines, clearMark(passMark))
		}
		for j, p := range t.Programs {
			jump := "-j " + programChain(p)
			if j > 0 {
				jump = noMark(passMark) + " " + jump
			}
			lines = append(lines, jump, mark(acceptMark)+" -j RETURN")
		}
		if t.End != policy.Pass {
			lines = append(lines, noMark(passMark)+" "+target(t.End))
		}
	}
	return specs(append(lines, target(c.Default))...)
}

// programOf returns the chain of a policy. A program that the engine has not
// told is closed.
func programOf(id ir.ProgramID, p *ir.Program, f ir.Family) chain {
	name := programChain(id)
	if p == nil {
		return closedChain(name, id.Policy.String()+" is not known")
	}
	rules := programRules(p, f)
	if len(rules) > 0 {
		rules[0].note = id.Policy.String()
	}
	return newChain(name, rules)
}
