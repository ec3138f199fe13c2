package eval

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

func ip(text string) netip.Addr { return netip.MustParseAddr(text) }

func nets(texts ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, t := range texts {
		out = append(out, netip.MustParsePrefix(t))
	}
	return out
}

func TestMatches(t *testing.T) {
	members := map[ir.SetID]netip.Addr{"one": ip("10.0.0.1"), "two": ip("10.0.0.2"), "six": ip("fd00::1")}
	e := &Evaluator{
		InSet: func(id ir.SetID, a netip.Addr) bool { return members[id] == a },
		InPortSet: func(id ir.SetID, a netip.Addr, p policy.Protocol, port uint16) bool {
			return members[id] == a && p == policy.TCP && port == 80
		},
	}
	v4 := Packet{Src: ip("10.0.0.1"), Dst: ip("10.0.0.2"), Protocol: policy.TCP, SrcPort: 5555, DstPort: 80}
	v6 := Packet{Src: ip("fd00::1"), Dst: ip("fd00::2"), Protocol: policy.UDP, DstPort: 53}
	ping := Packet{Src: ip("10.0.0.1"), Dst: ip("10.0.0.2"), Protocol: policy.ICMP}
	frag := Packet{Src: ip("10.0.0.1"), Dst: ip("10.0.0.2"), Protocol: policy.ICMP, Type: 3, Code: 4}
	typed := func(t uint8) policy.Message { return policy.Message{Compare: policy.MessageType, Type: t} }
	coded := func(t, c uint8) policy.Message {
		return policy.Message{Compare: policy.MessageTypeAndCode, Type: t, Code: c}
	}
	for _, c := range []struct {
		name string
		rule ir.Rule
		p    Packet
		want bool
	}{
		{"no criterion", ir.Rule{}, v4, true},
		{"IPv4 of IPv4", ir.Rule{Family: ir.IPv4}, v4, true},
		{"IPv6 of IPv4", ir.Rule{Family: ir.IPv6}, v4, false},
		{"IPv6 of IPv6", ir.Rule{Family: ir.IPv6}, v6, true},
		{"its protocol", ir.Rule{Protocol: policy.TCP}, v4, true},
		{"another protocol", ir.Rule{Protocol: policy.UDP}, v4, false},
		{"a net around the source", ir.Rule{SrcNets: nets("192.168.0.0/16", "10.0.0.0/8")}, v4, true},
		{"a net elsewhere", ir.Rule{SrcNets: nets("192.168.0.0/16")}, v4, false},
		{"a net of the other family", ir.Rule{SrcNets: nets("::/0")}, v4, false},
		{"the net of all IPv6", ir.Rule{DstNets: nets("::/0")}, v6, true},
		{"a net without the source", ir.Rule{SrcNets: nets("10.0.0.0/8"), NotSrcNets: nets("10.0.0.0/24")}, v4, false},
		{"a net without others", ir.Rule{SrcNets: nets("10.0.0.0/8"), NotSrcNets: nets("10.1.0.0/24", "::/0")}, v4, true},
		{"a net around the destination", ir.Rule{DstNets: nets("10.0.0.2/32")}, v4, true},
		{"a net around the source only", ir.Rule{DstNets: nets("10.0.0.1/32")}, v4, false},
		{"not the destination", ir.Rule{NotDstNets: nets("10.0.0.2/32")}, v4, false},
		{"the source's set", ir.Rule{SrcSets: []ir.SetID{"one"}}, v4, true},
		{"the destination's set for the source", ir.Rule{SrcSets: []ir.SetID{"two"}}, v4, false},
		{"the destination's set", ir.Rule{DstSets: []ir.SetID{"two"}}, v4, true},
		{"two sets, not in both", ir.Rule{SrcSets: []ir.SetID{"one", "two"}}, v4, false},
		{"an unknown set", ir.Rule{SrcSets: []ir.SetID{"none"}}, v4, false},
		{"a set of the other family", ir.Rule{SrcSets: []ir.SetID{"six"}}, v4, false},
		{"the first port of a range", ir.Rule{DstPorts: []ir.PortRange{{First: 1, Last: 2}, {First: 80, Last: 90}}}, v4, true},
		{"the last port of a range", ir.Rule{DstPorts: []ir.PortRange{{First: 70, Last: 80}}}, v4, true},
		{"ports around", ir.Rule{DstPorts: []ir.PortRange{{First: 1, Last: 79}, {First: 81, Last: 65535}}}, v4, false},
		{"ports for a ping", ir.Rule{DstPorts: []ir.PortRange{{First: 0, Last: 65535}}}, ping, false},
		{"ICMP for a ping", ir.Rule{Protocol: policy.ICMP}, ping, true},
		{"any protocol but others", ir.Rule{NotProtocols: []policy.Protocol{policy.UDP}}, v4, true},
		{"any protocol but its own", ir.Rule{NotProtocols: []policy.Protocol{policy.UDP, policy.TCP}}, v4, false},
		{"the source port", ir.Rule{SrcPorts: []ir.PortRange{{First: 5000, Last: 6000}}}, v4, true},
		{"another source port", ir.Rule{SrcPorts: []ir.PortRange{{First: 80, Last: 80}}}, v4, false},
		{"not in a set", ir.Rule{NotSrcSets: []ir.SetID{"two"}, NotDstSets: []ir.SetID{"one", "none"}}, v4, true},
		{"in a set that must not be", ir.Rule{NotSrcSets: []ir.SetID{"two", "one"}}, v4, false},
		{"in the other set that must not be", ir.Rule{NotDstSets: []ir.SetID{"two"}}, v4, false},
		{"the destination's port set", ir.Rule{DstPortSets: []ir.SetID{"two"}}, v4, true},
		{"a port set for the source", ir.Rule{SrcPortSets: []ir.SetID{"one"}}, v4, false},
		{"a port set that must not be", ir.Rule{NotDstPortSets: []ir.SetID{"two"}}, v4, false},
		{"a port set elsewhere that must not be", ir.Rule{NotSrcPortSets: []ir.SetID{"one"}}, v4, true},
		{"a port set for a ping", ir.Rule{DstPortSets: []ir.SetID{"two"}}, ping, false},
		{"no port set for a ping", ir.Rule{NotDstPortSets: []ir.SetID{"two"}}, ping, true},
		{"a message of its type", ir.Rule{Message: typed(3)}, frag, true},
		{"a message of another type", ir.Rule{Message: typed(8)}, frag, false},
		{"a message of its type and code", ir.Rule{Message: coded(3, 4)}, frag, true},
		{"a message of another code", ir.Rule{Message: coded(3, 1)}, frag, false},
		{"a message of no ICMP", ir.Rule{Message: typed(0)}, v4, false},
		{"none of these messages", ir.Rule{NotMessages: []policy.Message{typed(8), coded(3, 4)}}, frag, false},
		{"other messages", ir.Rule{NotMessages: []policy.Message{typed(8), coded(3, 1)}}, frag, true},
	} {
		if got := e.Matches(&c.rule, c.p); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func program(name string) ir.ProgramID {
	return ir.ProgramID{Policy: policy.Key{Name: name}, Direction: policy.Ingress}
}

// rulesFor makes an evaluator whose programs are these.
func rulesFor(programs map[string][]ir.Rule) *Evaluator {
	return &Evaluator{
		Program: func(id ir.ProgramID) *ir.Program {
			rules, ok := programs[id.Policy.Name]
			if !ok {
				return nil
			}
			return &ir.Program{ID: id, Rules: rules}
		},
		InSet: func(ir.SetID, netip.Addr) bool { return false },
	}
}

func TestChain(t *testing.T) {
	e := rulesFor(map[string][]ir.Rule{
		"empty":   nil,
		"allow80": {{Protocol: policy.UDP}, {Action: policy.Allow, Protocol: policy.TCP, DstPorts: []ir.PortRange{{First: 80, Last: 80}}, Origin: 7}},
		"allow":   {{Action: policy.Allow}},
		"deny":    {{Action: policy.Deny}},
		"pass":    {{Action: policy.Pass}},
	})
	tier := func(name string, end policy.Action, programs ...string) ir.Tier {
		t := ir.Tier{Name: name, End: end}
		for _, p := range programs {
			t.Programs = append(t.Programs, program(p))
		}
		return t
	}
	chain := func(tiers ...ir.Tier) ir.Chain { return ir.Chain{Tiers: tiers, Default: policy.Allow} }
	p := Packet{Src: ip("10.0.0.1"), Dst: ip("10.0.0.2"), Protocol: policy.TCP, DstPort: 80}
	for _, c := range []struct {
		name  string
		chain ir.Chain
		state State
		want  Decision
	}{
		{"without tiers the default decides", chain(), New, Decision{Action: policy.Allow, Cause: ByDefault}},
		{"a closed default", ir.Chain{Default: policy.Deny}, New, Decision{Action: policy.Deny, Cause: ByDefault}},
		{
			"the first rule that matches decides",
			chain(tier("a", policy.Deny, "empty", "allow80", "deny")), New,
			Decision{Action: policy.Allow, Cause: ByRule, Tier: "a", Program: program("allow80"), Rule: 1, Origin: 7},
		},
		{
			"an earlier program wins",
			chain(tier("a", policy.Deny, "deny", "allow80")), New,
			Decision{Action: policy.Deny, Cause: ByRule, Tier: "a", Program: program("deny")},
		},
		{"no rule matches in a final tier", chain(tier("a", policy.Deny, "empty")), New, Decision{Action: policy.Deny, Cause: ByTierEnd, Tier: "a"}},
		{
			"no rule matches in a tier that passes",
			chain(tier("a", policy.Pass, "empty"), tier("b", policy.Deny, "allow")), New,
			Decision{Action: policy.Allow, Cause: ByRule, Tier: "b", Program: program("allow")},
		},
		{
			"pass skips the rest of its tier",
			chain(tier("a", policy.Deny, "pass", "deny"), tier("b", policy.Deny, "allow")), New,
			Decision{Action: policy.Allow, Cause: ByRule, Tier: "b", Program: program("allow")},
		},
		{"pass out of the last tier leads to the default", chain(tier("a", policy.Deny, "pass")), New, Decision{Action: policy.Allow, Cause: ByDefault}},
		{
			"an unknown program denies",
			chain(tier("a", policy.Pass, "unheard", "allow")), New,
			Decision{Action: policy.Deny, Cause: ByMissing, Tier: "a", Program: program("unheard"), Rule: -1},
		},
		{"established connections go on", chain(tier("a", policy.Deny, "deny")), Established, Decision{Action: policy.Allow, Cause: ByState, State: Established}},
		{"46: errors about connections get through", chain(tier("a", policy.Deny, "deny")), Related, Decision{Action: policy.Allow, Cause: ByState, State: Related}},
		{"invalid packets are dropped", chain(tier("a", policy.Deny, "allow")), Invalid, Decision{Action: policy.Deny, Cause: ByState, State: Invalid}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := p
			p.State = c.state
			got := e.Chain(c.chain, p)
			if diff := cmp.Diff(c.want, got, cmpopts.IgnoreFields(Decision{}, "Trace")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestTraceNamesEverythingThatWasAsked(t *testing.T) {
	e := rulesFor(map[string][]ir.Rule{
		"empty": nil,
		"pass":  {{Action: policy.Allow, Protocol: policy.UDP}, {Action: policy.Pass, Origin: 3}},
		"allow": {{Action: policy.Allow}},
	})
	got := e.Chain(ir.Chain{Tiers: []ir.Tier{
		{Name: "a", Programs: []ir.ProgramID{program("empty"), program("pass"), program("allow")}},
		{Name: "b", Programs: []ir.ProgramID{program("empty")}, End: policy.Deny},
		{Name: "c", Programs: []ir.ProgramID{program("allow")}},
	}}, Packet{Src: ip("::1"), Dst: ip("::2"), Protocol: policy.TCP}).Trace
	want := []TierTrace{
		{Name: "a", Action: policy.Pass, Programs: []ProgramTrace{
			{ID: program("empty"), Rule: -1},
			{ID: program("pass"), Rule: 1, Origin: 3, Action: policy.Pass},
		}},
		{Name: "b", Action: policy.Deny, Programs: []ProgramTrace{{ID: program("empty"), Rule: -1}}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestPath(t *testing.T) {
	e := rulesFor(map[string][]ir.Rule{})
	open := &Endpoint{Ingress: ir.Chain{Default: policy.Allow}, Egress: ir.Chain{Default: policy.Allow}}
	shut := &Endpoint{Ingress: ir.Chain{Default: policy.Deny}, Egress: ir.Chain{Default: policy.Deny}}
	for _, c := range []struct {
		name string
		path Path
		want policy.Action
	}{
		{"40: open to open", Path{From: open, To: &Endpoint{Ingress: open.Ingress}}, policy.Allow},
		{"40: shut to open", Path{From: shut, To: open}, policy.Deny},
		{"40: open to shut", Path{From: open, To: shut}, policy.Deny},
		{"outside to open", Path{To: open}, policy.Allow},
		{"outside to shut", Path{To: shut}, policy.Deny},
		{"open to outside", Path{From: open}, policy.Allow},
		{"shut to outside", Path{From: shut}, policy.Deny},
		{"41: own host to shut", Path{To: shut, FromOwnHost: true}, policy.Allow},
		{"42: shut to itself", Path{From: shut, To: shut}, policy.Allow},
		{"outside to outside", Path{}, policy.Allow},
	} {
		if got := e.Path(c.path, Packet{}); got.Action != c.want {
			t.Errorf("%s: %s, want %s", c.name, got.Action, c.want)
		}
	}
}
