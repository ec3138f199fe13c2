package iptables

import (
	"fmt"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// others are the rules of programs that share the tables with us, much as they
// write them. %s is an address of the family, with its length.
var others = map[string]string{
	"kube-proxy": `*filter
:KUBE-FORWARD - [0:0]
:KUBE-FIREWALL - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
-I INPUT 1 -j KUBE-FIREWALL
-I INPUT 1 -m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL
-I FORWARD 1 -m comment --comment "kubernetes \"forwarding\" rules" -j KUBE-FORWARD
-A KUBE-FIREWALL -m mark --mark 0x8000/0x8000 -j DROP
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
COMMIT
*mangle
:KUBE-KUBELET-CANARY - [0:0]
:KUBE-IPTABLES-HINT - [0:0]
COMMIT
*nat
:KUBE-SERVICES - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-SVC-TCOU7JCQXEZGVUNU - [0:0]
-I PREROUTING 1 -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-I POSTROUTING 1 -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0
-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully
-A KUBE-SERVICES -d %s -p udp -m comment --comment "kube-system/kube-dns:dns cluster IP" -m udp --dport 53 -j KUBE-SVC-TCOU7JCQXEZGVUNU
-A KUBE-SVC-TCOU7JCQXEZGVUNU -m statistic --mode random --probability 0.5 -j KUBE-MARK-MASQ
COMMIT
`,
	"portmap": `*nat
:CNI-HOSTPORT-DNAT - [0:0]
:CNI-HOSTPORT-SETMARK - [0:0]
:CNI-HOSTPORT-MASQ - [0:0]
:CNI-DN-7a5a0c0c4b3f7e1d2a3b4 - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A OUTPUT -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A POSTROUTING -m comment --comment "CNI portfwd requiring masquerade" -j CNI-HOSTPORT-MASQ
-A CNI-HOSTPORT-SETMARK -m comment --comment "CNI portfwd masquerade mark" -j MARK --set-xmark 0x2000/0x2000
-A CNI-HOSTPORT-MASQ -m mark --mark 0x2000/0x2000 -j MASQUERADE
-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \"korat\" id: \"c0ffee\"" -m multiport --dports 8080 -j CNI-DN-7a5a0c0c4b3f7e1d2a3b4
-A CNI-DN-7a5a0c0c4b3f7e1d2a3b4 -s %s -p tcp -m tcp --dport 8080 -j CNI-HOSTPORT-SETMARK
COMMIT
`,
	"docker": `*filter
:DOCKER - [0:0]
:DOCKER-USER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
-I FORWARD 1 -j DOCKER-ISOLATION-STAGE-1
-I FORWARD 1 -j DOCKER-USER
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A DOCKER-USER -j RETURN
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j RETURN
COMMIT
*nat
:DOCKER - [0:0]
-A POSTROUTING -s %s ! -o docker0 -j MASQUERADE
COMMIT
`,
	"names like ours": `*filter
:korat - [0:0]
:KORATS - [0:0]
-A korat -m comment --comment "korat" -j RETURN
-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT
-A FORWARD -m comment --comment "not korat:0123" -j korat
COMMIT
*raw
-A PREROUTING -i eth0 -j CT --notrack -p udp --dport 5353
COMMIT
`,
}

const firewalld = `table inet firewalld {
	chain filter_FORWARD {
		type filter hook forward priority filter + 10; policy accept;
		ct state established,related accept
		iifname "lo" accept
	}
	chain mangle_PREROUTING {
		type filter hook prerouting priority mangle + 10; policy accept;
		iifname "eth0" meta mark set 0x00000100
	}
}
`

// foreign prints what is not ours, without counters.
func (w *world) foreign() string {
	w.t.Helper()
	keep := []string{w.host.Run("nft", "list", "table", "inet", "firewalld")}
	for _, l := range strings.Split(w.saved("raw", "mangle", "filter", "nat"), "\n") {
		name := chainOf(l)
		if decl, ok := strings.CutPrefix(l, ":"); ok {
			name, _, _ = strings.Cut(decl, " ")
		}
		if ruleHash(l) == "" && !ownName.MatchString(name) {
			keep = append(keep, l)
		}
	}
	return strings.Join(keep, "\n")
}

// sealed is in every rule of ours that iptables prints.
const sealed = "/0x0 "

// everything is a Delta that makes rules in all tables.
func (w *world) everything() desired.Delta {
	d := w.guarded("eth0", func(h *desired.HostEndpoint, d desired.Delta) {
		h.PreDNAT.Ingress = judged(d, "pre", policy.Ingress, policy.Pass, policy.Allow, port(policy.Deny, policy.TCP, 90))
		h.Untracked.Ingress = judged(d, "raw", policy.Ingress, policy.Pass, policy.Allow, port(policy.Allow, policy.UDP, 5000))
		h.Untracked.Egress = judged(d, "raw", policy.Egress, policy.Pass, policy.Allow, port(policy.Allow, policy.UDP, 5000))
		h.Forward.Egress = judged(d, "fwd", policy.Egress, policy.Deny, policy.Allow, port(policy.Allow, policy.UDP, 5000))
	})
	d.Sets = sets{
		desired.MasqueradeSet: netSet("10.1.0.0/16", "fd01::/64"), desired.InsideSet: netSet("10.0.0.0/8", "fd00::/16"),
		desired.ServicesSet: netSet("10.96.0.0/16", "fd96::/64"),
	}
	return d
}

func (w *world) addOthers() {
	w.t.Helper()
	for name, f := range families {
		for _, script := range others {
			cidr := map[string]string{"ipv4": "10.96.0.10/32", "ipv6": "fd96::10/128"}[name]
			if strings.Contains(script, "%s") {
				script = fmt.Sprintf(script, cidr)
			}
			path, _ := tool{f, w.flavour}.path("-restore")
			w.host.Run("sh", "-c", path+" --noflush <<'END'\n"+script+"END")
		}
	}
	w.host.Run("sh", "-c", "nft -f - <<'END'\n"+firewalld+"END")
}

func TestOtherProgramsRulesAreNotTouched(t *testing.T) {
	eachFlavour(t, func(t *testing.T, w *world) {
		w.addOthers()
		before := w.foreign()
		if !strings.Contains(before, ":korat -") || !strings.Contains(before, "CNI-HOSTPORT-DNAT") || !strings.Contains(before, "filter_FORWARD") {
			t.Fatalf("other programs' chains are missing in:\n%s", before)
		}
		same := func(when string) {
			t.Helper()
			if diff := gocmp.Diff(before, w.foreign()); diff != "" {
				t.Fatalf("%s: other programs' rules changed:\n%s", when, diff)
			}
		}
		w.resync()
		same("after a read-back")
		d := w.everything()
		w.loadSets(sets(d.Sets))
		w.apply(d)
		same("with rules in all tables")
		w.check()
		w.restarted()
		w.apply(d)
		same("after a restart")
		w.apply(desired.Delta{Endpoints: map[string]*desired.Endpoint{w.sites["a"].iface: nil}, HostEndpoints: map[string]*desired.HostEndpoint{"eth0": nil}})
		same("after a removal")
		w.uninstall()
		same("after all of ours is gone")
		if left := rulesWith(w.saved("raw", "mangle", "filter", "nat"), "KORAT-"); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	})
}

func (w *world) uninstall() {
	w.t.Helper()
	for _, f := range w.walls {
		w.host.Do(func() {
			if err := f.Uninstall(w.t.Context()); err != nil {
				w.t.Fatal(err)
			}
		})
	}
}

// TestUninstallNeedsNoMemoryAndMayBeRepeated: it removes what an earlier life or
// another flavour left, and the tables can be used again afterwards.
func TestUninstallNeedsNoMemoryAndMayBeRepeated(t *testing.T) {
	eachFlavour(t, func(t *testing.T, w *world) {
		d := w.everything()
		w.loadSets(sets(d.Sets))
		w.apply(d)
		full := w.saved("raw", "mangle", "filter", "nat")
		w.flavour = w.flavour.other()
		w.restarted()
		w.apply(w.open()) // both flavours are there now: the other one goes
		w.flavour = w.flavour.other()
		if left := rulesWith(w.saved("raw", "mangle", "filter", "nat"), sealed); len(left) > 0 {
			t.Errorf("of the other flavour were left: %v", left)
		}
		w.restarted()
		w.uninstall()
		w.uninstall()
		for range 2 {
			if left := rulesWith(w.saved("raw", "mangle", "filter", "nat"), sealed); len(left) > 0 {
				t.Errorf("left behind in %s: %v", w.flavour, left)
			}
			w.flavour = w.flavour.other()
		}
		w.restarted()
		w.apply(d)
		if diff := gocmp.Diff(full, w.saved("raw", "mangle", "filter", "nat")); diff != "" {
			t.Errorf("not as before:\n%s", diff)
		}
	})
}

// TestTheFlavourChangesWhileItRuns: the new one is in force before the old one goes.
func TestTheFlavourChangesWhileItRuns(t *testing.T) {
	eachFlavour(t, func(t *testing.T, w *world) {
		w.apply(w.policed(allowTCP))
		other := map[Flavour]desired.Flavour{NFT: desired.LegacyFlavour, Legacy: desired.NFTFlavour}[w.flavour]
		w.apply(set(func(s *desired.Settings) { s.Flavour = other }))
		if left := rulesWith(w.saved("raw", "filter"), sealed); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
		for _, f := range []ir.Family{ir.IPv4, ir.IPv6} { // its policy of the test's own would stop everything
			for _, c := range []string{"INPUT", "FORWARD"} {
				w.iptables(f, "", "-P", c, "ACCEPT")
			}
		}
		for _, is6 := range bothFamilies {
			w.expect(true, w.new("a", "b", is6, policy.TCP))
			w.expect(false, w.new("a", "b", is6, policy.UDP))
		}
		w.apply(set(func(*desired.Settings) {}))
		for _, is6 := range bothFamilies {
			w.expect(true, w.new("a", "b", is6, policy.TCP))
			w.expect(false, w.new("a", "b", is6, policy.UDP))
		}
	})
}

// TestEditsByOthersAreFoundByChecks does without the read-back of every ten minutes.
func TestEditsByOthersAreFoundByChecks(t *testing.T) {
	eachFlavour(t, func(t *testing.T, w *world) {
		d := w.everything()
		w.loadSets(sets(d.Sets))
		w.apply(d)
		want := w.saved("raw", "mangle", "filter", "nat")
		for name, edit := range map[string][]string{
			"a rule above ours in raw":    {"-t", "raw", "-I", "PREROUTING", "1", "-i", "none0", "-j", "ACCEPT"},
			"a rule above ours in mangle": {"-t", "mangle", "-I", "POSTROUTING", "1", "-o", "none0", "-j", "ACCEPT"},
			"our jump in nat removed":     {"-t", "nat", "-F", "POSTROUTING"},
			"a chain of ours emptied":     {"-F", fromPodChain},
			"a rule in a chain of ours":   {"-I", forwardChain, "1", "-j", "ACCEPT"},
		} {
			for _, f := range []ir.Family{ir.IPv4, ir.IPv6} {
				w.iptables(f, "", edit...)
			}
			w.check()
			if strings.Contains(name, "above") {
				chain, table := edit[3], edit[1]
				for _, f := range []ir.Family{ir.IPv4, ir.IPv6} {
					rules := rulesOf(w.iptables(f, "-save", "-t", table), chain)
					if len(rules) < 2 || ruleHash(rules[0]) == "" {
						t.Errorf("%s: our jump is not first: %v", name, rules)
					}
					w.iptables(f, "", append([]string{"-t", table, "-D", chain}, edit[5:]...)...)
				}
				w.check()
			}
			if diff := gocmp.Diff(want, w.saved("raw", "mangle", "filter", "nat")); diff != "" {
				t.Errorf("%s: not as before:\n%s", name, diff)
			}
		}
	})
}

// TestAQuietKernelIsNotReadAgain: what nobody has changed costs one question.
func TestAQuietKernelIsNotReadAgain(t *testing.T) {
	oneCPU(t)
	w := newWorld(t, NFT)
	w.apply(w.open())
	w.check() // the families have written one after the other
	for _, f := range w.walls {
		f.filter.have.chains[allowChain] = []string{"wrong"} // which a reading would mend
		w.host.Do(func() {
			if changed, err := f.Check(t.Context()); changed || err != nil {
				t.Errorf("%s: changed %v, %v", f.Name(), changed, err)
			}
		})
		if got := f.filter.have.chains[allowChain]; len(got) != 1 || got[0] != "wrong" {
			t.Errorf("%s was read", f.Name())
		}
	}
}
