package nft

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables/expr"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/nftables"
	"github.com/koratnet/korat/policy/ir"
)

// float is a floating address with the pod's own that it leads to.
type float struct{ addr, pod netip.Addr }

// floatsOf returns those of e.
func floatsOf(e *desired.Endpoint) []float {
	var all []float
	if e == nil {
		return nil
	}
	for _, a := range e.Floating {
		i := slices.IndexFunc(e.Addrs, func(own netip.Addr) bool { return familyOf(own) == familyOf(a) })
		if i >= 0 {
			all = append(all, float{a, e.Addrs[i]})
		}
	}
	return all
}

// floatingTo and floatingFrom name the maps that lead packets to floating
// addresses, and those of pods that have one, to their chains.
func floatingTo(f ir.Family) string   { return floatingPrefix + "to" + f.String()[len("IPv"):] }
func floatingFrom(f ir.Family) string { return floatingPrefix + "from" + f.String()[len("IPv"):] }

// floatingChain names the chain about a; people cannot write colons.
func floatingChain(of string, a netip.Addr) string {
	return of + "/" + strings.ReplaceAll(a.String(), ":", "-")
}

// to is where packets to a floating address go: on to its pod.
func (x float) to() nftables.Chain {
	f := familyOf(x.addr)
	return nftables.Chain{Name: floatingChain(floatingTo(f), x.addr), Rules: []nftables.Rule{rule(become(expr.NATTypeDestNAT, x.pod))}}
}

// from is where packets of its pod go that leave under its own address. Outside of
// the cluster they are seen under the floating one, and so does the pod see itself
// when it asks for that: else the answer would not come back through the node.
func (x float) from() nftables.Chain {
	f := familyOf(x.addr)
	hide := become(expr.NATTypeSourceNAT, x.addr)
	return nftables.Chain{Name: floatingChain(floatingFrom(f), x.pod), Rules: []nftables.Rule{
		rule(destination.within(netip.PrefixFrom(x.pod, x.pod.BitLen()), expr.CmpOpEq), hide),
		rule(destination.inSet(f, desired.SetName(desired.InsideSet, f), true), hide),
	}}
}

// become gives packets the address a, and leaves them their ports.
func become(kind expr.NATType, a netip.Addr) word {
	return word{
		&expr.Immediate{Register: reg, Data: a.AsSlice()},
		&expr.NAT{Type: kind, Family: uint32(familyNumbers[familyOf(a)]), RegAddrMin: reg},
	}
}

// floatingBases lead to the chains of floating addresses, those of what the node
// itself sends too. Masquerading comes before: what it hides does not leave under
// the pod's address. While the kernel refuses one, it has no rules.
func floatingBases() []nftables.Chain {
	var to, from []nftables.Rule
	for _, f := range bothFamilies {
		to = append(to, rule(ofFamily(f), word{destination.loadAddr(f, addrSize(f), reg), decide(floatingTo(f))}))
		from = append(from, rule(ofFamily(f), word{source.loadAddr(f, addrSize(f), reg), decide(floatingFrom(f))}))
	}
	base := func(name string, hook nftables.HookNumber, priority int32, rules []nftables.Rule) nftables.Chain {
		c := baseChain(name, nftables.NAT, hook, priority, rules)
		c.Fallback = []nftables.Rule{}
		return c
	}
	return []nftables.Chain{
		base(floatingIn, nftables.Prerouting, prioDestinationNAT, to),
		base(floatingOut, nftables.Output, prioDestinationNAT, to),
		base(floatingLeave, nftables.Postrouting, prioSourceNAT+1, from),
	}
}

// writeFloating writes the chains and maps of floating addresses, and takes away
// those that are not needed any more. They are few.
func (f *Firewall) writeFloating() {
	old := f.floating
	f.floating = map[string]struct{}{}
	keep := func(c nftables.Chain) {
		f.chains.want(c, nil)
		f.floating[c.Name] = struct{}{}
	}
	var all []float
	for _, e := range f.endpoints {
		all = append(all, floatsOf(e)...)
	}
	for _, family := range bothFamilies {
		for _, m := range []string{floatingTo(family), floatingFrom(family)} {
			f.table.UnwantMap(m) // and with it what it says about those that went
			if len(all) > 0 {
				f.table.WantMap(nftables.Map{Name: m, Key: []nftables.Field{addrField(family)}})
			}
		}
	}
	if len(all) > 0 {
		for _, c := range floatingBases() {
			keep(c)
		}
	}
	lead := func(m string, a netip.Addr, c nftables.Chain) {
		keep(c)
		f.table.WantVerdict(m, nftables.Addr(a), nftables.Goto(c.Name))
	}
	slices.SortFunc(all, func(a, b float) int { return b.addr.Compare(a.addr) }) // the first of a pod comes last
	for _, x := range all {
		lead(floatingTo(familyOf(x.addr)), x.addr, x.to())
		lead(floatingFrom(familyOf(x.addr)), x.pod, x.from())
	}
	for name := range old {
		if _, still := f.floating[name]; !still {
			f.chains.unwant(name)
		}
	}
}
