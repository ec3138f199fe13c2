package nft

import (
	"net/netip"

	"github.com/google/nftables/expr"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/nftables"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// fromEndpoint returns the chains that decide about packets which came out of e's
// interface: those that come back from the first are allowed. A pod that reaches
// itself, through a service, is not kept from it in either direction. Where that
// can be asked last, as nothing but the end of a tier denies, it is: by toEndpoint.
func (s style) fromEndpoint(e *desired.Endpoint, b book) ([]nftables.Chain, constants) {
	w := walk{style: s, name: fromPrefix + attachment(e), direction: policy.Egress, outcome: returns, book: b}
	if restricts(e.Egress) || restricts(e.Ingress) && !mild(e.Ingress, b) {
		w.add(out(e.Interface), accept)
	}
	w.chain(e.Egress)
	return w.chains(e.Pod)
}

// toEndpoint returns the chains that decide about packets which go into e's
// interface. In a family in which it has no address it is unknown.
func (s style) toEndpoint(e *desired.Endpoint, b book) ([]nftables.Chain, constants) {
	w := walk{style: s, name: toPrefix + attachment(e), direction: policy.Ingress, outcome: accepts, book: b}
	for _, f := range bothFamilies {
		if !hasFamily(e.Addrs, f) {
			w.add(ofFamily(f), s.deny(desired.Reason{Cause: desired.Unknown, Direction: policy.Ingress}))
		}
	}
	if !restricts(e.Egress) && mild(e.Ingress, b) {
		w.itself = rule(in(e.Interface), accept).Exprs
	}
	w.chain(e.Ingress)
	return w.chains(e.Pod)
}

// restricts reports whether c may deny anything.
func restricts(c ir.Chain) bool { return len(c.Tiers) > 0 || c.Default == policy.Deny }

// mild reports whether no rule of c denies or passes.
func mild(c ir.Chain, b book) bool {
	for _, id := range references(c) {
		if !b.mild(id) {
			return false
		}
	}
	return true
}

func hasFamily(addrs []netip.Addr, f ir.Family) bool {
	for _, a := range addrs {
		if f.Is(a) {
			return true
		}
	}
	return false
}

// chains returns what was written, the first chain of the endpoint first, and what
// that needs.
func (w *walk) chains(about string) ([]nftables.Chain, constants) {
	if len(w.rules) > 0 {
		w.rules[0].Comment = about
	}
	return append(w.pages(w.name), w.tiers...), w.needs
}

// furtherSources returns the chain that lets e send from its Sources.
func (s style) furtherSources(e *desired.Endpoint) nftables.Chain {
	var rules []nftables.Rule
	for _, p := range e.Sources {
		rules = append(rules, rule(ofFamily(familyOf(p.Addr())), source.within(p, expr.CmpOpEq), accept))
	}
	return nftables.Chain{Name: sourcePrefix + attachment(e), Rules: append(rules, rule(goTo(forgedSource)))}
}

// sourceKey is the element of the map of sources that lets e send from a.
func sourceKey(e *desired.Endpoint, a netip.Addr) nftables.Key {
	return nftables.Join(nftables.Interface(e.Interface), nftables.Addr(a))
}

// knownSource lets packets of family f on whose source is one of the pod behind
// the interface they came through. The name of the interface is loaded once, for
// both tests.
func knownSource(f ir.Family) word {
	return append(append(ofFamily(f), fromPods()...),
		source.loadAddr(f, addrSize(f), wordAt(interfaceBytes)), decide(sourcesOf(f)))
}

// interfaceBytes is how many the name of an interface takes in a register.
var interfaceBytes = len(nftables.Interface(""))

// Messages of ICMPv6 that pods and their node find each other by, as ranges, those
// that the node and others outside do, and those that only routers send.
var (
	neighbourTypes = [][2]byte{{130, 133}, {135, 136}, {143, 143}}
	hostTypes      = [][2]byte{{130, 136}, {143, 143}}
	routerTypes    = []byte{134, 137}
)

func ofType(first, last byte) word {
	if first == last {
		return word{transport(0, 1), is(first)}
	}
	return word{transport(0, 1), compare(expr.CmpOpGte, []byte{first}), compare(expr.CmpOpLte, []byte{last})}
}
