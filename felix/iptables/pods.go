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

// familyNets returns those of nets that are of family f.
func familyNets(nets []netip.Prefix, f ir.Family) []netip.Prefix {
	var own []netip.Prefix
	for _, p := range nets {
		if f.Is(p.Addr()) {
			own = append(own, p)
		}
	}
	return own
}

// vxlanPort is where tunnels end that a pod could build itself, and with them walk
// around its egress policy and forge sources behind the tunnel's end; so it could
// with IP in IP.
const vxlanPort = 4789

func (s style) tunnels() []rule {
	if s.settings.PodTunnels {
		return nil
	}
	v := s.deny(desired.Reason{Cause: desired.Tunnel, Direction: policy.Egress})
	return []rule{v.when("-p 4"), v.when(fmt.Sprintf("-p udp -m udp --dport %d", vxlanPort))}
}

// fromPod decides about packets that came out of e's interface and are no part of
// a connection that was let through: those have not come this far. What a pod
// sends to itself, through a service, is not asked.
func (s style) fromPod(e *desired.Endpoint) chain {
	own := familyAddrs(e, s.family)
	rules := append(s.ownSources(own, s.sources[e.Interface]), s.unplaced(policy.Egress)...)
	rules = append(rules, s.tunnels()...)
	for _, a := range own {
		rules = append(rules, specs("-d "+a.String()+" -j RETURN")...)
	}
	rules = append(rules, s.podPolicy(e.Egress, policy.Egress)...)
	return endpointChain(fromPrefix, e, own, rules)
}

// toPod decides about such packets that go into e's interface.
func (s style) toPod(e *desired.Endpoint) chain {
	own := familyAddrs(e, s.family)
	var rules []rule
	for _, a := range own {
		rules = append(rules, specs("-i "+e.Interface+" -d "+a.String()+" -j RETURN")...)
	}
	rules = append(rules, s.podPolicy(e.Ingress, policy.Ingress)...)
	return endpointChain(toPrefix, e, own, rules)
}

// podPolicy clears the marks where policies look at them: others may have set them.
// What is let through returns, so that the other direction is asked too.
func (s style) podPolicy(c ir.Chain, d policy.Direction) []rule {
	if len(c.Tiers) == 0 && c.Default != policy.Deny {
		return nil
	}
	var rules []rule
	if len(c.Tiers) > 0 {
		rules = specs(clearMark(s.marks.all()))
	}
	rules = append(rules, s.walk(c, podWay(d))...)
	last := &rules[len(rules)-1]
	last.spec = s.atEnd(last.spec)
	return rules
}

// podWay returns with the accept mark.
func podWay(d policy.Direction) way {
	return way{direction: d, done: "-j RETURN", open: "-g " + allowChain}
}

// endpointChain notes the addresses in the first rule: its hash tells whether a
// chain found in the kernel was made for the same attachment.
func endpointChain(prefix string, e *desired.Endpoint, own []netip.Addr, rules []rule) chain {
	var note strings.Builder
	note.WriteString(e.Pod)
	for _, a := range own {
		note.WriteString(" " + a.String())
	}
	rules[0].note = note.String()
	return newChain(prefix+e.Interface, rules)
}

// forged denies packets from pods whose source is not theirs.
func (s style) forged() verdict {
	return s.deny(desired.Reason{Cause: desired.Forged, Direction: policy.Egress})
}

// ownSources denies packets whose source is none of addrs and in none of nets.
func (s style) ownSources(addrs []netip.Addr, nets []netip.Prefix) []rule {
	if len(addrs) == 1 && len(nets) == 0 {
		return []rule{s.forged().when("! -s " + addrs[0].String())}
	}
	lines := []string{clearMark(s.marks.every)}
	for _, a := range addrs {
		lines = append(lines, "-s "+a.String()+" "+setMark(s.marks.every))
	}
	for _, p := range nets {
		lines = append(lines, "-s "+p.String()+" "+setMark(s.marks.every))
	}
	return append(specs(lines...), s.forged().when(noMark(s.marks.every)))
}
