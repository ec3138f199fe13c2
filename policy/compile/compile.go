// Package compile turns a policy into the programs that backends install and
// policy/eval gives a meaning to. It decides nothing: a policy that is unusable
// in part was made to match less by policy/convert, and stays so here.
//
// The package is pure.
package compile

import (
	"crypto/sha256"
	"encoding/base32"
	"strings"

	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// SetIDOf names a set. It depends on the canonical text of the set and on the
// kind of its members alone, so every node gives the same name to the same set;
// 100 bits of a hash keep different sets apart. The kind is part of it because a
// kernel cannot make a set that rules use into one of another kind: should a
// later version choose another kind for a set, it is another set.
func SetIDOf(set policy.Set) ir.SetID {
	const length = 20
	sum := sha256.Sum256(append([]byte{byte(SetKindOf(set))}, set.String()...))
	return ir.SetID(strings.ToLower(base32.StdEncoding.EncodeToString(sum[:])[:length]))
}

// SetKindOf returns what the members of a set are.
func SetKindOf(set policy.Set) ir.SetKind {
	switch {
	case set.HasPorts():
		return ir.AddrPorts
	case set.Scope.Kinds()&(policy.NetworkSets|policy.GlobalNetworkSets) != 0:
		return ir.Nets
	}
	return ir.Addrs
}

// Sets returns the sets that Compile refers to, each once, in order.
func Sets(p *policy.Policy, d policy.Direction) []policy.Set {
	var sets []policy.Set
	seen := map[string]bool{}
	Compile(p, d, func(s policy.Set) ir.SetID {
		if text := s.String(); !seen[text] {
			seen[text] = true
			sets = append(sets, s)
		}
		return ""
	})
	return sets
}

// Compile returns the program of p in direction d; it has no rules when d is
// not one of p's types. setID names the sets, usually by SetIDOf. Each pair of
// ends of a rule becomes one rule of the program per protocol.
func Compile(p *policy.Policy, d policy.Direction, setID func(policy.Set) ir.SetID) *ir.Program {
	prog := &ir.Program{ID: ir.ProgramID{Policy: p.Key, Direction: d}}
	if p.Types&d == 0 {
		return prog
	}
	for i, r := range p.Rules(d) {
		c := compiler{setID: setID, family: ir.Family(r.IPVersion)}
		src, dst := ends(r.Peers, policy.Scope{}), ends(r.Own, p.Subject)
		if d == policy.Egress {
			src, dst = dst, src
		}
		kinds := combined(traffic(r.Ports, r.NotPorts), traffic(r.SrcPorts, r.NotSrcPorts))
		for _, s := range src {
			for _, e := range dst {
				for _, t := range kinds {
					c.rule(t, s, e)
				}
			}
		}
		for _, rule := range c.rules {
			rule.Action, rule.Origin = r.Action, i
			prog.Rules = append(prog.Rules, rule)
		}
	}
	return prog
}

// compiler gathers what one rule of a policy becomes.
type compiler struct {
	setID  func(policy.Set) ir.SetID
	family ir.Family
	rules  []ir.Rule
}

// rule adds the rule for one kind of traffic between two ends, unless nothing
// can match it.
func (c *compiler) rule(t l4, src, dst end) {
	family, ok := c.family, true
	r := ir.Rule{
		Protocol: t.protocol, NotProtocols: t.notProtocols, Message: t.message, NotMessages: t.notMessages,
		SrcPorts: t.src.ranges, DstPorts: t.dst.ranges,
	}
	if r.SrcNets, r.NotSrcNets, family, ok = src.nets(family); !ok {
		return
	}
	if r.DstNets, r.NotDstNets, family, ok = dst.nets(family); !ok {
		return
	}
	r.Family = family
	if t.src.named && !src.hasNames || t.dst.named && !dst.hasNames {
		return
	}
	// A criterion that may still fail must not name its sets: Sets asks for those
	// that are used.
	r.SrcSets, r.NotSrcSets = c.sets(src, t.src, true)
	r.DstSets, r.NotDstSets = c.sets(dst, t.dst, false)
	r.SrcPortSets, r.NotSrcPortSets = c.portSets(src, t.src, true)
	r.DstPortSets, r.NotDstPortSets = c.portSets(dst, t.dst, false)
	c.rules = append(c.rules, r)
}

// sets returns the address sets that one end must and must not be in. A named
// port implies its scope.
func (c *compiler) sets(e end, p ports, source bool) (in, notIn []ir.SetID) {
	if e.peer == nil {
		return nil, nil
	}
	if e.peer.Scope != nil && !p.named {
		in = append(in, c.setID(policy.Set{Scope: *e.peer.Scope}))
	}
	if e.peer.Service != (policy.ServiceName{}) && source {
		in = append(in, c.setID(policy.Set{Service: e.peer.Service, Portless: true}))
	}
	if e.peer.NotScope != nil {
		notIn = append(notIn, c.setID(policy.Set{Scope: *e.peer.NotScope}))
	}
	return in, notIn
}

// portSets returns the sets with ports that one end must and must not be in.
func (c *compiler) portSets(e end, p ports, source bool) (in, notIn []ir.SetID) {
	if e.peer != nil && e.peer.Service != (policy.ServiceName{}) && !source {
		in = append(in, c.setID(policy.Set{Service: e.peer.Service}))
	}
	if p.named {
		in = append(in, c.setID(policy.Set{Scope: e.names, Port: p.name}))
	}
	if e.hasNames {
		for _, n := range p.notNames {
			notIn = append(notIn, c.setID(policy.Set{Scope: e.names, Port: n}))
		}
	}
	return in, notIn
}

// Chain returns the chain of a pod that the policies in active select: those of
// type d, in the order given, which is that of tiers.Compare. Policies of one
// tier stand together. A pod that no policy isolates in direction d is open.
func Chain(active []*policy.Policy, d policy.Direction, tiers policy.Tiers) ir.Chain {
	return chain(active, d, tiers, policy.Hook.OnPods)
}

// HostChain returns one of the chains of a host endpoint that the policies in
// active select: the one at a point of a packet's way. At Normal it is all that
// concerns traffic of the node itself, and a node that no policy opens is closed.
// At NormalAndForward it is what concerns forwarded traffic. What no rule decides
// about before DNAT or connection tracking goes on to the points behind them.
func HostChain(active []*policy.Policy, d policy.Direction, tiers policy.Tiers, at policy.Hook) ir.Chain {
	c := chain(active, d, tiers, func(h policy.Hook) bool {
		return h == at || at == policy.Normal && h == policy.NormalAndForward
	})
	switch at {
	case policy.Normal:
		c.Default = policy.Deny
	case policy.PreDNAT, policy.Untracked:
		for _, list := range [][]ir.Tier{c.Tiers, c.Pending} {
			for i := range list {
				list[i].End = policy.Pass
			}
		}
	}
	return c
}

// chain returns the chain of the policies whose hook acts here.
func chain(active []*policy.Policy, d policy.Direction, tiers policy.Tiers, acts func(policy.Hook) bool) ir.Chain {
	c := ir.Chain{Default: policy.Allow}
	staged := false
	for _, p := range active {
		if p.Types&d == 0 || !acts(p.Hook) {
			continue
		}
		c.Pending = with(c.Pending, p, d, tiers)
		if p.Enforcement == policy.Staged {
			staged = true
		} else {
			c.Tiers = with(c.Tiers, p, d, tiers)
		}
	}
	if !staged {
		c.Pending = nil
	}
	return c
}

// with appends the program of p to its tier, which is the last or a new one.
func with(list []ir.Tier, p *policy.Policy, d policy.Direction, tiers policy.Tiers) []ir.Tier {
	if n := len(list); n == 0 || list[n-1].Name != p.Tier {
		list = append(list, ir.Tier{Name: p.Tier, End: tiers.Get(p.Tier).End})
	}
	t := &list[len(list)-1]
	t.Programs = append(t.Programs, ir.ProgramID{Policy: p.Key, Direction: d})
	return list
}
