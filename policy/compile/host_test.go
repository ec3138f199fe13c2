package compile

import (
	"testing"

	"github.com/koratnet/korat/policy"
)

func TestHostChainsTakeThePoliciesOfTheirPoint(t *testing.T) {
	var active []*policy.Policy
	for name, hook := range map[string]policy.Hook{
		"normal": policy.Normal, "forward": policy.NormalAndForward, "prednat": policy.PreDNAT, "untracked": policy.Untracked,
	} {
		active = append(active, &policy.Policy{
			Key: policy.Key{Kind: policy.GlobalNetworkPolicy, Name: name}, Tier: policy.DefaultTier, Types: policy.Ingress, Hook: hook,
		})
	}
	for _, c := range []struct {
		at       policy.Hook
		programs []string
		end, def policy.Action
	}{
		{policy.Normal, []string{"normal", "forward"}, policy.Deny, policy.Deny},
		{policy.NormalAndForward, []string{"forward"}, policy.Deny, policy.Allow},
		{policy.PreDNAT, []string{"prednat"}, policy.Pass, policy.Allow},
		{policy.Untracked, []string{"untracked"}, policy.Pass, policy.Allow},
	} {
		chain := HostChain(active, policy.Ingress, nil, c.at)
		if len(chain.Tiers) != 1 || len(chain.Tiers[0].Programs) != len(c.programs) || chain.Tiers[0].End != c.end || chain.Default != c.def {
			t.Errorf("at %d: %+v, want programs %v, end %s, default %s", c.at, chain, c.programs, c.end, c.def)
			continue
		}
		for _, name := range c.programs {
			found := false
			for _, id := range chain.Tiers[0].Programs {
				found = found || id.Policy.Name == name
			}
			if !found {
				t.Errorf("at %d: %+v lacks %s", c.at, chain, name)
			}
		}
		if none := HostChain(active, policy.Egress, nil, c.at); len(none.Tiers) > 0 || none.Default != c.def {
			t.Errorf("at %d without a policy: %+v, want %s", c.at, none, c.def)
		}
	}
}
