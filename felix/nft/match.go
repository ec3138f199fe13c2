package nft

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables/expr"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/nftables"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// constant is a set whose members never change, because its name is made of them:
// the lists in rules. Rules that list the same share one.
type constant struct {
	key      []nftables.Field
	interval bool
	members  []nftables.Key
}

// constants are those that a chain needs, by name.
type constants map[string]constant

// add returns the name of a constant. kind says what its keys are made of.
func (c constants) add(kind string, one constant) string {
	slices.Sort(one.members)
	var b strings.Builder
	for _, m := range one.members {
		b.WriteString(string(m))
	}
	name := kind + "/" + short(b.String(), 12)
	c[name] = one
	return name
}

// manyNots is from how many excluded prefixes on they are looked up in a set
// and not one after the other.
const manyNots = 4

// withPorts are the protocols whose ports policies may ask for.
var withPorts = []policy.Protocol{policy.TCP, policy.UDP, policy.SCTP}

// variants splits a rule in such that ask for one protocol where that is needed
// to say what they mean, and leaves out what matches nothing. No packet matches
// two of them.
func variants(r ir.Rule) []ir.Rule {
	ports := len(r.SrcPorts)+len(r.DstPorts) > 0
	portSets := len(r.SrcPortSets)+len(r.DstPortSets) > 0
	notPortSets := len(r.NotSrcPortSets)+len(r.NotDstPortSets) > 0
	messages := r.Message.Compare != policy.AnyMessage || len(r.NotMessages) > 0
	if p := r.Protocol; p != policy.AnyProtocol {
		if slices.Contains(r.NotProtocols, p) || messages && !p.HasMessages() || (ports || portSets) && !p.HasPorts() {
			return nil
		}
		r.NotProtocols = nil
		if !p.HasPorts() {
			r.NotSrcPortSets, r.NotDstPortSets = nil, nil
		}
		return []ir.Rule{r}
	}
	if messages {
		return nil
	}
	if portSets || !ports && !notPortSets {
		return []ir.Rule{r}
	}
	var all []ir.Rule
	for _, p := range withPorts {
		if !slices.Contains(r.NotProtocols, p) {
			one := r
			one.Protocol, one.NotProtocols = p, nil
			all = append(all, one)
		}
	}
	if !ports {
		r.NotProtocols = slices.Concat(r.NotProtocols, withPorts)
		r.NotSrcPortSets, r.NotDstPortSets = nil, nil
		all = append(all, r)
	}
	return all
}

// familiesOf returns the families for which a rule is written: one rule for all
// where it does not look at addresses.
func (s style) familiesOf(r *ir.Rule) []ir.Family {
	switch {
	case r.Family != ir.AnyFamily:
		if !slices.Contains(s.families, r.Family) {
			return nil
		}
		return []ir.Family{r.Family}
	case len(r.SrcNets)+len(r.DstNets)+len(r.NotSrcNets)+len(r.NotDstNets) > 0,
		len(r.SrcSets)+len(r.DstSets)+len(r.NotSrcSets)+len(r.NotDstSets) > 0,
		len(r.SrcPortSets)+len(r.DstPortSets)+len(r.NotSrcPortSets)+len(r.NotDstPortSets) > 0:
		return s.families
	}
	return []ir.Family{ir.AnyFamily}
}

// matches returns the words that match what r matches in family f, cheap ones
// first, and false when that is nothing.
func (s style) matches(r *ir.Rule, f ir.Family, c constants) (word, bool) {
	var w word
	add := func(more ...expr.Any) { w = append(w, more...) }
	if f != ir.AnyFamily && len(s.families) > 1 {
		add(ofFamily(f)...)
	}
	add(protocols(r)...)
	if r.Message.Compare != policy.AnyMessage {
		add(message(r.Message, expr.CmpOpEq)...)
	}
	for _, not := range r.NotMessages {
		if not.Compare == policy.AnyMessage {
			return nil, false
		}
		add(message(not, expr.CmpOpNeq)...)
	}
	ends := []end{
		{destination, r.DstNets, r.NotDstNets, r.DstSets, r.NotDstSets, r.DstPortSets, r.NotDstPortSets, r.DstPorts},
		{source, r.SrcNets, r.NotSrcNets, r.SrcSets, r.NotSrcSets, r.SrcPortSets, r.NotSrcPortSets, r.SrcPorts},
	}
	for _, e := range ends {
		more, ok := e.matchPorts(c)
		if !ok {
			return nil, false
		}
		add(more...)
	}
	for _, e := range ends {
		more, ok := e.matchNets(f, c)
		if !ok {
			return nil, false
		}
		add(more...)
	}
	for _, e := range ends {
		add(e.matchSets(f)...)
	}
	return w, true
}

