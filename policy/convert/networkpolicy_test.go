package convert

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"

	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/selector"
)

func networkPolicy(t *testing.T, spec string) *networkingv1.NetworkPolicy {
	t.Helper()
	np := &networkingv1.NetworkPolicy{}
	np.Namespace, np.Name = "shop", "np"
	if err := yaml.UnmarshalStrict([]byte(spec), &np.Spec); err != nil {
		t.Fatal(err)
	}
	return np
}

// cmpPolicies compares prefixes as values; selectors compare by their texts.
var cmpPolicies = cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })

var everyone = selector.All()

func net(text string, except ...string) policy.Peer {
	p := policy.Peer{Nets: []netip.Prefix{netip.MustParsePrefix(text)}}
	for _, e := range except {
		p.Except = append(p.Except, netip.MustParsePrefix(e))
	}
	return p
}

func pods(s policy.Scope) policy.Peer { return policy.Peer{Scope: &s} }

// good converts a spec that must be understood whole.
func good(t *testing.T, spec string) *policy.Policy {
	t.Helper()
	p, problems := NetworkPolicy(networkPolicy(t, spec))
	for _, problem := range problems {
		t.Errorf("problem in a good policy: %s", problem)
	}
	return p
}

func TestNetworkPolicyAsAWhole(t *testing.T) {
	got := good(t, `
podSelector: {matchLabels: {app: db}}
policyTypes: [Ingress, Egress]
ingress:
- from:
  - podSelector: {matchLabels: {app: web}}
  - namespaceSelector: {matchLabels: {team: ops}}
    podSelector: {matchExpressions: [{key: role, operator: In, values: [backup, audit]}]}
  ports: [{port: 5432}, {port: 9000, endPort: 9010, protocol: UDP}]
egress:
- to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.2.0.0/16, 10.1.0.0/16]}}]
`)
	want := &policy.Policy{
		Key:     policy.Key{Kind: policy.KubernetesNetworkPolicy, Namespace: "shop", Name: "np"},
		Tier:    policy.DefaultTier,
		Order:   1000,
		Subject: policy.Scope{Namespace: "shop", Pods: selector.Equals("app", "db")},
		Types:   policy.Ingress | policy.Egress,
		Ingress: []policy.Rule{{
			Action: policy.Allow,
			Peers: []policy.Peer{
				pods(policy.Scope{Namespace: "shop", Pods: selector.Equals("app", "web")}),
				pods(policy.Scope{Namespaces: selector.Equals("team", "ops"), Pods: selector.In("role", "audit", "backup")}),
			},
			Ports: []policy.Port{{Protocol: policy.TCP, First: 5432, Last: 5432}, {Protocol: policy.UDP, First: 9000, Last: 9010}},
		}},
		Egress: []policy.Rule{{
			Action: policy.Allow,
			Peers:  []policy.Peer{net("10.0.0.0/8", "10.1.0.0/16", "10.2.0.0/16")},
		}},
	}
	if diff := cmp.Diff(want, got, cmpPolicies); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestItem30PolicyTypes(t *testing.T) {
	const in, out = policy.Ingress, policy.Egress
	for spec, want := range map[string]policy.Direction{
		`{podSelector: {}}`:                                          in,
		`{podSelector: {}, ingress: [{}]}`:                           in,
		`{podSelector: {}, egress: [{}]}`:                            in | out,
		`{podSelector: {}, egress: []}`:                              in, // as the API server's defaulting
		`{podSelector: {}, policyTypes: [Egress]}`:                   out,
		`{podSelector: {}, policyTypes: [Egress], ingress: [{}]}`:    out,
		`{podSelector: {}, policyTypes: [Ingress], egress: [{}]}`:    in,
		`{podSelector: {}, policyTypes: [Egress, Ingress, Ingress]}`: in | out,
	} {
		if got := good(t, spec).Types; got != want {
			t.Errorf("%s: %s, want %s", spec, got, want)
		}
	}
}

func TestItem31EmptyListsMeanEverything(t *testing.T) {
	for spec, want := range map[string][]policy.Rule{
		`{podSelector: {}}`:                                                     nil,
		`{podSelector: {}, ingress: []}`:                                        nil,
		`{podSelector: {}, ingress: [{}]}`:                                      {{Action: policy.Allow}},
		`{podSelector: {}, ingress: [{from: [], ports: []}]}`:                   {{Action: policy.Allow}},
		`{podSelector: {}, ingress: [{ports: [{}]}]}`:                           {{Action: policy.Allow, Ports: []policy.Port{{Protocol: policy.TCP}}}},
		`{podSelector: {}, ingress: [{ports: [{protocol: UDP}, {port: 1}]}]}`:   {{Action: policy.Allow, Ports: []policy.Port{{Protocol: policy.UDP}, {Protocol: policy.TCP, First: 1, Last: 1}}}},
		`{podSelector: {}, ingress: [{from: [{podSelector: {}}]}, {from: []}]}`: {{Action: policy.Allow, Peers: []policy.Peer{pods(policy.Scope{Namespace: "shop", Pods: everyone})}}, {Action: policy.Allow}},
	} {
		if diff := cmp.Diff(want, good(t, spec).Ingress, cmpPolicies); diff != "" {
			t.Errorf("%s (-want +got):\n%s", spec, diff)
		}
	}
}

func TestItem32Peers(t *testing.T) {
	for peer, want := range map[string]policy.Scope{
		`{podSelector: {}}`:                          {Namespace: "shop", Pods: everyone},
		`{namespaceSelector: {}}`:                    {Namespaces: everyone},
		`{namespaceSelector: {}, podSelector: {}}`:   {Namespaces: everyone, Pods: everyone},
		`{namespaceSelector: {matchLabels: {a: b}}}`: {Namespaces: selector.Equals("a", "b")},
		`{namespaceSelector: {}, podSelector: {matchLabels: {a: b}}}`: {
			Namespaces: everyone, Pods: selector.Equals("a", "b"),
		},
	} {
		got := good(t, `{podSelector: {}, ingress: [{from: [`+peer+`]}]}`).Ingress[0].Peers
		if diff := cmp.Diff([]policy.Peer{pods(want)}, got, cmpPolicies); diff != "" {
			t.Errorf("%s (-want +got):\n%s", peer, diff)
		}
	}
}

func TestItem44MatchExpressions(t *testing.T) {
	for expressions, want := range map[string]string{
		`{key: a, operator: In, values: [w, v]}`:                                  "a in {'v', 'w'}",
		`{key: a, operator: In, values: [x]}`:                                     "a == 'x'",
		`{key: a, operator: NotIn, values: [w, v]}`:                               "a not in {'v', 'w'}",
		`{key: a, operator: Exists}`:                                              "has(a)",
		`{key: a, operator: DoesNotExist}`:                                        "!has(a)",
		`{key: a, operator: Exists}, {key: b, operator: NotIn, values: ["it's"]}`: `b != "it's" && has(a)`,
	} {
		got := good(t, `{podSelector: {matchExpressions: [`+expressions+`]}}`).Subject.Pods.String()
		if got != want {
			t.Errorf("%s: %q, want %q", expressions, got, want)
		}
	}
}

// TestWhatIsNotUnderstoodMatchesNothing covers items 34, 36, 38, 39, 44 and 45.
func TestWhatIsNotUnderstoodMatchesNothing(t *testing.T) {
	nobody := policy.Peer{}
	tcp := func(n uint16) policy.Port { return policy.Port{Protocol: policy.TCP, First: n, Last: n} }
	for _, c := range []struct {
		name  string
		rule  string // the only ingress rule
		peers []policy.Peer
		ports []policy.Port
		// problem is a field and a value of the first problem
		field, value string
	}{
		{"a CIDR that is none", `from: [{ipBlock: {cidr: 10.0.0.0}}]`, []policy.Peer{nobody}, nil, "from[0].ipBlock.cidr", "10.0.0.0"},
		{"a CIDR with leading zeros", `from: [{ipBlock: {cidr: 010.0.0.0/8}}]`, []policy.Peer{nobody}, nil, "from[0].ipBlock.cidr", "010.0.0.0/8"},
		{"an IPv4-mapped CIDR", `from: [{ipBlock: {cidr: "::ffff:10.0.0.0/104"}}]`, []policy.Peer{nobody}, nil, "from[0].ipBlock.cidr", "::ffff:10.0.0.0/104"},
		{
			"a bad peer beside a good one",
			`from: [{ipBlock: {cidr: x}}, {ipBlock: {cidr: 10.1.2.3/8}}]`,
			[]policy.Peer{nobody, net("10.0.0.0/8")},
			nil, "from[0].ipBlock.cidr", "x",
		},
		{"an exception that is none", `from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16, x]}}]`, []policy.Peer{nobody}, nil, "from[0].ipBlock.except[1]", "x"},
		{"an exception of another family", `from: [{ipBlock: {cidr: 10.0.0.0/8, except: ["fd00::/8"]}}]`, []policy.Peer{net("10.0.0.0/8")}, nil, "from[0].ipBlock.except[0]", "fd00::/8"},
		{"an exception that is the whole", `from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/7]}}]`, []policy.Peer{nobody}, nil, "from[0].ipBlock.except[0]", "10.0.0.0/7"},
		{"an empty peer", `from: [{}]`, []policy.Peer{nobody}, nil, "from[0]", "{}"},
		{"a block with a selector", `from: [{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}]`, []policy.Peer{nobody}, nil, "from[0]", "ipBlock with a selector"},
		{"an unknown operator", `from: [{podSelector: {matchExpressions: [{key: a, operator: Gt, values: ["1"]}]}}]`, []policy.Peer{nobody}, nil, "from[0].podSelector.matchExpressions[0].operator", "Gt"},
		{"In without values", `from: [{namespaceSelector: {matchExpressions: [{key: a, operator: In}]}, podSelector: {}}]`, []policy.Peer{nobody}, nil, "from[0].namespaceSelector.matchExpressions[0].values", ""},
		{"NotIn without values", `from: [{podSelector: {matchExpressions: [{key: a, operator: NotIn}]}}]`, []policy.Peer{nobody}, nil, "from[0].podSelector.matchExpressions[0].values", ""},
		{"Exists with values", `from: [{podSelector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}]`, []policy.Peer{nobody}, nil, "from[0].podSelector.matchExpressions[0].values", "[b]"},
		{"an unknown protocol", `ports: [{protocol: UDPLite, port: 1}]`, nil, []policy.Port{}, "ports[0].protocol", "UDPLite"},
		{"a protocol in small letters", `ports: [{protocol: tcp}, {port: 2}]`, nil, []policy.Port{tcp(2)}, "ports[0].protocol", "tcp"},
		{"a port without a name", `ports: [{port: ""}, {port: 2}]`, nil, []policy.Port{tcp(2)}, "ports[0].port", ""},
		{"port 0", `ports: [{port: 0}]`, nil, []policy.Port{}, "ports[0].port", "0"},
		{"a port too large", `ports: [{port: 65616}]`, nil, []policy.Port{}, "ports[0].port", "65616"},
		{"endPort without port", `ports: [{endPort: 5}]`, nil, []policy.Port{}, "ports[0].endPort", "5"},
		{"endPort below port", `ports: [{port: 6, endPort: 5}]`, nil, []policy.Port{}, "ports[0].endPort", "5"},
		{"endPort too large", `ports: [{port: 6, endPort: 65541}]`, nil, []policy.Port{}, "ports[0].endPort", "65541"},
		{"endPort of a named port", `ports: [{port: http, endPort: 5}]`, nil, []policy.Port{}, "ports[0].endPort", "5"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, problems := NetworkPolicy(networkPolicy(t, `{podSelector: {}, ingress: [{`+c.rule+`}]}`))
			want := []policy.Rule{{Action: policy.Allow, Peers: c.peers, Ports: c.ports}}
			if diff := cmp.Diff(want, p.Ingress, cmpPolicies); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if p.Types != policy.Ingress {
				t.Errorf("isolates %s, want ingress", p.Types)
			}
			if len(problems) != 1 || problems[0].Field != "spec.ingress[0]."+c.field || problems[0].Value != c.value {
				t.Fatalf("problems %v, want one of %s with %q", problems, c.field, c.value)
			}
			if problems[0].Expected == "" || problems[0].Effect == "" {
				t.Errorf("the problem does not say enough: %s", problems[0])
			}
		})
	}
}

