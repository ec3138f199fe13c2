package nft

import (
	"testing"

	"github.com/koratnet/korat/felix/kernel/nftables"
)

func TestABaseChainThatTheKernelRefusesDoesNotCutTheNodeOff(t *testing.T) {
	for hook, want := range map[nftables.HookNumber]int{
		nftables.Prerouting: 1, nftables.Input: 1, nftables.Forward: 2, nftables.Output: 0, nftables.Postrouting: 0,
	} {
		c := filterChain("x", hook, 0, nil)
		if c.Fallback == nil || len(c.Fallback) != want {
			t.Errorf("hook %v: %d rules, want %d", hook, len(c.Fallback), want)
		}
		for _, r := range c.Fallback {
			if len(r.Exprs) < 3 { // the interface, its prefix, the verdict
				t.Errorf("hook %v: a rule for everybody: %v", hook, r.Exprs)
			}
		}
	}
}
