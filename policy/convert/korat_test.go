package convert

import (
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	v1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/selector"
)

func ownPolicy(t *testing.T, spec string) (*policy.Policy, []Problem) {
	t.Helper()
	o := &v1.NetworkPolicy{}
	o.Namespace, o.Name = "shop", "np"
	if err := yaml.UnmarshalStrict([]byte(spec), &o.Spec); err != nil {
		t.Fatal(err)
	}
	return KoratNetworkPolicy(o)
}

func globalPolicy(t *testing.T, spec string) (*policy.Policy, []Problem) {
	t.Helper()
	o := &v1.GlobalNetworkPolicy{}
	o.Name = "gnp"
	if err := yaml.UnmarshalStrict([]byte(spec), &o.Spec); err != nil {
		t.Fatal(err)
	}
	return GlobalNetworkPolicy(o)
}

func parsed(t *testing.T, text string) *selector.Selector {
	t.Helper()
	s, err := selector.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestOwnPolicyAsAWhole(t *testing.T) {
	got, problems := ownPolicy(t, `
tier: platform
order: 20.5
enforcement: Staged
selector: app == 'db'
serviceAccountSelector: team == 'shop'
ingress:
- action: Allow
  ipVersion: 4
  protocol: TCP
  source: {nets: [10.0.0.0/8], notNets: [10.1.0.0/16], selector: app == 'web', notSelector: has(old), ports: ["1024:65535"]}
  destination: {ports: [5432, http], notPorts: [5433]}
- {action: Log, protocol: ICMP, icmp: {type: 8}, notICMP: {type: 3, code: 4}}
egress:
- {action: Pass, notProtocol: 6, destination: {serviceAccounts: {names: [builder], selector: has(team)}, namespaceSelector: team == 'ops'}}
- {action: Allow, destination: {services: {name: api}}}
`)
	if len(problems) > 0 {
		t.Errorf("problems: %v", problems)
	}
	subject := policy.Scope{Namespace: "shop", Pods: selector.And(selector.Equals("app", "db"), policy.Account(nil, selector.Equals("team", "shop")))}
	web := policy.Scope{Namespace: "shop", Pods: selector.Equals("app", "web"), Things: policy.Pods | policy.NetworkSets}
	old := policy.Scope{Namespace: "shop", Pods: selector.Has("old"), Things: policy.Pods | policy.NetworkSets}
	builder := policy.Scope{Namespaces: selector.Equals("team", "ops"), Pods: policy.Account([]string{"builder"}, selector.Has("team")), Things: policy.Pods}
	everyone := policy.Scope{Things: policy.Pods | policy.HostEndpoints}
	tcp := func(first, last uint16) policy.Port {
		return policy.Port{Protocol: policy.TCP, First: first, Last: last}
	}
	want := &policy.Policy{
		Key:  policy.Key{Kind: policy.NetworkPolicy, Namespace: "shop", Name: "np"},
		Tier: "platform", Order: 20.5, Enforcement: policy.Staged, Subject: subject, Types: policy.Ingress | policy.Egress,
		Ingress: []policy.Rule{
			{
				Action: policy.Allow, IPVersion: 4,
				Peers:    []policy.Peer{{Scope: &web, NotScope: &old, Nets: net("10.0.0.0/8").Nets, Except: net("10.1.0.0/16").Nets}},
				Ports:    []policy.Port{tcp(5432, 5432), {Protocol: policy.TCP, Name: "http"}},
				NotPorts: []policy.Port{tcp(5433, 5433)},
				SrcPorts: []policy.Port{tcp(1024, 65535)},
			},
			{
				Action: policy.Log,
				Ports:  []policy.Port{{Protocol: policy.ICMP, Message: policy.Message{Compare: policy.MessageType, Type: 8}}},
				NotPorts: []policy.Port{
					{Protocol: policy.ICMP, Message: policy.Message{Compare: policy.MessageTypeAndCode, Type: 3, Code: 4}},
				},
			},
		},
		Egress: []policy.Rule{
			{Action: policy.Pass, Peers: []policy.Peer{{Scope: &builder}}, NotPorts: []policy.Port{{Protocol: policy.TCP}}},
			{Action: policy.Allow, Peers: []policy.Peer{{Service: policy.ServiceName{Namespace: "shop", Name: "api"}, Names: &everyone}}},
		},
	}
	if diff := cmp.Diff(want, got, cmpPolicies); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestItem51TypesOfOwnPolicies(t *testing.T) {
	const in, out = policy.Ingress, policy.Egress
	for spec, want := range map[string]policy.Direction{
		`{}`:                           in,
		`{ingress: [{action: Allow}]}`: in,
		`{egress: [{action: Allow}]}`:  out,
		`{egress: [{action: Allow}], ingress: [{action: Allow}]}`: in | out,
		`{types: [Egress]}`:          out,
		`{types: [Egress, Ingress]}`: in | out,
		`{types: [Sideways]}`:        in | out,
	} {
		if got, _ := ownPolicy(t, spec); got.Types != want {
			t.Errorf("%s: %s, want %s", spec, got.Types, want)
		}
	}
}

func TestItem51And53SubjectsOfGlobalPolicies(t *testing.T) {
	both := policy.Pods | policy.HostEndpoints
	for spec, want := range map[string]policy.Scope{
		`{}`:                                       {Pods: everyone, Things: both},
		`{selector: has(a)}`:                       {Pods: selector.Has("a"), Things: both},
		`{namespaceSelector: all()}`:               {Namespaces: everyone, Pods: everyone, Things: policy.Pods},
		`{namespaceSelector: has(b)}`:              {Namespaces: selector.Has("b"), Pods: everyone, Things: policy.Pods},
		`{namespaceSelector: global()}`:            {Pods: everyone, Things: policy.HostEndpoints},
		`{namespaceSelector: "all() || global()"}`: {Namespaces: everyone, Pods: everyone, Things: both},
		`{serviceAccountSelector: has(b)}`:         {Pods: policy.Account(nil, selector.Has("b")), Things: policy.Pods},
	} {
		got, problems := globalPolicy(t, spec)
		if got.Subject.String() != want.String() || got.Order != math.Inf(1) || got.Tier != policy.DefaultTier || len(problems) > 0 {
			t.Errorf("%s: subject %s, want %s; order %v, tier %s, problems %v", spec, got.Subject, want, got.Order, got.Tier, problems)
		}
	}
}

func TestItem52WhereSelectorsLook(t *testing.T) {
	a := selector.Has("a")
	const namespaced, global = policy.Pods | policy.NetworkSets, policy.GlobalNetworkSets | policy.HostEndpoints
	for _, c := range []struct {
		end               string
		own, everywhere   *policy.Scope
		notOwn, notGlobal *policy.Scope
	}{
		{end: `selector: has(a)`, own: &policy.Scope{Namespace: "shop", Pods: a, Things: namespaced}, everywhere: &policy.Scope{Pods: a, Things: namespaced | global}},
		{
			end:    `notSelector: has(a)`, // and nothing else: addresses that nobody knows match
			notOwn: &policy.Scope{Namespace: "shop", Pods: a, Things: namespaced}, notGlobal: &policy.Scope{Pods: a, Things: namespaced | global},
		},
		{end: `namespaceSelector: global()`, own: &policy.Scope{Pods: everyone, Things: global}, everywhere: &policy.Scope{Pods: everyone, Things: global}},
		{
			end: `{namespaceSelector: all(), selector: has(a)}`,
			own: &policy.Scope{Namespaces: everyone, Pods: a, Things: namespaced}, everywhere: &policy.Scope{Namespaces: everyone, Pods: a, Things: namespaced},
		},
	} {
		end := "{" + strings.Trim(c.end, "{}") + "}"
		spec := `{ingress: [{action: Allow, source: ` + end + `}]}`
		own, problems := ownPolicy(t, spec)
		everywhere, more := globalPolicy(t, spec)
		if len(problems)+len(more) > 0 {
			t.Errorf("%s: problems %v %v", end, problems, more)
		}
		for _, x := range []struct{ want, got *policy.Scope }{
			{c.own, own.Ingress[0].Peers[0].Scope},
			{c.everywhere, everywhere.Ingress[0].Peers[0].Scope},
			{c.notOwn, own.Ingress[0].Peers[0].NotScope},
			{c.notGlobal, everywhere.Ingress[0].Peers[0].NotScope},
		} {
			if (x.want == nil) != (x.got == nil) || x.want != nil && x.want.String() != x.got.String() {
				t.Errorf("%s: %v, want %v", end, x.got, x.want)
			}
		}
	}
}

// TestOwnRulesThatAreNotUnderstoodFailClosed: what should allow or log matches
// nothing, what should deny or pass denies everything.
func TestOwnRulesThatAreNotUnderstoodFailClosed(t *testing.T) {
	for field, rule := range map[string]string{
		"source.nets[1]":                  `source: {nets: [10.0.0.0/8, x]}`,
		"destination.notNets[0]":          `destination: {notNets: [10.0.0.0/40]}`,
		"source.selector":                 `source: {selector: "a =="}`,
		"source.notSelector":              `source: {notSelector: "a =="}`,
		"source.namespaceSelector":        `source: {namespaceSelector: "a =="}`,
		"source.serviceAccounts":          `source: {serviceAccounts: {}}`,
		"source.serviceAccounts.selector": `source: {serviceAccounts: {selector: "("}}`,
		"source.services":                 `source: {services: {name: a}, nets: [10.0.0.0/8]}`,
		"destination.services":            `destination: {services: {name: a}}`,
		"protocol":                        `protocol: GRE`,
		"notProtocol":                     `notProtocol: 256`,
		"ipVersion":                       `ipVersion: 5`,
		"destination.ports":               `destination: {ports: [80]}`,
		"destination.ports[0]":            `{protocol: TCP, destination: {ports: [0]}}`,
		"destination.ports[1]":            `{protocol: TCP, destination: {ports: [1, "9:5"]}}`,
		"destination.notPorts[0]":         `{protocol: TCP, destination: {notPorts: ["5:x"]}}`,
		"source.ports[0]":                 `{protocol: TCP, source: {ports: [""]}}`,
		"icmp.type":                       `{protocol: ICMP, icmp: {type: 300}}`,
		"icmp.code":                       `{protocol: ICMP, icmp: {type: 3, code: 300}}`,
	} {
		body := strings.TrimSuffix(strings.TrimPrefix(rule, "{"), "}")
		if !strings.HasPrefix(rule, "{") {
			body = rule
		}
		for _, action := range []v1.RuleAction{v1.ActionAllow, v1.ActionDeny, v1.ActionPass, v1.ActionLog, "Sing"} {
			p, problems := ownPolicy(t, `{ingress: [{action: `+string(action)+`, `+body+`}]}`)
			if len(problems) == 0 || problems[len(problems)-1].Field != "spec.ingress[0]."+field {
				t.Errorf("%s %s: problems %v, want one of %s", action, rule, problems, field)
			}
			r := p.Ingress[0]
			want := policy.Rule{Action: policy.Deny}
			if action == v1.ActionAllow || action == v1.ActionLog {
				want = policy.Rule{Action: policy.Allow, Peers: []policy.Peer{}}
			}
			if diff := cmp.Diff(want, r); diff != "" {
				t.Errorf("%s %s (-want +got):\n%s", action, rule, diff)
			}
		}
	}
}

func TestOwnPoliciesThatAreNotUnderstoodSelectNobody(t *testing.T) {
	for _, spec := range []string{
		`{selector: "a =="}`, `{serviceAccountSelector: "a =="}`, `{namespaceSelector: "a =="}`,
		`{preDNAT: true}`, `{doNotTrack: true}`, `{preDNAT: true, doNotTrack: true, applyOnForward: true}`,
		`{preDNAT: true, applyOnForward: true, types: [Egress]}`,
	} {
		p, problems := globalPolicy(t, spec)
		if !p.Subject.Pods.IsNone() || len(problems) != 1 || problems[0].Effect != selectsNobody {
			t.Errorf("%s selects %s, problems %v", spec, p.Subject, problems)
		}
	}
	p, problems := globalPolicy(t, `{enforcement: Maybe, ingress: [{action: Allow}, {action: Pass}, {action: Deny}]}`)
	if p.Enforcement != policy.Enforced || p.Ingress[0].Peers == nil || p.Ingress[1].Peers == nil || p.Ingress[2].Peers != nil || len(problems) != 1 {
		t.Errorf("an unknown enforcement: %+v, problems %v", p, problems)
	}
}

func TestHooks(t *testing.T) {
	for spec, want := range map[string]policy.Hook{
		`{}`:                                    policy.Normal,
		`{applyOnForward: true}`:                policy.NormalAndForward,
		`{applyOnForward: true, preDNAT: true}`: policy.PreDNAT,
		`{applyOnForward: true, doNotTrack: true}`: policy.Untracked,
	} {
		if got, problems := globalPolicy(t, spec); got.Hook != want || len(problems) > 0 {
			t.Errorf("%s: hook %d, want %d; problems %v", spec, got.Hook, want, problems)
		}
	}
}

func TestTiersAndThings(t *testing.T) {
	order := 5.0
	tier, problems := Tier(&v1.Tier{Spec: v1.TierSpec{Order: &order, DefaultAction: v1.TierPass}})
	if tier.Order != 5 || tier.End != policy.Pass || len(problems) > 0 {
		t.Errorf("tier %+v, problems %v", tier, problems)
	}
	tier, problems = Tier(&v1.Tier{Spec: v1.TierSpec{DefaultAction: "Maybe"}})
	if tier.Order != math.Inf(1) || tier.End != policy.Deny || len(problems) != 1 {
		t.Errorf("tier %+v, problems %v", tier, problems)
	}
	set, problems := NetworkSet(&v1.NetworkSet{Spec: v1.NetworkSetSpec{Nets: []v1.Net{"10.0.0.0/8", "x", "fd00::/8"}}})
	if len(set.Nets) != 2 || len(problems) != 1 || problems[0].Field != "spec.nets[1]" {
		t.Errorf("set %+v, problems %v", set, problems)
	}
	h, problems := HostEndpoint(&v1.HostEndpoint{Spec: v1.HostEndpointSpec{
		Node: "n", InterfaceName: "*", ExpectedIPs: []v1.IPAddress{"10.0.0.1", "x"},
		Ports: []v1.EndpointPort{{Name: "ssh", Protocol: "TCP", Port: 22}, {Name: "x", Protocol: "ICMP", Port: 1}, {Name: "y", Protocol: "TCP"}},
	}})
	if h.Node != "n" || len(h.Addrs) != 1 || len(problems) != 3 || !cmp.Equal(h.Ports, []policy.NamedPort{{Name: "ssh", Protocol: policy.TCP, Port: 22}}) {
		t.Errorf("host endpoint %+v, problems %v", h, problems)
	}
	if !parsed(t, "").IsAll() {
		t.Error("the empty selector does not select everything")
	}
}

// FuzzOwnPolicy wants no panic, no rule that allows more than it says, and none
// that denies less.
func FuzzOwnPolicy(f *testing.F) {
	for _, spec := range []string{
		`{selector: "has(a)", ingress: [{action: Allow, protocol: TCP, source: {nets: [10.0.0.0/8]}, destination: {ports: [80, "1:2", http]}}]}`,
		`{tier: a, order: 1, egress: [{action: Pass, notProtocol: UDP, destination: {notSelector: "a == 'b'", namespaceSelector: global()}}, {action: Log, protocol: ICMP, icmp: {type: 8}}]}`,
	} {
		f.Add(spec)
	}
	addRecipes(f, "korat.dev/v1", "NetworkPolicy")
	addRecipes(f, "korat.dev/v1", "GlobalNetworkPolicy")
	f.Fuzz(func(t *testing.T, spec string) {
		o := &v1.GlobalNetworkPolicy{}
		if len(spec) > 10_000 || yaml.Unmarshal([]byte(spec), &o.Spec) != nil {
			return
		}
		p, problems := GlobalNetworkPolicy(o)
		for i, r := range p.Ingress {
			was := o.Spec.Ingress[i]
			said := len(was.Source.Nets)+len(was.Source.NotNets)+len(was.Source.Selector+was.Source.NotSelector+was.Source.NamespaceSelector) > 0
			if r.Action == policy.Allow && r.Peers == nil && (said || was.Action != v1.ActionAllow) {
				t.Fatalf("rule %d of %q allows everyone", i, spec)
			}
			if was.Action == v1.ActionDeny && r.Action != policy.Deny {
				t.Fatalf("rule %d of %q does not deny any more", i, spec)
			}
		}
		for _, problem := range problems {
			if problem.Field == "" || problem.Expected == "" || problem.Effect == "" {
				t.Fatalf("problem %+v of %q", problem, spec)
			}
		}
	})
}
