package iptables

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// criteria is what a rule of policy/ir asks for in one family, sorted by how
// iptables can say it. A rule of iptables has place for one source, one
// destination, and so on.
type criteria struct {
	proto string     // goes into every rule: matches of ports are not allowed without
	all   string     // goes into one rule
	any   [][]string // OR-lists: one alternative of each list must match
	none  []string   // none of these may match, and they did not fit into all
}

// everything reports whether c matches every packet of its family.
func (c *criteria) everything() bool {
	return c.proto == "" && c.all == "" && len(c.any) == 0 && len(c.none) == 0
}

// programRules returns the rules of a program. Those that match nothing in the
// family leave no trace.
func (s style) programRules(p *ir.Program) []rule {
	var rules []rule
	for i, r := range p.Rules {
		say := criteria.rules
		if i == len(p.Rules)-1 {
			say = criteria.ending
		}
		for _, proto := range protocols(r) {
			r.Protocol = proto
			c, ok := criteriaOf(r, s.family)
			if !ok {
				continue
			}
			if !r.Action.Ends() {
				rules = append(rules, specs(c.once(s.marks, logTarget(p.ID, r.Origin))...)...)
				continue
			}
			v := s.verdict(p.ID, r)
			for _, line := range say(c, s.marks, v.target) {
				rules = append(rules, rule{spec: line, tag: v.tag})
			}
			if c.everything() {
				return rules // what follows cannot be reached
			}
		}
	}
	return rules
}

// protocols returns the protocols that r is written for: where it asks for ports
// and for no protocol, those that have ports.
func protocols(r ir.Rule) []policy.Protocol {
	if r.Protocol != policy.AnyProtocol || len(r.SrcPorts) == 0 && len(r.DstPorts) == 0 {
		return []policy.Protocol{r.Protocol}
	}
	var out []policy.Protocol
	for _, p := range []policy.Protocol{policy.TCP, policy.UDP, policy.SCTP} {
		if !slices.Contains(r.NotProtocols, p) {
			out = append(out, p)
		}
	}
	return out
}

// criteriaOf reports false when r matches no packet of family f.
func criteriaOf(r ir.Rule, f ir.Family) (criteria, bool) {
	if r.Family != ir.AnyFamily && r.Family != f {
		return criteria{}, false
	}
	c := criteria{proto: protocol(r.Protocol)}
	if !c.protocols(r) || !c.messages(r, f) ||
		!c.ports("s", r.Protocol, r.SrcPorts) || !c.ports("d", r.Protocol, r.DstPorts) ||
		!c.nets("-s ", r.SrcNets, r.NotSrcNets, f) || !c.nets("-d ", r.DstNets, r.NotDstNets, f) {
		return criteria{}, false
	}
	c.sets(f, "", "src", r.SrcSets)
	c.sets(f, "", "dst", r.DstSets)
	c.sets(f, "! ", "src", r.NotSrcSets)
	c.sets(f, "! ", "dst", r.NotDstSets)
	c.sets(f, "", "src,src", r.SrcPortSets)
	c.sets(f, "", "dst,dst", r.DstPortSets)
	c.sets(f, "! ", "src,src", r.NotSrcPortSets)
	c.sets(f, "! ", "dst,dst", r.NotDstPortSets)
	return c, true
}

// sets asks for membership, or for none with "! ". The ends are what of the
// packet is looked up: its address, or its address and port.
func (c *criteria) sets(f ir.Family, not, ends string, ids []ir.SetID) {
	for _, id := range ids {
		c.all = words(c.all, "-m set "+not+"--match-set", desired.SetName(id, f), ends)
	}
}

func (c *criteria) protocols(r ir.Rule) bool {
	switch {
	case slices.Contains(r.NotProtocols, r.Protocol):
		return r.Protocol == policy.AnyProtocol // which excludes nothing
	case r.Protocol != policy.AnyProtocol: // it is not another one
	case len(r.NotProtocols) == 1:
		c.all = words(c.all, "!", protocol(r.NotProtocols[0]))
	default:
		for _, p := range r.NotProtocols {
			c.none = append(c.none, protocol(p))
		}
	}
	return true
}

// messages asks for types and codes of ICMP. In the family that the protocol is
// not made for there are no such messages.
func (c *criteria) messages(r ir.Rule, f ir.Family) bool {
	if r.Message.Compare == policy.AnyMessage && len(r.NotMessages) == 0 {
		return true
	}
	if !r.Protocol.HasMessages() || (r.Protocol == policy.ICMP) != (f == ir.IPv4) {
		return false
	}
	if r.Message.Compare != policy.AnyMessage {
		m, ok := message(r.Message, f)
		if !ok {
			return false
		}
		c.all = words(c.all, m)
	}
	for _, not := range r.NotMessages {
		if not.Compare == policy.AnyMessage {
			return false
		}
		if m, ok := message(not, f); ok {
			c.none = append(c.none, m)
		}
	}
	return true
}

// message reports false for a message that nobody sends, ICMP type 255: the
// kernel takes the number to mean every type.
func message(m policy.Message, f ir.Family) (string, bool) {
	option := "-m icmp6 --icmpv6-type"
	if f == ir.IPv4 {
		if option = "-m icmp --icmp-type"; m.Type == 255 {
			return "", false
		}
	}
	if m.Compare == policy.MessageType {
		return fmt.Sprintf("%s %d", option, m.Type), true
	}
	return fmt.Sprintf("%s %d/%d", option, m.Type, m.Code), true
}

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

// ports asks for the port of one end, "s" or "d".
func (c *criteria) ports(end string, proto policy.Protocol, ranges []ir.PortRange) bool {
	if len(ranges) == 0 {
		return true
	}
	ranges = ir.Merged(ranges)
	switch {
	case len(ranges) == 0 || !proto.HasPorts():
		return false
	case len(ranges) == 1 && ranges[0] == ir.PortRange{First: 0, Last: 65535}:
		return true
	case len(ranges) == 1 && end == "d": // cheaper in the kernel than multiport with one port
		c.all = words(c.all, "-m", protocolNames[proto], "--dport", portText(ranges[0]))
		return true
	}
	lists := portLists(ranges)
	for i, list := range lists {
		lists[i] = "-m multiport --" + end + "ports " + list
	}
	if len(lists) == 1 {
		c.all = words(c.all, lists[0])
	} else {
		c.any = append(c.any, lists)
	}
	return true
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

// maxPorts is the number of ports that one multiport match holds; a range counts as two.
const maxPorts = 15

func portLists(ranges []ir.PortRange) []string {
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

// member and stranger match packets that have a member of a fixed set, or none of
// its members, at an end, "src" or "dst".
func (s style) member(id ir.SetID, end string) string {
	return "-m set --match-set " + desired.SetName(id, s.family) + " " + end
}

func (s style) stranger(id ir.SetID, end string) string {
	return "-m set ! --match-set " + desired.SetName(id, s.family) + " " + end
}
