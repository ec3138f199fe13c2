package iptables

import (
	"fmt"
	"slices"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// hosts are the host endpoints whose interfaces can be named in rules, sorted by
// interface: AnyInterface, which stands for the rest, is no part of list.
type hosts struct {
	list     []*desired.HostEndpoint
	wildcard *desired.HostEndpoint // nil: none
}

func newHosts(all map[string]*desired.HostEndpoint) hosts {
	h := hosts{}
	for iface, e := range all {
		if iface == desired.AnyInterface {
			h.wildcard = e
		} else if badHost(iface) == nil {
			h.list = append(h.list, e)
		}
	}
	slices.SortFunc(h.list, func(a, b *desired.HostEndpoint) int {
		if a.Interface < b.Interface {
			return -1
		}
		return 1
	})
	return h
}

// badHost returns why there can be no host endpoint for an interface.
func badHost(iface string) error {
	if iface == desired.AnyInterface || hostIfaceName.MatchString(iface) && !isPod(iface) {
		return nil
	}
	return fmt.Errorf("host endpoint for interface %q: it is a pod's, or cannot be written into rules", iface)
}

// all yields the named ones and then the wildcard.
func (h hosts) all() []*desired.HostEndpoint {
	if h.wildcard == nil {
		return h.list
	}
	return append(slices.Clip(h.list), h.wildcard)
}

func (h hosts) none() bool { return len(h.all()) == 0 }

// any reports whether some host endpoint has policy at a point.
func (h hosts) any(at func(*desired.HostEndpoint) (ir.Chain, bool)) bool {
	return slices.ContainsFunc(h.all(), func(e *desired.HostEndpoint) bool {
		_, ok := at(e)
		return ok
	})
}

// early reports whether some policy decides before connection tracking or
// translation.
func (h hosts) early(d policy.Direction) bool {
	return slices.ContainsFunc(h.all(), func(e *desired.HostEndpoint) bool {
		if d == policy.Egress {
			return len(e.Untracked.Egress.Tiers) > 0
		}
		return len(e.Untracked.Ingress.Tiers) > 0 || len(e.PreDNAT.Ingress.Tiers) > 0
	})
}

// point is where host endpoints decide: a table and a direction.
type point struct {
	flag, prefix string // how rules name the interface, how its chain is called
	pick         func(*desired.HostEndpoint) (ir.Chain, bool)
	failsafe     []rule // before the interfaces are looked at
	before       []rule // in each chain, before policy
	way          way
	after        []rule // in each chain, behind policy
}

// byTiers picks a chain that exists only where policy applies.
func byTiers(pick func(*desired.HostEndpoint) ir.Chain) func(*desired.HostEndpoint) (ir.Chain, bool) {
	return func(e *desired.HostEndpoint) (ir.Chain, bool) {
		c := pick(e)
		return c, len(c.Tiers) > 0
	}
}

func (p point) chainName(e *desired.HostEndpoint) string {
	if e.Interface == desired.AnyInterface {
		return p.prefix + anyHostName
	}
	return p.prefix + e.Interface
}

// hostRules lead packets to the chains of their interfaces. What has no host
// endpoint goes through. Pods have been dealt with before.
func (s style) hostRules(p point) []rule {
	if !s.hosts.any(p.pick) {
		return nil
	}
	rules := slices.Clone(p.failsafe)
	hasLoopback := false
	for _, e := range s.hosts.list {
		hasLoopback = hasLoopback || e.Interface == loopback
		match := p.flag + " " + e.Interface
		if _, ok := p.pick(e); ok {
			rules = append(rules, rule{spec: match + " -g " + p.chainName(e)})
		} else { // it is not for the wildcard either
			rules = append(rules, rule{spec: match + " -j RETURN"})
		}
	}
	if e := s.hosts.wildcard; e != nil {
		if _, ok := p.pick(e); ok {
			if !hasLoopback {
				rules = append(rules, rule{spec: p.flag + " " + loopback + " -j RETURN"})
			}
			rules = append(rules, rule{spec: "-g " + p.chainName(e)})
		}
	}
	return rules
}

// loopback is of the host endpoint of its name only: what the node says to itself
// crosses no wire.
const loopback = "lo"

// hostChains are those that hostRules lead to.
func (s style) hostChains(p point) []chain {
	var chains []chain
	for _, e := range s.hosts.all() {
		c, ok := p.pick(e)
		if !ok {
			continue
		}
		rules := append(slices.Clone(p.before), s.walk(c, p.way)...)
		rules = append(rules, p.after...)
		rules[0].note = e.Name
		chains = append(chains, newChain(p.chainName(e), rules))
	}
	return chains
}

// hostPrograms returns the policies that the chains at points name.
func (h hosts) programs(points ...point) map[ir.ProgramID]struct{} {
	ids := map[ir.ProgramID]struct{}{}
	for _, p := range points {
		for _, e := range h.all() {
			c, _ := p.pick(e)
			addPrograms(ids, c)
		}
	}
	return ids
}

func addPrograms(ids map[ir.ProgramID]struct{}, chains ...ir.Chain) {
	for _, c := range chains {
		for _, t := range c.Tiers {
			for _, id := range t.Programs {
				ids[id] = struct{}{}
			}
		}
	}
}
