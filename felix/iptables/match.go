package iptables

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// criteria is what a rule of policy/ir asks for in one family, sorted by how
// iptables can say it. A rule of iptables has place for one source, one
// destination and one list of ports.
type criteria struct {
	all  string     // goes into one rule
	any  [][]string // OR-lists: one alternative of each list must match
	none []string   // none of these may match, and they did not fit into all
}

// programRules returns the rules of a program in family f. Rules that match
// nothing in this family leave no trace.
func programRules(p *ir.Program, f ir.Family) []rule {
	var rules []rule
	for _, r := range p.Rules {
		c, ok := criteriaOf(r, f)
		if !ok {
			continue
		}
		rules = append(rules, specs(c.rules(target(r.Action))...)...)
		if c.all == "" && len(c.any) == 0 && len(c.none) == 0 {
			break // it matched everything: what follows cannot be reached
		}
	}
	return rules
}

func target(a policy.Action) string {
	switch a {
	case policy.Allow:
		return "-g " + allowChain
	case policy.Pass:
		return "-g " + passChain
	}
	return "-j DROP"
}

// criteriaOf reports false when r matches no packet of family f.
func criteriaOf(r ir.Rule, f ir.Family) (criteria, bool) {
	if r.Family != ir.AnyFamily && r.Family != f {
		return criteria{}, false
	}
	var c criteria
	ok := c.ports(r.Protocol, r.DstPorts) &&
		c.nets("-s ", r.SrcNets, r.NotSrcNets, f) &&
		c.nets("-d ", r.DstNets, r.NotDstNets, f)
	for _, id := range r.SrcSets {
		c.all = words(c.all, "-m set --match-set", setName(id, f), "src")
	}
	for _, id := range r.DstSets {
		c.all = words(c.all, "-m set --match-set", setName(id, f), "dst")
	}
	return c, ok
}

// setName returns the name of the kernel's set with the members of family f.
func setName(id ir.SetID, f ir.Family) string { return fmt.Sprintf("kor%d-%s", f, id) }

func (c *criteria) nets(flag string, in, notIn []netip.Prefix, f ir.Family) bool {
	yes, ok := narrow(in, f)
	if !ok {
		return false
	}
	no := make([]string, 0, len(notIn))
	for _, p := range notIn {
		if !f.Is(p.Addr()) {
			continue // no packet of this family lies in it
		}
		if p.Bits() == 0 {
			return false
		}
		no = append(no, flag+p.String())
	}
	for i, p := range yes {
		yes[i] = flag + p
	}
	switch {
	case len(yes) == 1:
		c.all, c.none = words(c.all, yes[0]), append(c.none, no...)
	case len(yes) > 1:
		c.any, c.none = append(c.any, yes), append(c.none, no...)
	case len(no) == 1:
		c.all = words(c.all, "! "+no[0])
	default:
		c.none = append(c.none, no...)
	}
	return true
}

// narrow returns the prefixes of family f, nil when every address of the family
// will do, and false when none will.
func narrow(nets []netip.Prefix, f ir.Family) ([]string, bool) {
	var own []string
	for _, p := range nets {
		if !f.Is(p.Addr()) {
			continue
		}
		if p.Bits() == 0 {
			return nil, true
		}
		own = append(own, p.String())
	}
	return own, len(own) > 0 || len(nets) == 0
}

func (c *criteria) ports(proto policy.Protocol, ranges []ir.PortRange) bool {
	if len(ranges) == 0 {
		c.all = words(c.all, protocol(proto))
		return true
	}
	protos := []policy.Protocol{proto}
	if proto == policy.AnyProtocol {
		protos = []policy.Protocol{policy.TCP, policy.UDP, policy.SCTP}
	}
	var alternatives []string
	for _, p := range protos {
		if p.HasPorts() {
			alternatives = append(alternatives, portMatches(p, merged(ranges))...)
		}
	}
	switch len(alternatives) {
	case 0:
		return false
	case 1:
		c.all = words(c.all, alternatives[0])
	default:
		c.any = append(c.any, alternatives)
	}
	return true
}

