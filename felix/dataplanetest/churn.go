package dataplanetest

import (
	"fmt"
	"math/rand/v2"
	"net/netip"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// churn is what is desired at one step of an endless change of policies, sets,
// pods and host endpoints, in which the fate of some packets never changes:
// those of world.denied stay out, those of world.flows get through.
type churn struct{ desired.Delta }

const (
	churnPolicies = 24
	churnSets     = 6
)

// churnAt returns step n, which depends on nothing else.
func churnAt(n int) churn {
	d := dice{rand.New(rand.NewPCG(uint64(n), 3))}
	s := desired.DefaultSettings()
	c := churn{desired.Delta{
		Complete: true, Settings: &s, Endpoints: map[string]*desired.Endpoint{}, Programs: map[ir.ProgramID]*ir.Program{},
		Sets: map[ir.SetID]*desired.SetChange{}, HostEndpoints: map[string]*desired.HostEndpoint{},
	}}
	for i := range churnSets {
		set := &desired.SetChange{Kind: ir.Addrs, Whole: true, Add: map[ir.Member]struct{}{}}
		for range d.IntN(40) {
			set.Add[ir.Member{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 9, 0, byte(d.IntN(200))}), 32)}] = struct{}{}
		}
		c.Sets[ir.SetID(fmt.Sprint("churn", i))] = set
	}
	c.endpoint(d, "a", nil, nil)
	c.endpoint(d, "b", []ir.Rule{port(policy.UDP, 80)}, nil)
	if d.one(2) {
		c.endpoint(d, "c", nil, []ir.Rule{})
	}
	if d.one(2) {
		open := desired.Chains{Ingress: c.chain(d, policy.Ingress), Egress: c.chain(d, policy.Egress)}
		c.HostEndpoints["eth1"] = &desired.HostEndpoint{Name: "churn", Interface: "eth1", Normal: open, Forward: open, PreDNAT: unjudged, Untracked: unjudged}
	}
	return c
}

// endpoint adds a pod: nil rules let everything through, others what they allow.
func (c churn) endpoint(d dice, pod string, ingress, egress []ir.Rule) {
	iface := desired.HostInterface("test", pod)
	ep := &desired.Endpoint{
		Interface: iface, Pod: "test/" + pod, Generation: 1, Addrs: addrsOf(pod),
		Ingress: c.chain(d, policy.Ingress), Egress: c.chain(d, policy.Egress),
	}
	end := func(chain *ir.Chain, dir policy.Direction, rules []ir.Rule) {
		if rules == nil {
			return
		}
		id := ir.ProgramID{Policy: policy.Key{Namespace: "test", Name: pod}, Direction: dir}
		c.Programs[id] = &ir.Program{ID: id, Rules: rules}
		chain.Tiers = append(chain.Tiers, ir.Tier{Name: "default", Programs: []ir.ProgramID{id}, End: policy.Deny})
	}
	end(&ep.Ingress, policy.Ingress, ingress)
	end(&ep.Egress, policy.Egress, egress)
	c.Endpoints[iface] = ep
}

// chain draws policies that decide nothing about the packets of the test.
func (c churn) chain(d dice, dir policy.Direction) ir.Chain {
	tier := ir.Tier{Name: "churn", End: policy.Pass}
	for _, i := range d.Perm(churnPolicies)[:d.IntN(6)] {
		id := ir.ProgramID{Policy: policy.Key{Kind: policy.GlobalNetworkPolicy, Name: fmt.Sprint("churn", i)}, Direction: dir}
		tier.Programs = append(tier.Programs, id)
		if c.Programs[id] != nil {
			continue
		}
		p := &ir.Program{ID: id}
		for range d.IntN(6) {
			r := port(pick(d, policy.TCP, policy.UDP), uint16(9000+d.IntN(100)))
			r.Action = pick(d, policy.Allow, policy.Deny, policy.Pass)
			r.SrcSets = []ir.SetID{ir.SetID(fmt.Sprint("churn", d.IntN(churnSets)))}
			p.Rules = append(p.Rules, r)
		}
		c.Programs[id] = p
	}
	chain := ir.Chain{Default: policy.Allow}
	if len(tier.Programs) > 0 {
		chain.Tiers = []ir.Tier{tier}
	}
	return chain
}

// since returns the change from an earlier step.
func (c churn) since(old churn) desired.Delta {
	gone(c.Endpoints, old.Endpoints)
	gone(c.Programs, old.Programs)
	gone(c.HostEndpoints, old.HostEndpoints)
	return c.Delta
}

// gone says of everything in old that is not in now that it is no more.
func gone[K comparable, V any](now, old map[K]*V) {
	for k, v := range old {
		if _, still := now[k]; !still && v != nil {
			now[k] = nil
		}
	}
}
