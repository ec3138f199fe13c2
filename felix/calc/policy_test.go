package calc_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/compile"
	"github.com/koratnet/korat/policy/ir"
	"github.com/koratnet/korat/policy/selector"
)

const both = policy.Ingress | policy.Egress

// texts returns what text makes of the keys of m, sorted, in one line.
func texts[K comparable, V any](m map[K]V, text func(K) string) string {
	var out []string
	for k := range m {
		out = append(out, text(k))
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// chain describes what decides about one direction of an endpoint.
func (r *run) chain(iface string, d policy.Direction) string {
	ep, exists := r.world.Endpoints[iface]
	if !exists {
		return "absent"
	}
	c := ep.Ingress
	if d == policy.Egress {
		c = ep.Egress
	}
	if len(c.Tiers) == 0 {
		return c.Default.String()
	}
	var out []string
	for _, tier := range c.Tiers {
		for _, p := range tier.Programs {
			out = append(out, p.Policy.Name)
		}
		out = append(out, tier.End.String())
	}
	return strings.Join(out, " ")
}

func TestChainsOfEndpoints(t *testing.T) {
	web := endpoint("kor1", "a/web", 1, "10.0.0.1")
	webPod := pod("a/web", "me", "app=web")
	wide := event.Set("wide", &event.Policy{Policy: &policy.Policy{
		Key: policy.Key{Name: "wide"}, Tier: policy.DefaultTier, Types: policy.Ingress,
		Subject: policy.Scope{Namespaces: selector.Equals("env", "prod")},
	}})
	early := *isolate("a/zz", both, "web").Value.(*event.Policy).Policy
	early.Order = 1
	earlyEvent := event.Set(early.Key.String(), &event.Policy{Policy: &early})

	for name, c := range map[string]struct {
		steps           []evs
		ingress, egress string
	}{
		"an endpoint that no policy selects is open": {
			[]evs{{web, webPod, isolate("a/np", both, "db"), isolate("b/np", both, "web")}},
			"Allow", "Allow",
		},
		"a policy closes only the directions of its types": {
			[]evs{{web, webPod, isolate("a/np", policy.Ingress, "web")}},
			"np Deny", "Allow",
		},
		"policies are asked in the order of their order, then of their names": {
			[]evs{{web, webPod, isolate("a/n2", both, "web"), isolate("a/n1", both, "web"), earlyEvent}},
			"zz n1 n2 Deny", "zz n1 n2 Deny",
		},
		"a policy that goes opens what it closed": {
			[]evs{
				{web, webPod, isolate("a/np", both, "web")},
				{gone(isolate("a/np", both, "web"))},
			},
			"Allow", "Allow",
		},
		"a pod that gets another label gets other policies": {
			[]evs{
				{web, webPod, isolate("a/np", both, "web"), isolate("a/db", policy.Egress, "db")},
				{pod("a/web", "me", "app=db")},
			},
			"Allow", "db Deny",
		},
		"a pod that the API server does not know is closed where a policy of its namespace isolates": {
			[]evs{{web, isolate("a/np", policy.Ingress, "db"), isolate("b/np", policy.Egress, "web")}},
			"Deny", "Allow",
		},
		"a pod that the API server does not know closes when the first policy of its namespace comes": {
			[]evs{{web}, {isolate("a/np", policy.Egress, "db")}},
			"Allow", "Deny",
		},
		"a pod that the API server does not know opens when the last policy of its namespace goes": {
			[]evs{
				{web, isolate("a/n1", both, "db"), isolate("a/n2", policy.Ingress, "db")},
				{gone(isolate("a/n1", both, "db"))},
			},
			"Deny", "Allow",
		},
		"doubt heals when the pod becomes known": {
			[]evs{{web, isolate("a/np", both, "db")}, {webPod}},
			"Allow", "Allow",
		},
		"a pod of the same name that runs elsewhere is not the endpoint's pod": {
			[]evs{{web, pod("a/web", "other", "app=web"), isolate("a/np", both, "db")}},
			"Deny", "Deny",
		},
		"a pod made anew under the name of one whose sandbox still runs is not the endpoint's pod": {
			[]evs{{known(web, 1), known(webPod, 1), isolate("a/np", both, "db")}, {known(webPod, 2)}},
			"Deny", "Deny",
		},
		"a pod made anew is the endpoint's pod when it has its own sandbox": {
			[]evs{
				{known(web, 1), known(webPod, 1), isolate("a/np", both, "db")},
				{known(webPod, 2)},
				{known(endpoint("kor1", "a/web", 2, "10.0.0.2"), 2)},
			},
			"Allow", "Allow",
		},
		"an endpoint whose pod's object is gone is in doubt": {
			[]evs{{web, webPod, isolate("a/np", both, "db")}, {gone(webPod)}},
			"Deny", "Deny",
		},
		"a policy that asks for labels of an unknown namespace closes": {
			[]evs{{web, webPod, wide}},
			"Deny", "Allow",
		},
		"doubt about a namespace heals when its labels become known": {
			[]evs{{web, webPod, wide}, {namespace("a", "env=test")}},
			"Allow", "Allow",
		},
		"a policy over namespaces follows their labels": {
			[]evs{{web, webPod, wide, namespace("a", "env=test")}, {namespace("a", "env=prod")}},
			"wide Deny", "Allow",
		},
		"an endpoint whose sandbox went is absent though its pod's object stays": {
			[]evs{{web, webPod, isolate("a/np", both, "web")}, {gone(web)}},
			"absent", "absent",
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := ready(t)
			for _, step := range c.steps {
				r.tell(step...)
			}
			if got := r.chain("kor1", policy.Ingress); got != c.ingress {
				t.Errorf("ingress is %q, want %q", got, c.ingress)
			}
			if got := r.chain("kor1", policy.Egress); got != c.egress {
				t.Errorf("egress is %q, want %q", got, c.egress)
			}
		})
	}
}

func TestOnlyPoliciesOfLocalEndpointsCostAnything(t *testing.T) {
	web, np := endpoint("kor1", "a/web", 1, "10.0.0.1"), isolate("a/np", policy.Ingress, "web", apps("a", "db"))
	r := ready(t, pod("a/web", "me", "app=web"), pod("b/web", "other", "app=web", "10.0.1.1"),
		pod("a/db", "other", "app=db", "10.0.1.2"), np, isolate("b/np", both, "web", apps("b", "web")))
	if len(r.world.Programs)+len(r.policySets()) > 0 {
		t.Errorf("programs %v and sets %v without a local endpoint", r.world.Programs, r.world.Sets)
	}
	r.tell(web)
	want := ir.ProgramID{Policy: policyKey("a/np"), Direction: policy.Ingress}
	if ids := slices.Collect(maps.Keys(r.world.Programs)); !slices.Equal(ids, []ir.ProgramID{want}) || len(r.policySets()) != 1 {
		t.Errorf("programs %v and sets %v, want one each", ids, r.world.Sets)
	}
	r.tell(gone(web)) // the pod's object stays
	if len(r.world.Programs)+len(r.policySets()) > 0 {
		t.Errorf("programs %v and sets %v after the last local endpoint went", r.world.Programs, r.world.Sets)
	}
}

func TestItems25And43MembersOfSets(t *testing.T) {
	base := evs{
		endpoint("kor1", "a/web", 1, "10.0.0.1"), pod("a/web", "me", "app=web"),
		namespace("a", "env=prod"), namespace("b", "env=test"),
		isolate("a/np", policy.Ingress, "web", apps("a", "db"), inEnv("prod")),
	}
	db := pod("a/db", "other", "app=db", "10.0.1.1")
	for name, c := range map[string]struct {
		steps     []evs
		dbs, prod string
	}{
		"a set holds the addresses of the pods that its scope selects": {
			[]evs{{db, pod("b/db", "other", "app=db", "10.0.1.2")}},
			"10.0.1.1", "10.0.0.1 10.0.1.1",
		},
		"of two pods with one address the end of one does not end the other": {
			[]evs{{db, pod("a/db2", "other", "app=db", "10.0.1.1")}, {gone(db)}},
			"10.0.1.1", "10.0.0.1 10.0.1.1",
		},
		"an address goes with the last pod that has it": {
			[]evs{{db, pod("a/db2", "other", "app=db", "10.0.1.1")}, {gone(db)}, {gone(pod("a/db2", "", ""))}},
			"", "10.0.0.1",
		},
		"a pod that changes its address leaves with the old one": {
			[]evs{{db}, {pod("a/db", "other", "app=db", "10.0.1.9")}},
			"10.0.1.9", "10.0.0.1 10.0.1.9",
		},
		"a local endpoint's address counts before the API server knows it": {
			[]evs{{pod("a/db", "me", "app=db"), endpoint("kor2", "a/db", 2, "10.0.0.2")}},
			"10.0.0.2", "10.0.0.1 10.0.0.2",
		},
		"a local endpoint's address replaces what the pod's object says": {
			[]evs{{pod("a/db", "me", "app=db", "10.0.0.9"), endpoint("kor2", "a/db", 2, "10.0.0.2")}},
			"10.0.0.2", "10.0.0.1 10.0.0.2",
		},
		"a local pod without endpoint has the addresses of its object": {
			[]evs{
				{pod("a/db", "me", "app=db", "10.0.0.9"), endpoint("kor2", "a/db", 2, "10.0.0.2")},
				{gone(endpoint("kor2", "a/db", 2))},
			},
			"10.0.0.9", "10.0.0.1 10.0.0.9",
		},
		"a pod that runs elsewhere does not get the address of an endpoint left behind by its name": {
			[]evs{{db, endpoint("kor2", "a/db", 2, "10.0.0.2")}},
			"10.0.1.1", "10.0.0.1 10.0.1.1",
		},
		"a pod made anew does not get the address of the sandbox that its name left behind": {
			[]evs{{known(pod("a/db", "me", "app=db"), 2), known(endpoint("kor2", "a/db", 2, "10.0.0.2"), 1)}},
			"", "10.0.0.1",
		},
		"a namespace that gets the label brings its pods": {
			[]evs{{pod("b/x", "other", "", "10.0.1.3")}, {namespace("b", "env=prod")}},
			"", "10.0.0.1 10.0.1.3",
		},
		"a pod that changes while its namespace is relabelled is counted once": {
			[]evs{
				{pod("b/x", "other", "", "10.0.1.3")},
				{namespace("b", "env=prod"), pod("b/x", "other", "", "10.0.1.4")},
				{gone(pod("b/x", "", ""))},
			},
			"", "10.0.0.1",
		},
		"a pod that goes while its namespace loses the label leaves once": {
			[]evs{
				{db, pod("a/db2", "other", "", "10.0.1.1")},
				{namespace("a", "env=test"), gone(db)},
				{namespace("a", "env=prod")},
			},
			"", "10.0.0.1 10.0.1.1",
		},
		"a pod of an unknown namespace is selected by no label of it": {
			[]evs{{pod("c/x", "other", "", "10.0.1.3")}},
			"", "10.0.0.1",
		},
		"a pod of both families is in the set with both": {
			[]evs{{pod("a/db", "other", "app=db", "10.0.1.1", "fd00::1")}},
			"10.0.1.1 fd00::1", "10.0.0.1 10.0.1.1 fd00::1",
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := ready(t, base...)
			for _, step := range c.steps {
				r.tell(step...)
			}
			if got := r.members(apps("a", "db")); got != c.dbs {
				t.Errorf("members by label are %q, want %q", got, c.dbs)
			}
			if got := r.members(inEnv("prod")); got != c.prod {
				t.Errorf("members by namespace are %q, want %q", got, c.prod)
			}
		})
	}
}