// portMatches returns matches of which one is true for packets of proto to ranges.
func portMatches(proto policy.Protocol, ranges []ir.PortRange) []string {
	p := protocol(proto)
	if len(ranges) == 1 && ranges[0] == (ir.PortRange{First: 0, Last: 65535}) {
		return []string{p}
	}
	if len(ranges) == 1 { // cheaper in the kernel than multiport with one port
		return []string{words(p, "-m", protocolNames[proto], "--dport", portText(ranges[0]))}
	}
	var matches []string
	for _, list := range portLists(ranges) {
		matches = append(matches, words(p, "-m multiport --dports", list))
	}
	return matches
}

var protocolNames = map[policy.Protocol]string{policy.TCP: "tcp", policy.UDP: "udp", policy.SCTP: "sctp"}

func protocol(p policy.Protocol) string {
	if p == policy.AnyProtocol {
		return ""
	}
	if name, ok := protocolNames[p]; ok {
		return "-p " + name
	}
	return "-p " + strconv.Itoa(int(p))
}

// merged returns the same ports in as few ranges as possible, in order.
func merged(ranges []ir.PortRange) []ir.PortRange {
	sorted := slices.Clone(ranges)
	slices.SortFunc(sorted, func(a, b ir.PortRange) int { return cmp.Compare(a.First, b.First) })
	var out []ir.PortRange
	for _, r := range sorted {
		if r.First > r.Last {
			continue
		}
		if n := len(out); n > 0 && int(r.First) <= int(out[n-1].Last)+1 {
			out[n-1].Last = max(out[n-1].Last, r.Last)
			continue
		}
		out = append(out, r)
	}
	return out
}

// maxPorts is the number of ports that one multiport match holds; a range counts as two.
const maxPorts = 15

func portLists(ranges []ir.PortRange) []string {
	if len(ranges) == 0 {
		return nil
	}
	var lists []string
	list, used := "", 0
	for _, r := range ranges {
		need := 1
		if r.First != r.Last {
			need = 2
		}
		if used+need > maxPorts {
			lists, list, used = append(lists, list), "", 0
		}
		if list != "" {
			list += ","
		}
		list, used = list+portText(r), used+need
	}
	return append(lists, list)
}

func portText(r ir.PortRange) string {
	if r.First == r.Last {
		return strconv.Itoa(int(r.First))
	}
	return fmt.Sprintf("%d:%d", r.First, r.Last)
}

// rules says c in as few rules as it takes, the last of which have the target.
//
// Where OR-lists are few and short they are multiplied out, one rule per
// combination. Else, and wherever something is excluded, the packet carries the
// answer so far in a mark: every rule that follows may only clear it.
func (c criteria) rules(target string) []string {
	combinations, block := [][]string{nil}, 1
	for _, list := range c.any {
		var longer [][]string
		for _, head := range combinations {
			for _, alternative := range list {
				longer = append(longer, append(slices.Clip(head), alternative))
			}
		}
		combinations, block = longer, block+len(list)+2
		if len(combinations) > block {
			return c.marked(c.any, nil, target)
		}
	}
	if len(c.none) > 0 {
		return c.marked(nil, combinations, target)
	}
	return c.final("", combinations, target)
}

// final writes one rule per combination.
func (c criteria) final(marked string, combinations [][]string, target string) []string {
	lines := make([]string, len(combinations))
	for i, parts := range combinations {
		lines[i] = words(c.all, words(parts...), marked, target)
	}
	return lines
}

// marked writes a mark block for the lists and for what is excluded, and then
// the final rules, which ask for the mark.
func (c criteria) marked(lists, combinations [][]string, target string) []string {
	var lines []string
	for i, list := range lists {
		bit := uint32(blockMark)
		if i == 0 {
			bit = everyMark
		}
		lines = append(lines, clearMark(bit))
		for _, alternative := range list {
			lines = append(lines, words(alternative, setMark(bit)))
		}
		if i > 0 {
			lines = append(lines, words(noMark(blockMark), clearMark(everyMark)))
		}
	}
	if len(lists) == 0 {
		lines = append(lines, setMark(everyMark))
	}
	for _, excluded := range c.none {
		lines = append(lines, words(excluded, clearMark(everyMark)))
	}
	if combinations == nil {
		combinations = [][]string{nil}
	}
	return append(lines, c.final(mark(everyMark), combinations, target)...)
}
