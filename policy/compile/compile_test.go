package compile

import (
	"net/netip"
	"regexp"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
	"github.com/koratnet/korat/policy/selector"
)

var comparable = cmp.Options{
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmpopts.EquateEmpty(),
}

func nets(texts ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, t := range texts {
		out = append(out, netip.MustParsePrefix(t))
	}
	return out
}

// name stands in for SetIDOf where the expected rule should be readable.
func name(s policy.Set) ir.SetID { return ir.SetID(s.String()) }

func TestCompileRules(t *testing.T) {
	web := policy.Scope{Namespace: "shop", Pods: selector.Equals("app", "web")}
	webSet := []ir.SetID{name(policy.Set{Scope: web})}
	v4 := policy.Peer{Nets: nets("10.0.0.0/8"), Except: nets("10.2.0.0/16", "10.1.0.0/16", "10.1.0.0/16", "192.168.0.0/16")}
	v6 := policy.Peer{Nets: nets("::/0")}
	for _, c := range []struct {
		name      string
		rule      policy.Rule
		direction policy.Direction
		want      []ir.Rule
	}{
		{
			"no peers and no ports match everything",
			policy.Rule{Action: policy.Allow},
			policy.Ingress,
			[]ir.Rule{{Action: policy.Allow}},
		},
		{"an empty peer list matches nothing", policy.Rule{Action: policy.Allow, Peers: []policy.Peer{}}, policy.Ingress, nil},
		{"an empty port list matches nothing", policy.Rule{Action: policy.Allow, Ports: []policy.Port{}}, policy.Ingress, nil},
		{"an unusable peer matches nothing", policy.Rule{Action: policy.Allow, Peers: []policy.Peer{{}}}, policy.Egress, nil},
		{
			"a peer with two criteria must satisfy both",
			policy.Rule{Action: policy.Allow, Peers: []policy.Peer{{Scope: &web, Nets: v6.Nets}}},
			policy.Ingress,
			[]ir.Rule{{Action: policy.Allow, Family: ir.IPv6, SrcSets: webSet, SrcNets: nets("::/0")}},
		},
		{
			"a net that is excepted whole matches nothing",
			policy.Rule{Action: policy.Allow, Peers: []policy.Peer{{Nets: v4.Nets, Except: nets("10.0.0.0/8")}}},
			policy.Ingress,
			nil,
		},
		{
			"peers are sources of ingress, one rule for each",
			policy.Rule{Action: policy.Allow, Peers: []policy.Peer{{Scope: &web}, v4, v6}},
			policy.Ingress,
			[]ir.Rule{
				{Action: policy.Allow, SrcSets: webSet},
				{Action: policy.Allow, Family: ir.IPv4, SrcNets: nets("10.0.0.0/8"), NotSrcNets: nets("10.1.0.0/16", "10.2.0.0/16")},
				{Action: policy.Allow, Family: ir.IPv6, SrcNets: nets("::/0")},
			},
		},
		{
			"peers are destinations of egress",
			policy.Rule{Action: policy.Deny, Peers: []policy.Peer{{Scope: &web}, v4}},
			policy.Egress,
			[]ir.Rule{
				{Action: policy.Deny, DstSets: webSet},
				{Action: policy.Deny, Family: ir.IPv4, DstNets: nets("10.0.0.0/8"), NotDstNets: nets("10.1.0.0/16", "10.2.0.0/16")},
			},
		},
		{
			"ports are grouped by protocol and merged",
			policy.Rule{Action: policy.Allow, Ports: []policy.Port{
				{Protocol: policy.UDP, First: 53, Last: 53},
				{Protocol: policy.TCP, First: 443, Last: 443},
				{Protocol: policy.TCP, First: 80, Last: 90},
				{Protocol: policy.TCP, First: 85, Last: 100},
				{Protocol: policy.TCP, First: 101, Last: 101},
				{Protocol: policy.TCP, First: 103, Last: 103},
				{Protocol: policy.TCP, First: 65535, Last: 65535},
				{Protocol: policy.TCP, First: 9, Last: 8},
				{Protocol: policy.ICMP, First: 8, Last: 8},
			}},
			policy.Ingress,
			[]ir.Rule{
				{Action: policy.Allow, Protocol: policy.TCP, DstPorts: []ir.PortRange{{First: 80, Last: 101}, {First: 103, Last: 103}, {First: 443, Last: 443}, {First: 65535, Last: 65535}}},
				{Action: policy.Allow, Protocol: policy.UDP, DstPorts: []ir.PortRange{{First: 53, Last: 53}}},
			},
		},
		{
			"all ports of a protocol swallow single ones, in any order",
			policy.Rule{Action: policy.Allow, Ports: []policy.Port{
				{Protocol: policy.TCP, First: 1, Last: 1},
				{Protocol: policy.TCP},
				{Protocol: policy.TCP, First: 2, Last: 2},
				{Protocol: policy.SCTP, First: 7, Last: 7},
			}},
			policy.Ingress,
			[]ir.Rule{
				{Action: policy.Allow, Protocol: policy.TCP},
				{Action: policy.Allow, Protocol: policy.SCTP, DstPorts: []ir.PortRange{{First: 7, Last: 7}}},
			},
		},
		{
			"any protocol swallows the rest",
			policy.Rule{Action: policy.Allow, Ports: []policy.Port{{Protocol: policy.TCP, First: 1, Last: 1}, {}}},
			policy.Ingress,
			[]ir.Rule{{Action: policy.Allow}},
		},
		{
			"peers and ports multiply",
			policy.Rule{Action: policy.Allow, Peers: []policy.Peer{{Scope: &web}, v6}, Ports: []policy.Port{{Protocol: policy.TCP}, {Protocol: policy.UDP}}},
			policy.Ingress,
			[]ir.Rule{
				{Action: policy.Allow, SrcSets: webSet, Protocol: policy.TCP},
				{Action: policy.Allow, SrcSets: webSet, Protocol: policy.UDP},
				{Action: policy.Allow, Family: ir.IPv6, SrcNets: nets("::/0"), Protocol: policy.TCP},
				{Action: policy.Allow, Family: ir.IPv6, SrcNets: nets("::/0"), Protocol: policy.UDP},
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := &policy.Policy{Key: policy.Key{Name: "p"}, Types: c.direction}
			if c.direction == policy.Ingress {
				p.Ingress = []policy.Rule{c.rule}
			} else {
				p.Egress = []policy.Rule{c.rule}
			}
			got := Compile(p, c.direction, name)
			want := &ir.Program{ID: ir.ProgramID{Policy: p.Key, Direction: c.direction}, Rules: c.want}
			if diff := cmp.Diff(want, got, comparable); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			checkSets(t, p, c.direction, got)
		})
	}
}

