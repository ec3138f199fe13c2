// Package compile turns a policy into the programs that backends install and
// policy/eval gives a meaning to. It decides nothing: a policy that is unusable
// in part was made to match less by policy/convert, and stays so here.
//
// The package is pure.
package compile

import (
	"cmp"
	"crypto/sha256"
	"encoding/base32"
	"net/netip"
	"slices"
	"strings"

	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// SetIDOf names the set of the addresses of the pods that scope selects. It
// depends on the scope's canonical text alone, so every node gives the same name
// to the same set; 100 bits of a hash keep different scopes apart.
func SetIDOf(scope policy.Scope) ir.SetID {
	const length = 20
	sum := sha256.Sum256([]byte(scope.String()))
	return ir.SetID(strings.ToLower(base32.StdEncoding.EncodeToString(sum[:])[:length]))
}

// Scopes returns the scopes of the peers of p in direction d, each once, in
// order: the sets that Compile refers to.
func Scopes(p *policy.Policy, d policy.Direction) []policy.Scope {
	var scopes []policy.Scope
	seen := map[string]bool{}
	for _, r := range rules(p, d) {
		if r.Ports != nil && len(services(r.Ports)) == 0 {
			continue
		}
		for _, peer := range r.Peers {
			if peer.Scope == nil || peer.Net.IsValid() {
				continue
			}
			if text := peer.Scope.String(); !seen[text] {
				seen[text] = true
				scopes = append(scopes, *peer.Scope)
			}
		}
	}
	return scopes
}

// Compile returns the program of p in direction d; it has no rules when d is
// not one of p's types. setID names the sets, usually by SetIDOf. Each peer of a
// rule becomes one rule of the program per protocol.
func Compile(p *policy.Policy, d policy.Direction, setID func(policy.Scope) ir.SetID) *ir.Program {
	prog := &ir.Program{ID: ir.ProgramID{Policy: p.Key, Direction: d}}
	for i, r := range rules(p, d) {
		services := services(r.Ports)
		for _, end := range ends(r.Peers, d, setID) {
			for _, s := range services {
				rule := end
				rule.Action, rule.Protocol, rule.DstPorts, rule.Origin = r.Action, s.protocol, s.ports, i
				prog.Rules = append(prog.Rules, rule)
			}
		}
	}
	return prog
}

func rules(p *policy.Policy, d policy.Direction) []policy.Rule {
	if p.Types&d == 0 {
		return nil
	}
	return p.Rules(d)
}

// ends returns, for each peer that can match, a rule that says only who the
// other end is: the source of ingress, the destination of egress.
func ends(peers []policy.Peer, d policy.Direction, setID func(policy.Scope) ir.SetID) []ir.Rule {
	if peers == nil {
		return []ir.Rule{{}}
	}
	var out []ir.Rule
	for _, p := range peers {
		var r ir.Rule
		nets, notNets, sets := &r.SrcNets, &r.NotSrcNets, &r.SrcSets
		if d == policy.Egress {
			nets, notNets, sets = &r.DstNets, &r.NotDstNets, &r.DstSets
		}
		switch {
		case p.Scope != nil && !p.Net.IsValid():
			*sets = []ir.SetID{setID(*p.Scope)}
		case p.Scope == nil && p.Net.IsValid() && !swallowed(p):
			r.Family = ir.IPv6
			if p.Net.Addr().Is4() {
				r.Family = ir.IPv4
			}
			*nets, *notNets = []netip.Prefix{p.Net}, relevant(p)
		default:
			continue
		}
		out = append(out, r)
	}
	return out
}

// swallowed reports whether the exceptions of p leave nothing of its net.
func swallowed(p policy.Peer) bool {
	return slices.ContainsFunc(p.Except, func(e netip.Prefix) bool {
		return e.Bits() <= p.Net.Bits() && e.Contains(p.Net.Addr())
	})
}

// relevant returns the exceptions of p that lie in its net, sorted, each once.
func relevant(p policy.Peer) []netip.Prefix {
	var out []netip.Prefix
	for _, e := range p.Except {
		if e.Overlaps(p.Net) {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return slices.Compact(out)
}

// service is what a rule says about protocol and ports; no ports means all.
type service struct {
	protocol policy.Protocol
	ports    []ir.PortRange
}

// services groups ports by protocol. A port that cannot match is left out, so
// an empty result of a non-nil list matches nothing.
func services(ports []policy.Port) []service {
	if ports == nil {
		return []service{{}}
	}
	byProtocol := map[policy.Protocol][]ir.PortRange{}
	whole := map[policy.Protocol]bool{}
	for _, p := range ports {
		switch {
		case p.First == 0 && p.Last == 0:
			whole[p.Protocol] = true
			byProtocol[p.Protocol] = nil
		case p.Protocol.HasPorts() && p.First <= p.Last && !whole[p.Protocol]:
			byProtocol[p.Protocol] = append(byProtocol[p.Protocol], ir.PortRange{First: p.First, Last: p.Last})
		}
	}
	if whole[policy.AnyProtocol] {
		return []service{{}}
	}
	var out []service
	for protocol, ranges := range byProtocol {
		out = append(out, service{protocol, merged(ranges)})
	}
	slices.SortFunc(out, func(a, b service) int { return cmp.Compare(a.protocol, b.protocol) })
	return out
}

// merged returns the ranges in order, with those that overlap or touch made one.
func merged(ranges []ir.PortRange) []ir.PortRange {
	slices.SortFunc(ranges, func(a, b ir.PortRange) int { return cmp.Compare(a.First, b.First) })
	var out []ir.PortRange
	for _, r := range ranges {
		if n := len(out); n > 0 && int(r.First) <= int(out[n-1].Last)+1 {
			out[n-1].Last = max(out[n-1].Last, r.Last)
			continue
		}
		out = append(out, r)
	}
	return out
}

// Chain returns the chain of an endpoint that the policies in active select:
// those of type d, in the order given, which is the order of evaluation.
// Policies of one tier stand together. An endpoint that no policy isolates in
// direction d is open.
func Chain(active []*policy.Policy, d policy.Direction) ir.Chain {
	c := ir.Chain{Default: policy.Allow}
	for _, p := range active {
		if p.Types&d == 0 {
			continue
		}
		if n := len(c.Tiers); n == 0 || c.Tiers[n-1].Name != p.Tier {
			c.Tiers = append(c.Tiers, ir.Tier{Name: p.Tier, End: policy.Deny})
		}
		t := &c.Tiers[len(c.Tiers)-1]
		t.Programs = append(t.Programs, ir.ProgramID{Policy: p.Key, Direction: d})
	}
	return c
}
