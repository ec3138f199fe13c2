package backend_test

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/koratnet/korat/felix/backend"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
)

func TestItem89WhichPlaneSettingsAskFor(t *testing.T) {
	for name, c := range map[string]struct {
		before    string // run on the node
		asked     desired.Backend
		want, why string
	}{
		"kube-proxy in its mode nftables, IPv4": {"nft add table ip kube-proxy", desired.Auto, "NFTables", "kube-proxy has its table"},
		"kube-proxy in its mode nftables, IPv6": {"nft add table ip6 kube-proxy", desired.Auto, "NFTables", "kube-proxy has its table"},
		"a table of another":                    {"nft add table inet kube-proxy", desired.Auto, "IPTables", "no table in nf_tables"},
		"kube-proxy in its mode iptables":       {"iptables -t nat -N KUBE-SERVICES", desired.Auto, "IPTables", "no table in nf_tables"},
		"nothing":                               {"true", desired.Auto, "IPTables", "no table in nf_tables"},
		"iptables, whatever kube-proxy uses":    {"nft add table ip kube-proxy", desired.IPTables, "IPTables", "asks for it"},
		"nf_tables, whatever kube-proxy uses":   {"iptables -t nat -N KUBE-SERVICES", desired.NFTables, "NFTables", "asks for it"},
	} {
		t.Run(name, func(t *testing.T) {
			n := kerneltest.New(t)
			n.Run("sh", "-c", c.before)
			n.Do(func() {
				p, why := backend.New(slog.New(slog.DiscardHandler)).Choose(t.Context(), desired.Settings{Backend: c.asked})
				if p.Name != c.want || !strings.Contains(why, c.why) {
					t.Errorf("chosen is %s because %q, want %s because %q", p.Name, why, c.want, c.why)
				}
			})
		})
	}
}

func TestItem84EveryPlaneReplacesEveryOther(t *testing.T) {
	n := newNode(t)
	n.start()
	for range 2 {
		n.ask(desired.IPTables, desired.NFTFlavour)
		n.inForce(desired.IPTables, "ipset", "xt-nft")
		n.ask(desired.NFTables, desired.NFTFlavour)
		n.inForce(desired.NFTables, "nft")
		n.ask(desired.IPTables, desired.LegacyFlavour)
		n.inForce(desired.IPTables, "ipset", "xt-old")
		n.ask(desired.NFTables, desired.LegacyFlavour)
		n.inForce(desired.NFTables, "nft")
	}
}

func TestARestartFindsWhatIsLeft(t *testing.T) {
	for name, leave := range map[string]func(*node){
		"nothing": func(*node) {},
		"nft": func(n *node) {
			n.ask(desired.NFTables, desired.AutoFlavour)
			n.inForce(desired.NFTables, "nft")
		},
		"iptables": func(n *node) {
			n.ask(desired.IPTables, desired.NFTFlavour)
			n.inForce(desired.IPTables, "ipset", "xt-nft")
		},
		"sets alone":   func(n *node) { n.ns.Run("ipset", "create", "kor4-x", "hash:ip") },
		"half a table": func(n *node) { n.ns.Run("iptables-legacy", "-N", "KORAT-FORWARD") },
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.start()
			leave(n)
			n.kill()
			n.start()
			n.ask(desired.IPTables, desired.NFTFlavour)
			n.inForce(desired.IPTables, "ipset", "xt-nft")
			n.kill()
			n.start()
			n.ask(desired.NFTables, desired.AutoFlavour)
			n.inForce(desired.NFTables, "nft")
		})
	}
}

// TestRulesOfIPv6GoThoughIPv6IsNotFiltered: a node that once could filter IPv6 and
// cannot when its agent starts again.
func TestRulesOfIPv6GoThoughIPv6IsNotFiltered(t *testing.T) {
	n := newNode(t)
	n.start()
	n.ask(desired.IPTables, desired.NFTFlavour)
	n.inForce(desired.IPTables, "ipset", "xt-nft")
	n.kill()

	dir := t.TempDir()
	works := filepath.Join(dir, "works")
	for _, program := range []string{"", "-save", "-restore", "-nft", "-nft-save", "-nft-restore"} {
		path, err := exec.LookPath("ip6tables" + program)
		if err != nil {
			t.Fatal(err)
		}
		script := fmt.Sprintf("#!/bin/sh\n[ -e %s ] || exit 3\nexec %s \"$@\"\n", works, path)
		if err := os.WriteFile(filepath.Join(dir, "ip6tables"+program), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	n.start()
	n.ask(desired.IPTables, desired.NFTFlavour) // and closes the pods, which have IPv6
	n.says(func(state string) bool { return strings.Contains(state, "cannot filter IPv6") })
	if err := os.WriteFile(works, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	n.ask(desired.NFTables, desired.NFTFlavour)
	n.inForce(desired.NFTables, "nft")
}