// checkSets wants Sets to name exactly the sets that the program refers to.
func checkSets(t *testing.T, p *policy.Policy, d policy.Direction, prog *ir.Program) {
	t.Helper()
	used, named := map[ir.SetID]bool{}, map[ir.SetID]bool{}
	for _, r := range prog.Rules {
		for _, id := range slices.Concat(r.SrcSets, r.DstSets, r.NotSrcSets, r.NotDstSets,
			r.SrcPortSets, r.DstPortSets, r.NotSrcPortSets, r.NotDstPortSets) {
			used[id] = true
		}
	}
	for _, s := range Sets(p, d) {
		if named[name(s)] {
			t.Errorf("set %s twice", s)
		}
		named[name(s)] = true
	}
	if diff := cmp.Diff(used, named); diff != "" {
		t.Errorf("sets used and sets named (-used +named):\n%s", diff)
	}
}

func TestCompileLeavesOutDirectionsThatAreNoType(t *testing.T) {
	all := policy.Scope{}
	rule := policy.Rule{Action: policy.Allow, Peers: []policy.Peer{{Scope: &all}}}
	p := &policy.Policy{Types: policy.Ingress, Ingress: []policy.Rule{{}, rule}, Egress: []policy.Rule{rule}}
	if got := Compile(p, policy.Egress, name); len(got.Rules) > 0 || len(Sets(p, policy.Egress)) > 0 {
		t.Errorf("egress of an ingress policy: %v", got)
	}
	if got := Compile(p, policy.Ingress, name); len(got.Rules) != 2 || got.Rules[1].Origin != 1 {
		t.Errorf("ingress: %v; want two rules that know their origin", got.Rules)
	}
}