func TestAnAddressThatMovesBetweenSelectedPodsChangesNoSet(t *testing.T) {
	db := pod("a/db", "other", "app=db", "10.0.1.1")
	r := ready(t, endpoint("kor1", "a/web", 1, "10.0.0.1"), pod("a/web", "me", "app=web"), db,
		isolate("a/np", policy.Ingress, "web", apps("a", "db")))
	r.put(gone(db), pod("a/db2", "other2", "app=db", "10.0.1.1"))
	if d := r.engine.Flush(); !d.Empty() {
		t.Errorf("delta says %+v", d)
	}
}

func TestEqualScopesShareASetUntilTheLastOneGoes(t *testing.T) {
	n1 := isolate("a/n1", policy.Ingress, "web", apps("a", "db"))
	n2 := isolate("a/n2", policy.Egress, "web", apps("a", "db"))
	r := ready(t, endpoint("kor1", "a/web", 1, "10.0.0.1"), pod("a/web", "me", "app=web"),
		pod("a/db", "other", "app=db", "10.0.1.1"), n1)
	r.put(n2)
	if d := r.engine.Flush(); d.Sets != nil {
		t.Errorf("a second user of the set changes it: %v", d.Sets)
	} else {
		r.world.Apply(d)
	}
	r.tell(gone(n1))
	if got := r.members(apps("a", "db")); got != "10.0.1.1" {
		t.Errorf("set has %q after the first of two users went", got)
	}
	r.put(gone(n2))
	d := r.engine.Flush()
	if c := d.Sets[compile.SetIDOf(policy.Set{Scope: apps("a", "db")})]; c == nil || !c.Gone {
		t.Errorf("set changes by %+v when its last user goes, want Gone", c)
	}
}

func TestASetBeginsWholeAndGoesOnWithChanges(t *testing.T) {
	r := ready(t, endpoint("kor1", "a/web", 1, "10.0.0.1"), pod("a/web", "me", "app=web"),
		pod("a/db", "other", "app=db", "10.0.1.1"))
	id := compile.SetIDOf(policy.Set{Scope: apps("a", "db")})
	r.put(isolate("a/np", policy.Ingress, "web", apps("a", "db")), pod("a/db2", "other", "app=db", "10.0.1.2"))
	d := r.engine.Flush()
	if c := d.Sets[id]; c == nil || !c.Whole || len(c.Add) != 2 {
		t.Fatalf("new set begins with %+v, want Whole with two members", c)
	}
	r.world.Apply(d)
	r.put(pod("a/db3", "other", "app=db", "10.0.1.3"))
	d = r.engine.Flush()
	if c := d.Sets[id]; c == nil || c.Whole || len(c.Add) != 1 || len(c.Del) != 0 {
		t.Fatalf("set goes on with %+v, want one addition", c)
	}
}
