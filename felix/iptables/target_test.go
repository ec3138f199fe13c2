package iptables

import (
	"strings"
	"testing"

	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

func TestAPrefixInTheLogNamesPolicyAndRule(t *testing.T) {
	long := strings.Repeat("long", 10)
	seen := map[string]bool{}
	for _, c := range []struct {
		id     ir.ProgramID
		origin int
		want   string // begins with it
	}{
		{knp("web", policy.Ingress), 0, "knp/shop/web:in0 "},
		{knp("web", policy.Egress), 12, "knp/shop/web:out12 "},
		{knp("sixteen-letters-", policy.Ingress), 0, "knp/shop/sixteen-le~"},
		{knp(long+"1", policy.Ingress), 3, "knp/shop/longlon"},
		{knp(long+"2", policy.Ingress), 3, "knp/shop/longlon"},
		{knp(long+"2", policy.Egress), 65535, "knp/shop/longl"},
		{knp("a\" -j ACCEPT", policy.Ingress), 0, "knp/shop/a? -j ACCEPT:in0 "},
	} {
		got := logPrefix(c.id, c.origin)
		if !strings.HasPrefix(got, c.want) || len(got) > maxLogPrefix || !strings.HasSuffix(got, " ") {
			t.Errorf("got %q, want %q…, at most %d characters, with a space at the end", got, c.want, maxLogPrefix)
		}
		if seen[got] {
			t.Errorf("%q names two rules", got)
		}
		seen[got] = true
	}
}

// TestANoteIsMadeOnceAndDecidesNothing counts what came to the rule that logs.
func TestANoteIsMadeOnceAndDecidesNothing(t *testing.T) {
	eachFlavour(t, func(t *testing.T, w *world) {
		note := ir.Rule{Action: policy.Log, Protocol: policy.TCP, SrcNets: nets("10.0.0.0/8", "10.1.0.0/16", "10.1.0.2/32")}
		w.apply(w.policed(note, allowTCP))
		for range 3 {
			w.expect(true, w.new("a", "b", false, policy.TCP))
			w.expect(false, w.new("a", "b", false, policy.UDP))
		}
		w.expect(true, w.new("outside", "b", false, policy.TCP))
		out := w.iptables(ir.IPv4, "-save", "-c", "-t", "filter")
		var notes []string
		for l := range strings.Lines(out) {
			if strings.Contains(l, "-j LOG") {
				notes = append(notes, l)
			}
		}
		if len(notes) != 1 || !strings.HasPrefix(notes[0], "[3:") || !strings.Contains(notes[0], `--log-prefix "knp/shop/guard:in0 "`) {
			t.Errorf("want one rule that saw three packets, got %q", notes)
		}
	})
}

func TestStagedProgramsAreNotWritten(t *testing.T) {
	eachFlavour(t, func(t *testing.T, w *world) {
		d := w.policed(ir.Rule{Action: policy.Deny})
		e := d.Endpoints[w.sites["b"].iface]
		e.Ingress = ir.Chain{Default: policy.Allow, Pending: e.Ingress.Tiers}
		w.apply(d)
		for _, is6 := range bothFamilies {
			w.expect(true, w.new("a", "b", is6, policy.TCP))
		}
		if out := w.saved("filter"); strings.Contains(out, ingressPrefix) {
			t.Errorf("a staged policy is in the kernel:\n%s", out)
		}
	})
}

// TestTiersThatPassLeadOn has a decision in the last of several tiers, which
// packets come to in all the ways there are.
func TestTiersThatPassLeadOn(t *testing.T) {
	pass := ir.Rule{Action: policy.Pass, Protocol: policy.UDP}
	tier := func(end policy.Action, programs ...string) ir.Tier {
		t := ir.Tier{Name: "t", End: end}
		for _, p := range programs {
			t.Programs = append(t.Programs, knp(p, policy.Ingress))
		}
		return t
	}
	programs := map[string][]ir.Rule{
		"nothing": nil, "pass-udp": {pass}, "deny-all": {{Action: policy.Deny}}, "note": {{Action: policy.Log}},
		"allow-udp": {{Action: policy.Allow, Protocol: policy.UDP}}, "pass-all": {{Action: policy.Pass}},
	}
	const allow, deny = policy.Allow, policy.Deny
	cases := []struct {
		name     string
		tiers    []ir.Tier
		other    policy.Action // the chain's default
		udp, tcp bool
	}{
		{"nobody decides", []ir.Tier{tier(policy.Pass, "nothing"), tier(policy.Pass, "note", "nothing")}, allow, true, true},
		{"nobody decides and the rest is closed", []ir.Tier{tier(policy.Pass, "nothing"), tier(policy.Pass, "note")}, deny, false, false},
		{"passed by a rule over a later program", []ir.Tier{tier(policy.Deny, "pass-udp", "deny-all"), tier(policy.Deny, "allow-udp")}, deny, true, false},
		{"passed by the end of the first tier", []ir.Tier{tier(policy.Pass, "nothing"), tier(policy.Deny, "allow-udp")}, allow, true, false},
		{"passed by rules of all tiers", []ir.Tier{tier(policy.Deny, "pass-all"), tier(policy.Deny, "pass-udp"), tier(policy.Pass, "nothing")}, allow, true, false},
		{"passed before a tier that is closed", []ir.Tier{tier(policy.Pass, "pass-all", "allow-udp"), tier(policy.Deny, "nothing")}, allow, false, false},
		{"a tier that passes some and one that ends open", []ir.Tier{tier(policy.Deny, "pass-udp"), tier(policy.Pass, "note")}, allow, true, false},
	}
	eachFlavour(t, func(t *testing.T, w *world) {
		for _, c := range cases {
			d := w.policed()
			d.Endpoints[w.sites["b"].iface].Ingress = ir.Chain{Tiers: c.tiers, Default: c.other}
			for name, rules := range programs {
				id := knp(name, policy.Ingress)
				d.Programs[id] = &ir.Program{ID: id, Rules: rules}
			}
			w.apply(d)
			for _, is6 := range bothFamilies {
				w.expect(c.udp, w.new("a", "b", is6, policy.UDP))
				w.expect(c.tcp, w.new("a", "b", is6, policy.TCP))
			}
			if t.Failed() {
				t.Fatalf("so it is when %s", c.name)
			}
		}
	})
}
