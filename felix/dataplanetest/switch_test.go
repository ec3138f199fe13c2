package dataplanetest_test

import (
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/koratnet/korat/felix/apply"
	"github.com/koratnet/korat/felix/dataplanetest"
	"github.com/koratnet/korat/felix/iptables"
	"github.com/koratnet/korat/felix/kernel/ipset"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/felix/nft"
	"github.com/koratnet/korat/policy/ir"
)

var nftables = dataplanetest.Backend{
	Name: "nftables",
	New: func() ([]apply.Phase, error) {
		f, err := nft.New()
		return []apply.Phase{{f}}, err
	},
	Dump: func(node *kerneltest.Namespace) string { return dataplanetest.Table(node, "inet", "korat") },
}

// tables is iptables of a flavour, whose programs have names that begin so.
func tables(flavour iptables.Flavour, programs ...string) dataplanetest.Backend {
	return dataplanetest.Backend{
		Name: "iptables " + string(flavour),
		New: func() ([]apply.Phase, error) {
			sets, err := ipset.New()
			if err != nil {
				return nil, err
			}
			of := func(f ir.Family) apply.Reconciler {
				return iptables.New(iptables.Config{Family: f, Flavour: flavour, Log: slog.New(slog.DiscardHandler)})
			}
			return []apply.Phase{{ipset.Adder{Sets: sets}}, {of(ir.IPv4), of(ir.IPv6)}, {ipset.Remover{Sets: sets}}}, nil
		},
		Dump: func(node *kerneltest.Namespace) string {
			lines := node.Sets("kor")
			for _, p := range programs {
				lines = append(lines, dataplanetest.Rules(node.Run(p+"-save")))
			}
			return strings.Join(lines, "\n")
		},
	}
}

func TestASwitchOfBackendsOpensNothingAndCutsNothing(t *testing.T) {
	t.Setenv("XTABLES_LOCKFILE", filepath.Join(t.TempDir(), "xtables.lock"))
	byNFT := tables(iptables.NFT, "iptables-nft", "ip6tables-nft")
	legacy := tables(iptables.Legacy, "iptables-legacy", "ip6tables-legacy")
	for _, way := range [][2]dataplanetest.Backend{{byNFT, nftables}, {legacy, nftables}} {
		t.Run(way[0].Name+" and "+way[1].Name, func(t *testing.T) { dataplanetest.Switch(t, way[0], way[1]) })
	}
}