func protocols(r *ir.Rule) word {
	if r.Protocol != policy.AnyProtocol {
		return ofProtocol(r.Protocol)
	}
	if len(r.NotProtocols) == 0 {
		return nil
	}
	w := word{meta(expr.MetaKeyL4PROTO)}
	for _, p := range r.NotProtocols {
		w = append(w, isNot(byte(p)))
	}
	return w
}

// end is what a rule asks of one end of a packet.
type end struct {
	side
	nets, notNets         []netip.Prefix
	sets, notSets         []ir.SetID
	portSets, notPortSets []ir.SetID
	ranges                []ir.PortRange
}

func (e *end) matchSets(f ir.Family) word {
	var w word
	each := func(ids []ir.SetID, not bool, in func(ir.Family, string, bool) word) {
		for _, id := range ids {
			w = append(w, in(f, desired.SetName(id, f), not)...)
		}
	}
	each(e.sets, false, e.inSet)
	each(e.notSets, true, e.inSet)
	each(e.portSets, false, e.inPortSet)
	each(e.notPortSets, true, e.inPortSet)
	return w
}

func (e *end) matchNets(f ir.Family, c constants) (word, bool) {
	var w word
	nets, every := narrow(e.nets, f)
	switch {
	case every || len(e.nets) == 0:
	case len(nets) == 0:
		return nil, false
	case len(nets) == 1:
		w = e.within(nets[0], expr.CmpOpEq)
	default:
		w = e.inSet(f, netList(f, nets, c), false)
	}
	nots, every := narrow(e.notNets, f)
	switch {
	case every:
		return nil, false
	case len(nots) >= manyNots:
		w = append(w, e.inSet(f, netList(f, nots, c), true)...)
	default:
		for _, n := range nots {
			w = append(w, e.within(n, expr.CmpOpNeq)...)
		}
	}
	return w, true
}

// narrow returns the prefixes of family f, and whether one of them is all of it.
func narrow(nets []netip.Prefix, f ir.Family) (own []netip.Prefix, every bool) {
	for _, n := range nets {
		if f != ir.AnyFamily && f.Is(n.Addr()) {
			own = append(own, n)
			every = every || n.Bits() == 0
		}
	}
	return own, every
}

func netList(f ir.Family, nets []netip.Prefix, c constants) string {
	members := make([]nftables.Key, len(nets))
	for i, n := range nets {
		members[i] = nftables.Net(n)
	}
	return c.add(fmt.Sprintf("nets%d", f), constant{[]nftables.Field{addrField(f)}, true, members})
}

func addrField(f ir.Family) nftables.Field {
	if f == ir.IPv6 {
		return nftables.IPv6Addr
	}
	return nftables.IPv4Addr
}

func (e *end) matchPorts(c constants) (word, bool) {
	if len(e.ranges) == 0 {
		return nil, true
	}
	ranges := ir.Merged(e.ranges)
	switch {
	case len(ranges) == 0:
		return nil, false
	case len(ranges) > 1:
		var members []nftables.Key
		for _, r := range ranges {
			members = append(members, nftables.Ports(r.First, r.Last)...)
		}
		list := c.add("ports", constant{[]nftables.Field{nftables.L4Port}, true, members})
		return word{transport(e.port, 2), lookup(list, false)}, true
	case ranges[0] == ir.PortRange{First: 0, Last: 65535}:
		return nil, true
	}
	return e.between(ranges[0]), true
}
