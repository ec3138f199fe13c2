package nftables_test

import (
	"strings"
	"testing"

	"github.com/google/nftables/expr"

	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/felix/kernel/nftables"
)

func TestWhatTheKernelLacksIsNamed(t *testing.T) {
	n := kerneltest.New(t)
	n.Do(func() {
		has := nftables.Feature{
			Name: "masquerading", Base: nftables.Hook{Type: nftables.NAT, Number: nftables.Postrouting, Priority: 100}, Rule: masquerade(),
		}
		if err := nftables.Probe(t.Context(), nftables.Inet, has); err != nil {
			t.Errorf("Probe: %v", err)
		}
		lacks := nftables.Feature{Name: "time travel", Rule: nftables.Rule{Exprs: []expr.Any{&expr.Meta{Key: 9999, Register: 1}}}}
		err := nftables.Probe(t.Context(), nftables.Inet, has, lacks)
		if err == nil || !strings.HasPrefix(err.Error(), "Linux ") || !strings.Contains(err.Error(), "has no time travel: ") || strings.Contains(err.Error(), "masq") {
			t.Errorf("Probe: %v", err)
		}
	})
	if list := n.Run("nft", "list", "ruleset"); list != "" {
		t.Errorf("left:\n%s", list)
	}
}