func TestASubjectThatIsNotUnderstoodAllowsNothing(t *testing.T) {
	p, problems := NetworkPolicy(networkPolicy(t, `
podSelector:
  matchLabels: {app: db}
  matchExpressions: [{key: a, operator: Gt, values: ["1"]}]
ingress: [{}]
egress: [{}]
`))
	if got := p.Subject.Pods.String(); got != "app == 'db'" {
		t.Errorf("selects %s, want what the rest says", got)
	}
	if len(p.Ingress) > 0 || len(p.Egress) > 0 || p.Types != policy.Ingress|policy.Egress || len(problems) != 1 {
		t.Errorf("%+v, problems %v; want isolation without rules", p, problems)
	}
}

func TestAnUnknownPolicyTypeIsolatesBothDirections(t *testing.T) {
	p, problems := NetworkPolicy(networkPolicy(t, `{podSelector: {}, policyTypes: [Sideways]}`))
	if p.Types != policy.Ingress|policy.Egress || len(problems) != 1 {
		t.Errorf("isolates %s, problems %v", p.Types, problems)
	}
}

func TestProblemsReadLikeSentences(t *testing.T) {
	_, problems := NetworkPolicy(networkPolicy(t, `{podSelector: {}, egress: [{}, {ports: [{port: 0}]}]}`))
	want := `spec.egress[1].ports[0].port: "0": expected a number from 1 to 65535; this port matches nothing`
	if len(problems) != 1 || problems[0].String() != want {
		t.Errorf("%v\nwant %s", problems, want)
	}
}

