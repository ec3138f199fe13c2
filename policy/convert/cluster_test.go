package convert

import (
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	anp "sigs.k8s.io/network-policy-api/apis/v1alpha1"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"
	"sigs.k8s.io/yaml"

	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/selector"
)

func clusterNetworkPolicy(t *testing.T, spec string) *cnp.ClusterNetworkPolicy {
	t.Helper()
	o := &cnp.ClusterNetworkPolicy{}
	o.Name = "cnp"
	if err := yaml.UnmarshalStrict([]byte(spec), &o.Spec); err != nil {
		t.Fatal(err)
	}
	return o
}

func TestItem54ClusterNetworkPolicyAsAWhole(t *testing.T) {
	got, problems := ClusterNetworkPolicy(clusterNetworkPolicy(t, `
tier: Admin
priority: 7
subject: {pods: {namespaceSelector: {matchLabels: {team: shop}}, podSelector: {matchLabels: {app: db}}}}
ingress:
- name: monitoring
  action: Accept
  from: [{namespaces: {matchLabels: {team: ops}}}]
  protocols: [{tcp: {destinationPort: {number: 9100}}}, {udp: {}}, {sctp: {destinationPort: {range: {start: 5, end: 9}}}}, {destinationNamedPort: metrics}]
- {action: Deny, from: [{namespaces: {}}]}
egress:
- action: Pass
  to: [{networks: [10.0.0.0/8, "fd00::/8"]}, {nodes: {matchLabels: {role: lb}}}]
`))
	if len(problems) > 0 {
		t.Errorf("problems: %v", problems)
	}
	ops := policy.Scope{Namespaces: selector.Equals("team", "ops")}
	want := &policy.Policy{
		Key: policy.Key{Kind: policy.ClusterNetworkPolicy, Name: "cnp"}, Tier: policy.AdminTier, Order: 7,
		Subject: policy.Scope{Namespaces: selector.Equals("team", "shop"), Pods: selector.Equals("app", "db")},
		Types:   policy.Ingress | policy.Egress,
		Ingress: []policy.Rule{
			{
				Action: policy.Allow, Name: "monitoring", Peers: []policy.Peer{pods(ops)},
				Ports: []policy.Port{
					{Protocol: policy.TCP, First: 9100, Last: 9100},
					{Protocol: policy.UDP},
					{Protocol: policy.SCTP, First: 5, Last: 9},
					{Name: "metrics"},
				},
			},
			{Action: policy.Deny, Peers: []policy.Peer{pods(policy.Scope{Namespaces: everyone})}},
		},
		Egress: []policy.Rule{{Action: policy.Pass, Peers: []policy.Peer{
			{Nets: append(net("10.0.0.0/8").Nets, net("fd00::/8").Nets...)},
			pods(policy.Scope{Pods: selector.Equals("role", "lb"), Things: policy.Nodes}),
		}}},
	}
	if diff := cmp.Diff(want, got, cmpPolicies); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestItem54TiersAndDirections(t *testing.T) {
	for spec, want := range map[string]struct {
		tier  string
		types policy.Direction
	}{
		`{tier: Admin, subject: {namespaces: {}}}`:                                                          {policy.AdminTier, 0},
		`{tier: Baseline, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}`:  {policy.BaselineTier, policy.Ingress},
		`{tier: Baseline, subject: {namespaces: {}}, egress: [{action: Deny, to: [{networks: ["::/0"]}]}]}`: {policy.BaselineTier, policy.Egress},
	} {
		p, problems := ClusterNetworkPolicy(clusterNetworkPolicy(t, spec))
		if p.Tier != want.tier || p.Types != want.types || len(problems) > 0 {
			t.Errorf("%s: tier %s, types %s, problems %v", spec, p.Tier, p.Types, problems)
		}
	}
}

// TestItem45And54WhatIsNotUnderstoodFailsClosed: what should accept matches
// nothing, what should deny or pass denies everything.
func TestItem45And54WhatIsNotUnderstoodFailsClosed(t *testing.T) {
	for _, c := range []struct {
		name, rule string // a rule of egress without its action
		field      string
		some       bool // Accept still matches what was understood
	}{
		{"a peer with a field from the future", `to: [{networks: [10.0.0.0/8]}, {}]`, "to[1]", false},
		{"a peer with two fields", `to: [{networks: [10.0.0.0/8], namespaces: {}}]`, "to[0]", false},
		{"no peers", `to: []`, "to", false},
		{"a network that is none", `to: [{networks: [10.0.0.0/8]}, {networks: [10.0.0.0/40]}]`, "to[1].networks[0]", true},
		{"a selector that is none", `to: [{networks: [10.0.0.0/8]}, {namespaces: {matchExpressions: [{key: a, operator: Gt, values: [b]}]}}]`, "to[1].namespaces.matchExpressions[0].operator", true},
		{"domain names", `to: [{networks: [10.0.0.0/8]}, {domainNames: [example.org]}]`, "to[1].domainNames", true},
		{"a protocol from the future", `to: [{networks: [10.0.0.0/8]}], protocols: [{}, {tcp: {}}]`, "protocols[0]", true},
		{"a port too large", `to: [{networks: [10.0.0.0/8]}], protocols: [{tcp: {destinationPort: {number: 70000}}}, {udp: {}}]`, "protocols[0].tcp.destinationPort.number", true},
		{"a range backwards", `to: [{networks: [10.0.0.0/8]}], protocols: [{tcp: {destinationPort: {range: {start: 9, end: 5}}}}, {udp: {}}]`, "protocols[0].tcp.destinationPort.range", true},
		{"a named port of a network", `to: [{networks: [10.0.0.0/8]}], protocols: [{destinationNamedPort: http}, {udp: {}}]`, "to[0]", true},
	} {
		for _, action := range []string{"Accept", "Deny", "Pass"} {
			t.Run(action+" with "+c.name, func(t *testing.T) {
				p, problems := ClusterNetworkPolicy(clusterNetworkPolicy(t,
					`{tier: Admin, subject: {namespaces: {}}, egress: [{action: `+action+`, `+c.rule+`}]}`))
				if len(problems) == 0 || problems[0].Field != "spec.egress[0]."+c.field || problems[0].Effect == "" {
					t.Errorf("problems %v, want one of %s", problems, c.field)
				}
				r := p.Egress[0]
				switch {
				case action != "Accept":
					if r.Action != policy.Deny || r.Peers != nil || r.Ports != nil {
						t.Errorf("%+v, want a rule that denies everything", r)
					}
				case r.Action != policy.Allow || r.Peers == nil || !c.some && len(r.Peers) > 0:
					t.Errorf("%+v, want a rule that allows no more than it says", r)
				case c.some && len(r.Peers) == 0:
					t.Errorf("%+v has lost what was understood", r)
				}
			})
		}
	}
}

func TestItem54ActionsSubjectsAndTiersFromTheFuture(t *testing.T) {
	const rules = `ingress: [{action: Accept, from: [{namespaces: {}}]}, {action: Deny, from: [{namespaces: {}}]}, {action: Sing, from: [{namespaces: {}}]}]`
	allows := func(p *policy.Policy) bool { return p.Ingress[0].Peers == nil || len(p.Ingress[0].Peers) > 0 }
	p, problems := ClusterNetworkPolicy(clusterNetworkPolicy(t, `{tier: Admin, subject: {namespaces: {}}, `+rules+`}`))
	if r := p.Ingress[2]; !allows(p) || r.Action != policy.Deny || r.Peers != nil || len(problems) != 1 {
		t.Errorf("an unknown action became %+v, problems %v", r, problems)
	}
	p, problems = ClusterNetworkPolicy(clusterNetworkPolicy(t, `{tier: Future, subject: {namespaces: {}}, `+rules+`}`))
	if allows(p) || len(p.Ingress[1].Peers) != 1 || len(problems) != 2 {
		t.Errorf("in an unknown tier: %+v, problems %v", p, problems)
	}
	p, problems = ClusterNetworkPolicy(clusterNetworkPolicy(t, `{tier: Admin, subject: {}, `+rules+`}`))
	if !p.Subject.Pods.IsNone() || len(problems) != 2 {
		t.Errorf("an unknown subject selects %s, problems %v", p.Subject, problems)
	}
	p, problems = ClusterNetworkPolicy(clusterNetworkPolicy(t, `{tier: Admin, subject: {namespaces: {matchExpressions: [{key: a, operator: Gt}]}}, `+rules+`}`))
	if allows(p) || len(p.Ingress[1].Peers) != 1 || len(problems) != 2 {
		t.Errorf("with half a subject: %+v, problems %v", p, problems)
	}
}

func TestItem54TheOlderAPIMeansTheSame(t *testing.T) {
	a := &anp.AdminNetworkPolicy{}
	a.Name = "anp"
	spec := `
priority: 3
subject: {namespaces: {matchLabels: {team: shop}}}
ingress:
- {name: x, action: Allow, from: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}}], ports: [{portNumber: {protocol: UDP, port: 53}}, {portRange: {start: 5, end: 9}}, {namedPort: http}]}
egress:
- {action: Deny, to: [{networks: [10.0.0.0/8]}]}
- {action: Allow, to: [{}]}
- {action: Pass, to: [{nodes: {}}]}
`
	if err := yaml.UnmarshalStrict([]byte(spec), &a.Spec); err != nil {
		t.Fatal(err)
	}
	got, problems := AdminNetworkPolicy(a)
	if len(problems) != 1 || problems[0].Field != "spec.egress[1].to[0]" {
		t.Errorf("problems %v", problems)
	}
	want := &policy.Policy{
		Key: policy.Key{Kind: policy.AdminNetworkPolicy, Name: "anp"}, Tier: policy.AdminTier, Order: 3,
		Subject: policy.Scope{Namespaces: selector.Equals("team", "shop")}, Types: policy.Ingress | policy.Egress,
		Ingress: []policy.Rule{{
			Action: policy.Allow, Name: "x",
			Peers: []policy.Peer{pods(policy.Scope{Namespaces: everyone, Pods: selector.Equals("app", "web")})},
			Ports: []policy.Port{{Protocol: policy.UDP, First: 53, Last: 53}, {Protocol: policy.TCP, First: 5, Last: 9}, {Name: "http"}},
		}},
		Egress: []policy.Rule{
			{Action: policy.Deny, Peers: []policy.Peer{net("10.0.0.0/8")}},
			{Action: policy.Allow, Peers: []policy.Peer{}},
			{Action: policy.Pass, Peers: []policy.Peer{pods(policy.Scope{Pods: everyone, Things: policy.Nodes})}},
		},
	}
	if diff := cmp.Diff(want, got, cmpPolicies); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	b := &anp.BaselineAdminNetworkPolicy{}
	b.Name = "default"
	if err := yaml.UnmarshalStrict([]byte(`{subject: {namespaces: {}}, egress: [{action: Deny, to: [{networks: [10.0.0.0/8]}]}]}`), &b.Spec); err != nil {
		t.Fatal(err)
	}
	base, problems := BaselineAdminNetworkPolicy(b)
	if base.Tier != policy.BaselineTier || base.Order != math.Inf(1) || base.Types != policy.Egress || len(problems) > 0 {
		t.Errorf("%+v, problems %v", base, problems)
	}
}

// FuzzClusterNetworkPolicy wants no panic, no rule that accepts more than it
// says, and no rule that denies less.
func FuzzClusterNetworkPolicy(f *testing.F) {
	for _, spec := range []string{
		`{tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Accept, from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 80}}}]}]}`,
		`{tier: Baseline, subject: {pods: {}}, egress: [{action: Pass, to: [{networks: [10.0.0.0/8]}, {domainNames: [a]}, {nodes: {}}]}, {action: Deny, to: [{}]}]}`,
	} {
		f.Add(spec)
	}
	addRecipes(f, "policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy")
	f.Fuzz(func(t *testing.T, spec string) {
		o := &cnp.ClusterNetworkPolicy{}
		if len(spec) > 10_000 || yaml.Unmarshal([]byte(spec), &o.Spec) != nil {
			return
		}
		p, problems := ClusterNetworkPolicy(o)
		for i, r := range p.Ingress {
			if r.Action == policy.Allow && r.Peers == nil {
				t.Fatalf("ingress rule %d of %q allows everyone", i, spec)
			}
		}
		for i, r := range p.Egress {
			if r.Action == policy.Allow && (r.Peers == nil || o.Spec.Egress[i].Action != "Accept" && len(r.Peers) > 0) {
				t.Fatalf("egress rule %d of %q became %+v", i, spec, r)
			}
			if o.Spec.Egress[i].Action == "Deny" && r.Action != policy.Deny {
				t.Fatalf("egress rule %d of %q does not deny any more: %+v", i, spec, r)
			}
		}
		for _, problem := range problems {
			if !strings.HasPrefix(problem.Field, "spec.") || problem.Expected == "" || problem.Effect == "" {
				t.Fatalf("problem %+v of %q", problem, spec)
			}
		}
	})
}

// FuzzAdminNetworkPolicy is FuzzClusterNetworkPolicy for the older API.
func FuzzAdminNetworkPolicy(f *testing.F) {
	for _, spec := range []string{
		`{priority: 1, subject: {namespaces: {}}, ingress: [{action: Allow, from: [{namespaces: {}}], ports: [{portNumber: {protocol: TCP, port: 80}}, {namedPort: a}]}]}`,
		`{priority: 9999, subject: {pods: {}}, egress: [{action: Pass, to: [{networks: [10.0.0.0/8]}, {nodes: {}}], ports: [{portRange: {start: 5, end: 1}}]}, {action: Deny, to: [{}]}]}`,
	} {
		f.Add(spec)
	}
	f.Fuzz(func(t *testing.T, spec string) {
		o := &anp.AdminNetworkPolicy{}
		if len(spec) > 10_000 || yaml.Unmarshal([]byte(spec), &o.Spec) != nil {
			return
		}
		p, problems := AdminNetworkPolicy(o)
		for i, r := range p.Ingress {
			if r.Action == policy.Allow && r.Peers == nil || o.Spec.Ingress[i].Action == "Deny" && r.Action != policy.Deny {
				t.Fatalf("ingress rule %d of %q became %+v", i, spec, r)
			}
		}
		for i, r := range p.Egress {
			if r.Action == policy.Allow && r.Peers == nil || o.Spec.Egress[i].Action == "Deny" && r.Action != policy.Deny {
				t.Fatalf("egress rule %d of %q became %+v", i, spec, r)
			}
		}
		for _, problem := range problems {
			if !strings.HasPrefix(problem.Field, "spec.") || problem.Expected == "" || problem.Effect == "" {
				t.Fatalf("problem %+v of %q", problem, spec)
			}
		}
	})
}
