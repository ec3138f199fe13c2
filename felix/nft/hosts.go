package nft

import (
	"maps"
	"slices"

	"github.com/google/nftables/expr"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/nftables"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// point is where on its way a packet is asked of host endpoints.
type point uint8

const (
	untrackedIn point = iota
	untrackedOut
	preDNAT
	normalIn
	normalOut
	forwardIn
	forwardOut
	points
)

// pointWords name the chains and maps of a point, below hosts/.
var pointWords = [points]string{"untracked-in", "untracked-out", "pre-dnat", "normal-in", "normal-out", "forward-in", "forward-out"}

func (p point) chain() string { return hostsPrefix + pointWords[p] }

// of returns the chain of an endpoint that is asked at p.
func (p point) of(e *desired.HostEndpoint) ir.Chain {
	return [points]ir.Chain{
		e.Untracked.Ingress, e.Untracked.Egress, e.PreDNAT.Ingress,
		e.Normal.Ingress, e.Normal.Egress, e.Forward.Ingress, e.Forward.Egress,
	}[p]
}

func (p point) direction() policy.Direction {
	if p == untrackedOut || p == normalOut || p == forwardOut {
		return policy.Egress
	}
	return policy.Ingress
}

// outcome: what is allowed before tracking or translation is waved through later.
// Behind forwardIn the chains of pods follow, behind the others nothing.
func (p point) outcome() outcome {
	return [points]outcome{untracks, untracks, waves, accepts, accepts, returns, accepts}[p]
}

// early reports whether p leaves open what no rule decides.
func (p point) early() bool { return p <= preDNAT }

// iface is what finds the endpoint of a packet.
func (p point) iface() expr.MetaKey {
	if p.direction() == policy.Egress {
		return expr.MetaKeyOIFNAME
	}
	return expr.MetaKeyIIFNAME
}

// hosts are the host endpoints of the node, by interface.
type hosts struct {
	endpoints map[string]*desired.HostEndpoint
	used      [points]bool
}

func hostsOf(endpoints map[string]*desired.HostEndpoint) hosts {
	h := hosts{endpoints: endpoints}
	for _, e := range endpoints {
		for p := range points {
			h.used[p] = h.used[p] || !p.early() || len(p.of(e).Tiers) > 0
		}
	}
	return h
}

// wave reports whether packets that come in, or leave, may have the waved mark.
func (h hosts) wavesIn() bool  { return h.used[untrackedIn] || h.used[preDNAT] }
func (h hosts) wavesOut() bool { return h.used[untrackedOut] }

// jumpTo leads to a point, if an endpoint is asked there.
func (h hosts) jumpTo(p point) []nftables.Rule {
	if !h.used[p] {
		return nil
	}
	return []nftables.Rule{rule(jump(p.chain()))}
}

// rawRules follow those about pods, for all other packets that come in.
func (h hosts) rawRules(s style) []nftables.Rule {
	if !h.wavesIn() {
		return nil
	}
	rules := []nftables.Rule{rule(setMark(0, s.waved))}
	if h.used[untrackedIn] {
		rules = append(rules, s.ends.carriers(carriesHere)...)
	}
	return append(rules, h.jumpTo(untrackedIn)...)
}

// baseChains are those that are there for host endpoints alone.
func (h hosts) baseChains(s style) []nftables.Chain {
	var chains []nftables.Chain
	if h.used[untrackedOut] {
		rules := append([]nftables.Rule{rule(setMark(0, s.waved))}, s.ends.carriers(carriesOut)...)
		chains = append(chains, filterChain(rawOut, nftables.Output, prioRaw, append(rules, h.jumpTo(untrackedOut)...)))
	}
	if h.used[preDNAT] {
		rules := append([]nftables.Rule{rule(fromPods(), accept)}, s.ends.carriers(carriesHere)...)
		chains = append(chains, filterChain(beforeNAT, nftables.Prerouting, prioMangle, append(rules, h.jumpTo(preDNAT)...)))
	}
	if h.used[normalOut] {
		// Where the node's own packets leave is known for sure only here: what goes
		// to a service is translated after it has been routed for the first time.
		rules := append(s.ends.carriers(carriesOut), rule(bornHere(), goTo(normalOut.chain())))
		chains = append(chains, filterChain(leaving, nftables.Postrouting, prioMangle, rules))
	}
	return chains
}

// dispatch returns the chain of a point: what passes before any endpoint is asked,
// and then the way to the endpoint of the interface.
func (h hosts) dispatch(p point, s style, set desired.Settings) (nftables.Chain, constants) {
	needs := constants{}
	var rules []nftables.Rule
	if p.direction() == policy.Egress {
		rules = append(rules, rule(toPods(), back))
	}
	if h.wavesIn() && (p == preDNAT || p == normalIn || p == forwardIn) || h.wavesOut() && p == normalOut {
		rules = append(rules, rule(marked(s.waved), back))
	}
	if p == preDNAT || p == normalIn || p == normalOut {
		rules = append(rules, rule(inState(established), back))
	}
	rules = append(rules, failsafes(p, set, needs)...)
	rules = append(rules, rule(word{meta(p.iface()), decide(p.chain())}))
	if any := h.endpoints[desired.AnyInterface]; any != nil {
		loopback := word{meta(p.iface()), is([]byte(nftables.Interface("lo"))...)}
		rules = append(rules, rule(loopback, back))
		if p == forwardIn {
			rules = append(rules, rule(fromPods(), back))
		}
		rules = append(rules, rule(goTo(hostChain(p, desired.AnyInterface))))
	}
	return nftables.Chain{Name: p.chain(), Rules: rules}, needs
}

// hostChain names the chain of an endpoint at a point.
func hostChain(p point, iface string) string {
	if iface == desired.AnyInterface {
		return p.chain() + "/any"
	}
	return p.chain() + "/if-" + iface
}

// endpoint returns the chains of an endpoint at a point.
func (h hosts) endpoint(e *desired.HostEndpoint, p point, s style, set desired.Settings, b book) []nftables.Chain {
	w := walk{style: s, name: hostChain(p, e.Interface), direction: p.direction(), outcome: p.outcome(), book: b}
	if !p.early() && set.Invalid == policy.Deny {
		w.add(inState(expr.CtStateBitINVALID), s.deny(desired.Reason{Cause: desired.Invalid, Direction: p.direction()}))
	}
	chain := p.of(e)
	if p.early() {
		chain.Default = policy.Allow
	}
	w.chain(chain)
	chains, _ := w.chains(e.Name) // policies of hosts have chains of their own
	return chains
}

// failsafes let through what keeps the node alive. Before connection tracking
// they do so in both directions of a connection, so that no half of one is
// untracked.
func failsafes(p point, set desired.Settings, needs constants) []nftables.Rule {
	switch p {
	case untrackedIn, untrackedOut:
		own, others := set.FailsafeIn, set.FailsafeOut
		if p == untrackedOut {
			own, others = others, own
		}
		ports := append(failsafe(p, own, destination, needs), failsafe(p, others, source, needs)...)
		return append(hostNeighbours(), ports...)
	case preDNAT, normalIn:
		return append(hostNeighbours(), failsafe(p, set.FailsafeIn, destination, needs)...)
	case normalOut:
		return append(hostNeighbours(), failsafe(p, set.FailsafeOut, destination, needs)...)
	}
	return nil
}

// hostNeighbours lets through what a node finds its neighbours and routers by.
func hostNeighbours() []nftables.Rule {
	var rules []nftables.Rule
	for _, t := range hostTypes {
		rules = append(rules, rule(ofProtocol(policy.ICMPv6), ofType(t[0], t[1]), back))
	}
	return rules
}

// failsafe returns the rules for a list, of which the ports are those of one end.
func failsafe(p point, list []desired.Failsafe, ports side, needs constants) []nftables.Rule {
	other := source
	if p.direction() == policy.Egress {
		other = destination
	}
	var rules []nftables.Rule
	everybody := map[nftables.Key]struct{}{}
	for _, f := range list {
		if !f.Net.IsValid() {
			everybody[nftables.Join(nftables.Protocol(uint8(f.Protocol)), nftables.Port(f.Port))] = struct{}{}
			continue
		}
		from := append(ofFamily(familyOf(f.Net.Addr())), other.within(f.Net, expr.CmpOpEq)...)
		rules = append(rules, rule(ofProtocol(f.Protocol), ports.at(f.Port), from, back))
	}
	if len(everybody) == 0 {
		return rules
	}
	set := needs.add("failsafe", constant{
		key: []nftables.Field{nftables.L4Proto, nftables.L4Port}, members: slices.Collect(maps.Keys(everybody)),
	})
	match := word{meta(expr.MetaKeyL4PROTO), load(expr.PayloadBaseTransportHeader, ports.port, 2, wordAt(4)), lookup(set, false)}
	return append(rules, rule(match, back))
}