// FuzzNetworkPolicy wants no panic, and no peer or port that means more than the object said.
func FuzzNetworkPolicy(f *testing.F) {
	for _, spec := range []string{
		`{podSelector: {}}`,
		`{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}], ports: [{port: 1, endPort: 9}]}]}`,
		`{podSelector: {matchExpressions: [{key: a, operator: In, values: []}]}, egress: [{to: [{}], ports: [{port: x}]}]}`,
	} {
		f.Add(spec)
	}
	addRecipes(f, "networking.k8s.io/v1", "NetworkPolicy")
	f.Fuzz(func(t *testing.T, spec string) {
		np := &networkingv1.NetworkPolicy{}
		if len(spec) > 10_000 || yaml.Unmarshal([]byte(spec), &np.Spec) != nil {
			return
		}
		p, problems := NetworkPolicy(np)
		for i, r := range p.Ingress {
			if (r.Peers == nil) != (len(np.Spec.Ingress[i].From) == 0) || (r.Ports == nil) != (len(np.Spec.Ingress[i].Ports) == 0) {
				t.Fatalf("ingress rule %d of %q became %+v", i, spec, r)
			}
		}
		for _, problem := range problems {
			if !strings.HasPrefix(problem.Field, "spec.") || problem.Expected == "" || problem.Effect == "" {
				t.Fatalf("problem %+v of %q", problem, spec)
			}
		}
	})
}
