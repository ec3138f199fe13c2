package eval

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

func one(end policy.Action, programs ...string) []ir.Tier {
	t := ir.Tier{Name: "default", End: end}
	for _, p := range programs {
		t.Programs = append(t.Programs, program(p))
	}
	return []ir.Tier{t}
}

func TestItem50LogDecidesNothing(t *testing.T) {
	e := rulesFor(map[string][]ir.Rule{
		"log":      {{Action: policy.Log, Origin: 4}, {Action: policy.Log, Origin: 4}, {Action: policy.Log, Protocol: policy.UDP, Origin: 5}},
		"logallow": {{Action: policy.Log, Origin: 1}, {Action: policy.Allow, Origin: 2}},
	})
	p := Packet{Src: ip("10.0.0.1"), Dst: ip("10.0.0.2"), Protocol: policy.TCP}
	d := e.Chain(ir.Chain{Tiers: one(policy.Deny, "log"), Default: policy.Allow}, p)
	if d.Action != policy.Deny || d.Cause != ByTierEnd || !cmp.Equal(d.Trace[0].Programs[0].Logged, []int{4}) {
		t.Errorf("a policy that only logs: %+v; want it to isolate and to have logged rule 4 once", d)
	}
	d = e.Chain(ir.Chain{Tiers: one(policy.Deny, "log", "logallow"), Default: policy.Deny}, p)
	if d.Action != policy.Allow || d.Origin != 2 || !cmp.Equal(d.Trace[0].Programs[1].Logged, []int{1}) {
		t.Errorf("a rule behind a log: %+v", d)
	}
}

func TestItem55StagedPoliciesAreSeenAndDecideNothing(t *testing.T) {
	e := rulesFor(map[string][]ir.Rule{"allow": {{Action: policy.Allow}}, "deny": {{}}})
	p := Packet{Src: ip("10.0.0.1"), Dst: ip("10.0.0.2"), Protocol: policy.TCP}
	to := &Endpoint{Ingress: ir.Chain{Tiers: one(policy.Deny, "allow"), Pending: one(policy.Deny, "deny", "allow"), Default: policy.Allow}}
	v := e.Path(Path{To: to}, p)
	if v.Action != policy.Allow || v.Pending == nil || v.Pending.Action != policy.Deny || v.Pending.Ingress.Program != program("deny") {
		t.Errorf("%+v, want Allow, and Deny by the staged policy pending", v)
	}
	to.Ingress.Pending = nil
	if v := e.Path(Path{To: to}, p); v.Pending != nil {
		t.Errorf("without staged policies %+v is pending", v.Pending)
	}
}

func TestExplainedTracesSayWhyRulesDidNotMatch(t *testing.T) {
	e := rulesFor(map[string][]ir.Rule{"a": {
		{Action: policy.Allow, Protocol: policy.UDP},
		{Action: policy.Allow, SrcNets: nets("10.1.0.0/16"), Origin: 1},
		{Action: policy.Allow, SrcSets: []ir.SetID{"web"}, Origin: 2},
		{Action: policy.Allow, DstPorts: []ir.PortRange{{First: 81, Last: 90}, {First: 443, Last: 443}}, Origin: 3},
		{Action: policy.Deny, Origin: 4},
		{Action: policy.Allow, Origin: 5},
	}})
	e.Explain = true
	e.SetText = func(id ir.SetID) string { return "pods of " + string(id) }
	p := Packet{Src: ip("10.0.0.1"), Dst: ip("10.0.0.2"), Protocol: policy.TCP, DstPort: 80}
	d := e.Chain(ir.Chain{Tiers: one(policy.Deny, "a")}, p)
	var got []string
	for _, r := range d.Trace[0].Programs[0].Rules {
		if r.Mismatch == nil {
			got = append(got, r.Action.String())
		} else {
			got = append(got, r.Mismatch.String())
		}
	}
	want := []string{
		"protocol is TCP, want UDP",
		"source address is 10.0.0.1, want in 10.1.0.0/16",
		"source address is 10.0.0.1, want of pods of web",
		"destination port is 80, want 81-90, 443",
		"Deny",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestVerdictsAreJSON(t *testing.T) {
	e := rulesFor(map[string][]ir.Rule{"deny": {{}}})
	v := e.Path(Path{To: &Endpoint{Ingress: ir.Chain{Tiers: one(policy.Deny, "deny")}}}, Packet{Src: ip("10.0.0.1"), Dst: ip("10.0.0.2")})
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"verdict":"Deny"`, `"program":{"policy":"knp/deny","direction":"ingress"}`, `"cause":"rule"`,
		`"trace":[{"name":"default","programs":[{"id":`, `"egressExempt":"not a pod"`,
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%s has no %s", text, want)
		}
	}
	if got, want := v.DecidedBy(), "Deny by knp/deny, ingress rule 0"; got != want {
		t.Errorf("decided by %q, want %q", got, want)
	}
}