func TestSetIDOf(t *testing.T) {
	parse := func(text string) *selector.Selector {
		s, err := selector.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	same := []policy.Scope{
		{Namespace: "a", Pods: parse("x == '1' && has(y)")},
		{Namespace: "a", Pods: parse("has(y) && x in {'1'}")},
	}
	if SetIDOf(policy.Set{Scope: same[0]}) != SetIDOf(policy.Set{Scope: same[1]}) {
		t.Error("equal scopes have different sets")
	}
	http := policy.PortName{Protocol: policy.TCP, Name: "http"}
	web := policy.ServiceName{Namespace: "a", Name: "web"}
	seen := map[ir.SetID]policy.Set{}
	for _, s := range []policy.Set{
		{Scope: same[0]},
		{},
		{Scope: policy.Scope{Things: policy.NetworkSets}},
		{Scope: policy.Scope{Things: policy.NetworkSets | policy.Pods}},
		{Scope: policy.Scope{Namespace: "a"}},
		{Scope: policy.Scope{Namespace: "b"}},
		{Scope: policy.Scope{Namespaces: parse("x == '1' && has(y)")}},
		{Scope: policy.Scope{Pods: parse("x == '1' && has(y)")}},
		{Scope: policy.Scope{Namespaces: parse("a == 'b'"), Pods: parse("x == '1' && has(y)")}},
		{Port: http},
		{Port: policy.PortName{Name: "http"}},
		{Scope: policy.Scope{Namespace: "a"}, Port: http},
		{Service: web},
		{Service: web, Portless: true},
	} {
		id := SetIDOf(s)
		if !regexp.MustCompile(`^[a-z0-9]{20}$`).MatchString(string(id)) {
			t.Errorf("set of %s is called %q", s, id)
		}
		if other, dup := seen[id]; dup {
			t.Errorf("%s and %s share a set", s, other)
		}
		seen[id] = s
	}
	// A name that changed between two versions of the agent would make all sets
	// of a node anew while it is upgraded.
	if got, want := SetIDOf(policy.Set{Scope: policy.Scope{Namespace: "a"}}), ir.SetID("b6qmqjcqm3ug3vvoxlh5"); got != want {
		t.Errorf("the name of a set changed from %q to %q", want, got)
	}
}

func TestChain(t *testing.T) {
	pol := func(tier, name string, types policy.Direction) *policy.Policy {
		return &policy.Policy{Key: policy.Key{Name: name}, Tier: tier, Types: types}
	}
	id := func(name string) ir.ProgramID {
		return ir.ProgramID{Policy: policy.Key{Name: name}, Direction: policy.Ingress}
	}
	got := Chain([]*policy.Policy{
		pol("default", "b", policy.Ingress), pol("default", "a", policy.Egress), pol("default", "c", policy.Ingress|policy.Egress),
	}, policy.Ingress, nil)
	want := ir.Chain{
		Tiers:   []ir.Tier{{Name: "default", Programs: []ir.ProgramID{id("b"), id("c")}, End: policy.Deny}},
		Default: policy.Allow,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if open := Chain(nil, policy.Egress, nil); len(open.Tiers) > 0 || open.Default != policy.Allow {
		t.Errorf("without policies: %v, want open", open)
	}
}
