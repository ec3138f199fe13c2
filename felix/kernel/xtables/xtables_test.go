package xtables_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/felix/kernel/xtables"
	"github.com/koratnet/korat/policy/ir"
)

const script = `*filter
:mine - [0:0]
:empty - [0:0]
:theirs - [0:0]
-A INPUT -m conntrack --ctstate INVALID -m comment --comment "first of INPUT" -p tcp -m tcp --dport 80 -j DROP
-A INPUT -i kor+ -g mine
-A mine -m comment --comment "a:1 \"quoted\"" -j RETURN
-A mine -j DROP
-A theirs -m comment --comment "theirs" -j DROP
-A mine -m mark --mark 0x1/0x1 -m comment --comment "last" -m mark ! --mark 0xfedcba98/0x0 -j LOG --log-prefix "x"
-A mine -m mark ! --mark 0x5/0x5 -j MARK --set-xmark 0x0/0x0
COMMIT
`

var want = map[string]xtables.Chain{
	"INPUT": {Name: "INPUT", Builtin: true, Rules: []xtables.Rule{{Comment: "first of INPUT"}, {}}},
	"mine":  {Name: "mine", Rules: []xtables.Rule{{Comment: `a:1 "quoted"`}, {}, {Comment: "last", Seal: 0xfedcba98}, {}}},
	"empty": {Name: "empty"},
}

// index leaves out built-in chains without rules: the flavours differ in which of
// them are there.
func index(chains []xtables.Chain) map[string]xtables.Chain {
	by := map[string]xtables.Chain{}
	for _, c := range chains {
		if len(c.Rules) == 0 {
			c.Rules = nil
		}
		if c.Rules != nil || !c.Builtin {
			by[c.Name] = c
		}
	}
	return by
}

var programs = map[ir.Family]string{ir.IPv4: "iptables", ir.IPv6: "ip6tables"}

func restore(t testing.TB, ns *kerneltest.Namespace, f ir.Family, flavour, script string) {
	t.Helper()
	t.Setenv("XTABLES_LOCKFILE", filepath.Join(t.TempDir(), "xtables.lock"))
	file := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(file, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	ns.Run(programs[f]+"-"+flavour+"-restore", "--noflush", file)
}

func own(chain string) bool { return chain != "theirs" }

// read reads in ns.
func read(t testing.TB, ns *kerneltest.Namespace, f ir.Family, flavour, table string) []xtables.Chain {
	t.Helper()
	var chains []xtables.Chain
	var err error
	ns.Do(func() {
		if flavour == "legacy" {
			chains, err = xtables.Legacy(f, table, own)
			return
		}
		n, e := xtables.OpenNFT(f)
		if e != nil {
			t.Fatal(e)
		}
		defer n.Close()
		chains, err = n.Table(table, own)
	})
	if err != nil {
		t.Fatalf("read %s of IPv%d: %v", table, f, err)
	}
	return chains
}

func TestChainsCommentsAndSealsAreReadInBothFlavoursAndFamilies(t *testing.T) {
	for f := range programs {
		for _, flavour := range []string{"nft", "legacy"} {
			t.Run(fmt.Sprintf("%s/IPv%d", flavour, f), func(t *testing.T) {
				ns := kerneltest.New(t)
				if got := read(t, ns, f, flavour, "filter"); len(got) != 0 {
					t.Errorf("before anything was written: %v", got)
				}
				restore(t, ns, f, flavour, script)
				if diff := cmp.Diff(want, index(read(t, ns, f, flavour, "filter"))); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				if got := read(t, ns, f, flavour, "raw"); len(got) != 0 {
					t.Errorf("another table: %v", got)
				}
			})
		}
	}
}

func TestReadingMakesNoTable(t *testing.T) {
	ns := kerneltest.New(t)
	for f := range programs {
		for _, flavour := range []string{"nft", "legacy"} {
			read(t, ns, f, flavour, "mangle")
		}
	}
	ns.Do(func() {
		if xtables.HasLegacy(ir.IPv4, "mangle") || xtables.HasLegacy(ir.IPv6, "mangle") {
			t.Error("there is a legacy table now")
		}
	})
	if out := ns.Run("nft", "list", "tables"); strings.TrimSpace(out) != "" {
		t.Errorf("there are tables now: %s", out)
	}
}

func TestRulesAndTheGenerationTellOfChanges(t *testing.T) {
	ns := kerneltest.New(t)
	restore(t, ns, ir.IPv6, "nft", script)
	ns.Do(func() {
		n, err := xtables.OpenNFT(ir.IPv6)
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		before, err := n.Generation()
		if err != nil {
			t.Fatal(err)
		}
		if again, _ := n.Generation(); again != before {
			t.Errorf("generation %d, then %d, without a change", before, again)
		}
		if rules, err := n.Rules("filter", "INPUT"); err != nil || len(rules) != 2 || rules[0].Comment != "first of INPUT" {
			t.Errorf("rules of INPUT: %v, %v", rules, err)
		}
		if rules, err := n.Rules("filter", "nosuch"); err != nil || len(rules) != 0 {
			t.Errorf("rules of a chain that is not there: %v, %v", rules, err)
		}
		ns.Run("ip6tables-nft", "-I", "INPUT", "1", "-j", "ACCEPT")
		if after, _ := n.Generation(); after == before {
			t.Error("the generation is the same after a change")
		}
		if rules, err := n.Rules("filter", "INPUT"); err != nil || len(rules) != 3 || rules[0].Comment != "" {
			t.Errorf("rules of INPUT after an insertion: %v, %v", rules, err)
		}
	})
}

// BenchmarkRead reads 10,000 chains of three rules.
func BenchmarkRead(b *testing.B) {
	var s strings.Builder
	s.WriteString("*filter\n")
	for i := range 10000 {
		fmt.Fprintf(&s, ":c%d - [0:0]\n", i)
	}
	for i := range 10000 {
		for range 3 {
			fmt.Fprintf(&s, "-A c%d -m comment --comment \"korat:0123456789ab\" -s 10.0.0.0/8 -p tcp -m tcp --dport 80 -j RETURN\n", i)
		}
	}
	s.WriteString("COMMIT\n")
	for _, flavour := range []string{"nft", "legacy"} {
		b.Run(flavour, func(b *testing.B) {
			ns := kerneltest.New(b)
			restore(b, ns, ir.IPv4, flavour, s.String())
			for b.Loop() {
				if n := len(read(b, ns, ir.IPv4, flavour, "filter")); n < 10000 {
					b.Fatalf("%d chains", n)
				}
			}
		})
	}
}
