package iptables

import (
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/koratnet/korat/felix/apply"
	"github.com/koratnet/korat/felix/dataplanetest"
	"github.com/koratnet/korat/felix/kernel/ipset"
	"github.com/koratnet/korat/policy/ir"
)

// eachBackend runs a test of package dataplanetest on both flavours.
func eachBackend(t *testing.T, test func(t *testing.T, b dataplanetest.Backend)) {
	t.Helper()
	for _, flavour := range []Flavour{NFT, Legacy} {
		t.Run(string(flavour), func(t *testing.T) {
			t.Setenv("XTABLES_LOCKFILE", filepath.Join(t.TempDir(), "xtables.lock"))
			test(t, dataplanetest.Backend{Name: "iptables " + string(flavour), New: func() ([]apply.Phase, error) {
				sets, err := ipset.New()
				if err != nil {
					return nil, err
				}
				return []apply.Phase{
					{ipset.Adder{Sets: sets}},
					{
						New(Config{Family: ir.IPv4, Flavour: flavour, Log: slog.New(slog.DiscardHandler)}),
						New(Config{Family: ir.IPv6, Flavour: flavour, Log: slog.New(slog.DiscardHandler)}),
					},
					{ipset.Remover{Sets: sets}},
				}, nil
			}})
		})
	}
}

func TestKernelAgreesWithTheLaw(t *testing.T) { eachBackend(t, dataplanetest.Differential) }

func TestNoAttackPasses(t *testing.T) { eachBackend(t, dataplanetest.Attacks) }
