package flow

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/flow/wire"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// The bounds of what is remembered beyond what is desired. Packets that a policy
// denied are read a moment after it may have gone.
const (
	maxGone     = 1024
	maxTiers    = 1024
	maxPolicies = 4 // of a tier, in a drop
)

// index finds the words to what the kernel tells.
type index struct {
	endpoints map[string]*desired.Endpoint     // by interface
	hosts     map[string]*desired.HostEndpoint // by interface
	pods      map[netip.Addr]string            // local ones, by address
	fixed     map[string]desired.Reason        // by tag: reasons without a name in them
	tiers     map[string]desired.Reason        // by tag
	programs  map[string]ir.ProgramID          // by the tag of any of their rules, without its number
	gone      []string                         // of programs, oldest first
	version   uint64                           // grows when words may have changed
}

func newIndex() index {
	x := index{
		endpoints: map[string]*desired.Endpoint{}, hosts: map[string]*desired.HostEndpoint{}, pods: map[netip.Addr]string{},
		fixed: map[string]desired.Reason{}, tiers: map[string]desired.Reason{}, programs: map[string]ir.ProgramID{},
	}
	for c := desired.NoMatch; c <= desired.Clear; c++ {
		for _, d := range []policy.Direction{0, policy.Ingress, policy.Egress} {
			r := desired.Reason{Cause: c, Direction: d}
			x.fixed[r.Tag()] = r
		}
	}
	return x
}

// want takes in a change of what is desired.
func (x *index) want(d desired.Delta) {
	if len(d.Programs)+len(d.Endpoints)+len(d.HostEndpoints) > 0 {
		x.version++
	}
	for id, p := range d.Programs {
		tag, _ := cutRule(desired.Reason{Cause: desired.ByRule, Direction: id.Direction, Policy: id.Policy}.Tag())
		if at := slices.Index(x.gone, tag); at >= 0 {
			x.gone = slices.Delete(x.gone, at, at+1)
		}
		if p != nil {
			x.programs[tag] = id
		} else if x.gone = append(x.gone, tag); len(x.gone) > maxGone {
			delete(x.programs, x.gone[0])
			x.gone = x.gone[1:]
		}
	}
	for iface, e := range d.Endpoints {
		if old := x.endpoints[iface]; old != nil {
			x.leave(old)
		}
		delete(x.endpoints, iface)
		if e != nil {
			x.endpoints[iface] = e
			x.learnTiers(e.Ingress, e.Egress)
		}
	}
	for _, e := range d.Endpoints { // after all that left: an address may have moved
		if e != nil {
			for _, a := range e.Addrs {
				x.pods[a] = e.Pod
			}
		}
	}
	for iface, h := range d.HostEndpoints {
		delete(x.hosts, iface)
		if h != nil {
			x.hosts[iface] = h
			for _, c := range sides(h) {
				x.learnTiers(c.Ingress, c.Egress)
			}
		}
	}
}

func (x *index) leave(e *desired.Endpoint) {
	for _, a := range e.Addrs {
		if x.pods[a] == e.Pod {
			delete(x.pods, a)
		}
	}
}

// learnTiers never forgets: tiers are few. Only if somebody makes new ones
// forever it begins anew.
func (x *index) learnTiers(chains ...ir.Chain) {
	if len(x.tiers) > maxTiers {
		clear(x.tiers)
	}
	for _, c := range chains {
		for _, t := range c.Tiers {
			for _, d := range policy.Directions {
				r := desired.Reason{Cause: desired.EndOfTier, Direction: d, Tier: t.Name}
				x.tiers[r.Tag()] = r
			}
		}
	}
}

func sides(h *desired.HostEndpoint) []desired.Chains {
	return []desired.Chains{h.Normal, h.Forward, h.PreDNAT, h.Untracked}
}

// reason returns what a tag says.
func (x *index) reason(tag string) (desired.Reason, bool) {
	if r, ok := x.fixed[tag]; ok {
		return r, true
	}
	if r, ok := x.tiers[tag]; ok {
		return r, true
	}
	program, number := cutRule(tag)
	id, known := x.programs[program]
	rule, err := strconv.Atoi(number)
	if !known || err != nil {
		return desired.Reason{}, false
	}
	return desired.Reason{Cause: desired.ByRule, Direction: id.Direction, Policy: id.Policy, Rule: rule}, true
}

// cutRule splits the tag of a rule into that of the program and the number.
func cutRule(tag string) (program, number string) {
	at := strings.LastIndexByte(tag, ':')
	return tag[:max(at, 0)], tag[at+1:]
}

// words says why a packet that came in and was to leave by these interfaces was
// denied.
func (x *index) words(tag, in, out string) wire.Reason {
	r, known := x.reason(tag)
	if !known {
		return wire.Reason{Cause: "other", Endpoint: x.name(in)}
	}
	w := wire.Reason{Cause: r.Cause.String(), Tier: r.Tier}
	if r.Direction != 0 {
		w.Direction = r.Direction.String()
	}
	if r.Cause == desired.ByRule {
		w.Policy, w.Rule = r.Policy.String(), &r.Rule
	}
	iface, tiers := x.asked(r, in, out)
	w.Endpoint = x.name(iface)
	for _, t := range tiers {
		if r.Cause != desired.EndOfTier || t.Name != r.Tier {
			continue
		}
		for _, id := range t.Programs[:min(len(t.Programs), maxPolicies)] {
			w.Policies = append(w.Policies, id.Policy.String())
		}
	}
	return w
}

// asked returns the interface whose endpoint denied, and the tiers it asked. A
// packet has two: a pod's endpoint looks at what leaves by its interface as
// ingress, and at what comes in by it as egress; the node's sees it the other
// way round. Where both are possible it is the one that has what denied.
func (x *index) asked(r desired.Reason, in, out string) (string, []ir.Tier) {
	podSide, hostSide := in, out
	if r.Direction == policy.Ingress {
		podSide, hostSide = out, in
	}
	pod := x.endpoints[podSide]
	if pod != nil {
		chain := pod.Egress
		if r.Direction == policy.Ingress {
			chain = pod.Ingress
		}
		if decides(chain.Tiers, r) {
			return podSide, chain.Tiers
		}
	}
	host := x.hosts[hostSide]
	if host == nil {
		host = x.hosts[desired.AnyInterface]
	}
	if host != nil && hostSide != "" {
		for _, c := range sides(host) {
			chain := c.Egress
			if r.Direction == policy.Ingress {
				chain = c.Ingress
			}
			if decides(chain.Tiers, r) && (pod == nil || r.Cause <= desired.EndOfTier) {
				return hostSide, chain.Tiers
			}
		}
	}
	if podSide == "" {
		return hostSide, nil
	}
	return podSide, nil
}

// decides reports whether r can be the outcome of these tiers.
func decides(tiers []ir.Tier, r desired.Reason) bool {
	switch r.Cause {
	case desired.ByRule:
		id := ir.ProgramID{Policy: r.Policy, Direction: r.Direction}
		return slices.ContainsFunc(tiers, func(t ir.Tier) bool { return slices.Contains(t.Programs, id) })
	case desired.EndOfTier:
		return slices.ContainsFunc(tiers, func(t ir.Tier) bool { return t.Name == r.Tier })
	}
	return true
}

// name returns the pod behind an interface, or the interface.
func (x *index) name(iface string) string {
	if e := x.endpoints[iface]; e != nil {
		return e.Pod
	}
	return iface
}
