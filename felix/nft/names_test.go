package nft

import (
	"strings"
	"testing"

	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

func TestChainsOfPoliciesAreNamedSoThatPeopleCanReadAndWriteThem(t *testing.T) {
	seen := map[string]policy.Key{}
	for _, k := range []policy.Key{
		{Kind: policy.KubernetesNetworkPolicy, Namespace: "shop", Name: "web"},
		{Kind: policy.NetworkPolicy, Namespace: "shop", Name: "web"},
		{Kind: policy.GlobalNetworkPolicy, Name: "shop"},
		{Kind: policy.GlobalNetworkPolicy, Name: "shop/web"},
		{Kind: policy.KubernetesNetworkPolicy, Namespace: "shop", Name: "a b"},
		{Kind: policy.KubernetesNetworkPolicy, Namespace: "shop", Name: strings.Repeat("x", 253)},
		{Kind: policy.KubernetesNetworkPolicy, Namespace: "shop", Name: strings.Repeat("x", 252) + "y"},
	} {
		for _, d := range policy.Directions {
			for o := range ownChains {
				name := programChain(ir.ProgramID{Policy: k, Direction: d}, o)
				if other, twice := seen[name]; twice {
					t.Errorf("%s is of %s and of %s", name, k, other)
				}
				seen[name] = k
				if len(name) > 160 || strings.ContainsAny(name, " \"{}") || !lasting.MatchString(name) {
					t.Errorf("bad name %q", name)
				}
			}
		}
	}
	if _, ok := seen["knp/shop/web/ingress"]; !ok {
		t.Error("the plain case is not plain")
	}
}

func TestRulesThatNothingMatchesLeaveNoTrace(t *testing.T) {
	s := styleOf(settings)
	port := []ir.PortRange{{First: 80, Last: 80}}
	for name, r := range map[string]ir.Rule{
		"ports of a protocol without ports": {Protocol: policy.ICMP, DstPorts: port},
		"a protocol that must not be":       {Protocol: policy.TCP, NotProtocols: []policy.Protocol{policy.TCP}},
		"messages of TCP":                   {Protocol: policy.TCP, Message: policy.Message{Compare: policy.MessageType}},
		"no message at all":                 {Protocol: policy.ICMP, NotMessages: []policy.Message{{}}},
		"a range that is none":              {Protocol: policy.TCP, DstPorts: []ir.PortRange{{First: 2, Last: 1}}},
		"ports, but none of the protocols":  {NotProtocols: withPorts, DstPorts: port},
	} {
		p := &ir.Program{Rules: []ir.Rule{r}}
		if rules := s.programRules(p.ID, p, accepts, constants{}); len(rules) != 0 {
			t.Errorf("%s: %d rules", name, len(rules))
		}
	}
}

func TestNothingIsWrittenBehindARuleThatMatchesEverything(t *testing.T) {
	all := []ir.PortRange{{First: 0, Last: 65535}}
	p := &ir.Program{Rules: []ir.Rule{
		{Action: policy.Log},
		{Action: policy.Allow, Protocol: policy.TCP, DstPorts: all, Origin: 1},
		{Action: policy.Allow, Origin: 2},
		{Action: policy.Deny, Origin: 3},
	}}
	if rules := styleOf(settings).programRules(p.ID, p, accepts, constants{}); len(rules) != 3 {
		t.Errorf("%d rules", len(rules))
	}
}
