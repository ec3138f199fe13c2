package ir

import (
	"net/netip"
	"testing"

	"github.com/koratnet/korat/policy"
)

func nets(text string) []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix(text)} }

func TestRulesPrintInOneLine(t *testing.T) {
	for want, r := range map[string]Rule{
		"Deny":  {},
		"Allow": {Action: policy.Allow},
		"Allow IPv4 TCP from 10.0.0.0/8 not 10.1.0.0/16 set a,b to port 80,90-99": {
			Action: policy.Allow, Family: IPv4, Protocol: policy.TCP, SrcNets: nets("10.0.0.0/8"), NotSrcNets: nets("10.1.0.0/16"),
			SrcSets: []SetID{"a", "b"}, DstPorts: []PortRange{{80, 80}, {90, 99}},
		},
		"Log not protocol TCP,UDP from not set a to ports of set b not ports of set c": {
			Action: policy.Log, NotProtocols: []policy.Protocol{policy.TCP, policy.UDP},
			NotSrcSets: []SetID{"a"}, DstPortSets: []SetID{"b"}, NotDstPortSets: []SetID{"c"},
		},
		"Pass IPv6 ICMPv6 type 8 not type 3 code 4": {
			Action: policy.Pass, Family: IPv6, Protocol: policy.ICMPv6, Message: policy.Message{Compare: policy.MessageType, Type: 8},
			NotMessages: []policy.Message{{Compare: policy.MessageTypeAndCode, Type: 3, Code: 4}},
		},
	} {
		if got := r.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestProgramsAndChainsPrint(t *testing.T) {
	id := ProgramID{policy.Key{Namespace: "shop", Name: "db"}, policy.Ingress}
	p := Program{ID: id, Rules: []Rule{{Action: policy.Allow, Origin: 3}, {}}}
	if got, want := p.String(), "knp/shop/db ingress\n  3: Allow\n  0: Deny\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	tier := Tier{Name: "default", Programs: []ProgramID{id}, End: policy.Deny}
	c := Chain{Tiers: []Tier{tier}, Default: policy.Allow, Pending: []Tier{tier}}
	want := "tier default: knp/shop/db; else Deny\ndefault Allow\npending tier default: knp/shop/db; else Deny\n"
	if got := c.String(); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	m := Member{Prefix: netip.MustParsePrefix("10.0.0.1/32"), Protocol: policy.TCP, Port: 80}
	if got := m.String(); got != "10.0.0.1 80/TCP" {
		t.Errorf("member %q", got)
	}
}
