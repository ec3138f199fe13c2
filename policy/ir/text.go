package ir

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/koratnet/korat/policy"
)

// String returns the range as 80 or 80-90.
func (r PortRange) String() string {
	if r.First == r.Last {
		return fmt.Sprint(r.First)
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// String returns "IPv4", "IPv6" or "any".
func (f Family) String() string {
	if f == AnyFamily {
		return "any"
	}
	return fmt.Sprintf("IPv%d", uint8(f))
}

// String returns the address, with port and protocol where the member has them.
func (m Member) String() string {
	if m.Protocol == policy.AnyProtocol {
		return m.Prefix.String()
	}
	return fmt.Sprintf("%s %d/%s", m.Prefix.Addr(), m.Port, m.Protocol)
}

// String returns the rule in one line.
func (r *Rule) String() string {
	var b strings.Builder
	b.WriteString(r.Action.String())
	if r.Family != AnyFamily {
		b.WriteString(" " + r.Family.String())
	}
	if r.Protocol != policy.AnyProtocol {
		b.WriteString(" " + r.Protocol.String())
	}
	list(&b, " not protocol ", r.NotProtocols)
	if r.Message.Compare != policy.AnyMessage {
		b.WriteString(" " + r.Message.String())
	}
	list(&b, " not ", r.NotMessages)
	side(&b, " from", r.SrcNets, r.NotSrcNets, [4][]SetID{r.SrcSets, r.NotSrcSets, r.SrcPortSets, r.NotSrcPortSets}, r.SrcPorts)
	side(&b, " to", r.DstNets, r.NotDstNets, [4][]SetID{r.DstSets, r.NotDstSets, r.DstPortSets, r.NotDstPortSets}, r.DstPorts)
	return b.String()
}

// side writes what is said about one end: the address sets it is in and not in,
// and then the same of sets with ports.
func side(b *strings.Builder, word string, nets, notNets []netip.Prefix, sets [4][]SetID, ports []PortRange) {
	before := b.Len()
	b.WriteString(word)
	start := b.Len()
	list(b, " ", nets)
	list(b, " not ", notNets)
	for i, prefix := range [...]string{" set ", " not set ", " ports of set ", " not ports of set "} {
		list(b, prefix, sets[i])
	}
	list(b, " port ", ports)
	if b.Len() == start {
		text := b.String()[:before]
		b.Reset()
		b.WriteString(text)
	}
}

func list[T any](b *strings.Builder, prefix string, items []T) {
	for i, item := range items {
		if i == 0 {
			b.WriteString(prefix)
		} else {
			b.WriteString(",")
		}
		fmt.Fprint(b, item)
	}
}

// String returns the program, a rule a line.
func (p *Program) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s\n", p.ID.Policy, p.ID.Direction)
	for i := range p.Rules {
		fmt.Fprintf(&b, "  %d: %s\n", p.Rules[i].Origin, &p.Rules[i])
	}
	return b.String()
}

// String returns the chain, a tier a line.
func (c Chain) String() string {
	var b strings.Builder
	for _, t := range c.Tiers {
		fmt.Fprintf(&b, "%s\n", t)
	}
	fmt.Fprintf(&b, "default %s\n", c.Default)
	for _, t := range c.Pending {
		fmt.Fprintf(&b, "pending %s\n", t)
	}
	return b.String()
}

// String returns the tier in one line.
func (t Tier) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "tier %s:", t.Name)
	for _, p := range t.Programs {
		fmt.Fprintf(&b, " %s", p.Policy)
	}
	fmt.Fprintf(&b, "; else %s", t.End)
	return b.String()
}
