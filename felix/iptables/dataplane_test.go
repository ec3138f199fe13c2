package iptables

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/koratnet/korat/felix/apply"
	"github.com/koratnet/korat/felix/dataplanetest"
	"github.com/koratnet/korat/felix/kernel/ipset"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/policy/ir"
)

// eachBackend runs a test of package dataplanetest on both flavours.
func eachBackend(t *testing.T, test func(t *testing.T, b dataplanetest.Backend)) {
	t.Helper()
	for _, flavour := range []Flavour{NFT, Legacy} {
		t.Run(string(flavour), func(t *testing.T) {
			if os.Getenv("XTABLES_LOCKFILE") == "" { // else of the process that began this one
				t.Setenv("XTABLES_LOCKFILE", filepath.Join(t.TempDir(), "xtables.lock"))
			}
			test(t, dataplanetest.Backend{
				Name: "iptables " + string(flavour),
				New:  func() ([]apply.Phase, error) { return phases(flavour) },
				Dump: func(node *kerneltest.Namespace) string { return dump(t, node, flavour) },
			})
		})
	}
}

// phases makes the reconcilers as the agent does.
func phases(flavour Flavour) ([]apply.Phase, error) {
	sets, err := ipset.New()
	if err != nil {
		return nil, err
	}
	of := func(f ir.Family) *Firewall {
		return New(Config{Family: f, Flavour: flavour, Log: slog.New(slog.DiscardHandler)})
	}
	return []apply.Phase{{ipset.Adder{Sets: sets}}, {of(ir.IPv4), of(ir.IPv6)}, {ipset.Remover{Sets: sets}}}, nil
}

// dump prints all rules of a node, and our sets.
func dump(t *testing.T, node *kerneltest.Namespace, flavour Flavour) string {
	t.Helper()
	var lines []string
	for _, f := range []ir.Family{ir.IPv4, ir.IPv6} {
		path, err := tool{f, flavour}.path("-save")
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, f.String(), dataplanetest.Rules(node.Run(path)))
	}
	return strings.Join(append(lines, node.Sets("kor")...), "\n")
}

func TestKernelAgreesWithTheLaw(t *testing.T) { eachBackend(t, dataplanetest.Differential) }

func TestKernelAgreesWithTheLawOfPrograms(t *testing.T) { eachBackend(t, dataplanetest.Programs) }

func TestNoAttackPasses(t *testing.T) { eachBackend(t, dataplanetest.Attacks) }

func TestKillAnywhere(t *testing.T) { eachBackend(t, dataplanetest.KillAnywhere) }

func TestDetails(t *testing.T) { eachBackend(t, dataplanetest.Items) }
