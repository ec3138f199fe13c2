package iptables

import (
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
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

// dump prints all rules of a node by chain, and our sets.
func dump(t *testing.T, node *kerneltest.Namespace, flavour Flavour) string {
	t.Helper()
	var lines []string
	for _, f := range []ir.Family{ir.IPv4, ir.IPv6} {
		path, err := tool{f, flavour}.path("-save")
		if err != nil {
			t.Fatal(err)
		}
		chains, table := map[string]string{}, ""
		for line := range strings.Lines(node.Run(path)) {
			switch fields := strings.Fields(line); {
			case line[0] == '*':
				table = fmt.Sprint(f, " ", strings.TrimSpace(line), " ")
			case line[0] == ':' && fields[1] == "-": // one that is built in is there when a rule is
				chains[table+fields[0][1:]] += "\n"
			case line[0] == '-':
				chains[table+fields[1]] += line
			}
		}
		for _, name := range slices.Sorted(maps.Keys(chains)) {
			lines = append(lines, name+"\n"+chains[name])
		}
	}
	return strings.Join(append(lines, node.Sets("kor")...), "\n")
}

func TestKernelAgreesWithTheLaw(t *testing.T) { eachBackend(t, dataplanetest.Differential) }

func TestNoAttackPasses(t *testing.T) { eachBackend(t, dataplanetest.Attacks) }

func TestKillAnywhere(t *testing.T) { eachBackend(t, dataplanetest.KillAnywhere) }
