package calc

import (
	"net/netip"
	"slices"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/compile"
	"github.com/koratnet/korat/policy/ir"
)

// endpoints says for each local endpoint which addresses it may use and which
// programs decide about its packets.
type endpoints struct {
	dirty set
	said  said[string, desired.Endpoint]
}

func newEndpoints() endpoints {
	return endpoints{dirty: set{}, said: newSaid[string](sameEndpoint)}
}

func (e *endpoints) drain(in *table[event.Endpoint], holders *holders, floats *floats, subjects *subjects, policies *policies) {
	for iface := range subjects.pods.dirtyThings { // changed endpoints are among them
		e.dirty.add(iface)
	}
	policies.mark(e.dirty, &subjects.pods)
	for a := range holders.changed {
		for iface := range holders.claims[a] {
			e.dirty.add(iface)
		}
	}
	for iface := range floats.woken {
		e.dirty.add(iface)
	}
	for iface := range e.dirty {
		ep := in.now[iface]
		if ep == nil {
			e.said.say(iface, nil)
			continue
		}
		active := policies.inOrder(subjects.pods.byThing[iface])
		doubt := subjects.doubt(iface, ep)
		e.said.say(iface, &desired.Endpoint{
			Interface:  iface,
			Pod:        podOf(ep),
			Addrs:      heldBy(iface, ep.Addrs, holders),
			Sources:    ep.Sources,
			Floating:   floats.to[iface],
			Generation: ep.Generation,
			Rates:      ep.Rates,
			Ingress:    chain(active, policy.Ingress, policies.tiers, doubt),
			Egress:     chain(active, policy.Egress, policies.tiers, doubt),
		})
	}
}

// heldBy returns those of addrs that the endpoint holds.
func heldBy(iface string, addrs []netip.Addr, holders *holders) []netip.Addr {
	var held []netip.Addr
	for _, a := range addrs {
		if winner, _ := holders.winner(a); winner == iface {
			held = append(held, a)
		}
	}
	return held
}

// chain returns what decides about one direction. In doubt everything is closed
// until we know.
func chain(active []*policy.Policy, d policy.Direction, tiers policy.Tiers, doubt policy.Direction) ir.Chain {
	if doubt&d != 0 {
		return ir.Chain{Default: policy.Deny}
	}
	return compile.Chain(active, d, tiers)
}

func (e *endpoints) settle() { forget(&e.dirty) }

func sameEndpoint(a, b *desired.Endpoint) bool {
	return a.Interface == b.Interface && a.Pod == b.Pod && a.Generation == b.Generation && a.Rates == b.Rates &&
		slices.Equal(a.Addrs, b.Addrs) && slices.Equal(a.Sources, b.Sources) && slices.Equal(a.Floating, b.Floating) && sameChain(a.Ingress, b.Ingress) && sameChain(a.Egress, b.Egress)
}

func sameChain(a, b ir.Chain) bool {
	return a.Default == b.Default && slices.EqualFunc(a.Tiers, b.Tiers, sameTier) && slices.EqualFunc(a.Pending, b.Pending, sameTier)
}

func sameTier(a, b ir.Tier) bool {
	return a.Name == b.Name && a.End == b.End && slices.Equal(a.Programs, b.Programs)
}
