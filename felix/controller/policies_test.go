package controller

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	anp "sigs.k8s.io/network-policy-api/apis/v1alpha1"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/policy/convert"
)

func TestAcceptanceOfAPolicy(t *testing.T) {
	for name, c := range map[string]struct {
		spec   koratv1.PolicySpec
		noTier bool
		want   string
	}{
		"understood":      {spec: koratv1.PolicySpec{Tier: "default"}, want: "True Accepted"},
		"without a tier":  {want: "True Accepted"},
		"of unknown tier": {spec: koratv1.PolicySpec{Tier: "lost"}, noTier: true, want: `False UnknownTier: spec.tier: "lost": expected the name of a Tier, and there is none of this name; the policy is asked last, as if its tier ended with Deny`},
		"bad selector": {
			spec: koratv1.PolicySpec{Selector: "app = 'db'"},
			want: `False InvalidSelector: spec.selector: "app = 'db'": expected a selector, but at column 5: `,
		},
		"bad selector of service accounts in a rule": {
			spec: koratv1.PolicySpec{Ingress: []koratv1.Rule{{Action: koratv1.ActionAllow, Source: koratv1.RuleEnd{ServiceAccounts: &koratv1.ServiceAccountMatch{Selector: "("}}}}},
			want: `False InvalidSelector: spec.ingress[0].source.serviceAccounts.selector: "(": expected a selector, but at column 2: `,
		},
		"of several the first is told": {
			spec: koratv1.PolicySpec{Tier: "lost", Egress: []koratv1.Rule{{Action: "Reject"}, {Action: koratv1.ActionAllow, IPVersion: 5}}}, noTier: true,
			want: `False Invalid: spec.egress[0].action: "Reject": expected Allow, Deny, Log or Pass; this rule denies everything (and 1 more)`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := &koratv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop"}, Spec: koratv1.NetworkPolicySpec{PolicySpec: c.spec}}
			_, problems := convert.KoratNetworkPolicy(p)
			got := accepted(nil, policyProblem(problems, c.spec.Tier, !c.noTier), 7)
			if text := brief(got, koratv1.ConditionAccepted); !strings.HasPrefix(text, c.want) || c.want == "True Accepted" && text != c.want {
				t.Errorf("got  %s\nwant %s", text, c.want)
			}
			if got[0].ObservedGeneration != 7 {
				t.Errorf("of generation %d", got[0].ObservedGeneration)
			}
		})
	}
}

func TestOtherConditionsAndTheirTimesStay(t *testing.T) {
	long := metav1.NewTime(time.Unix(5, 0))
	was := []metav1.Condition{
		{Type: koratv1.ConditionProgrammed, Status: metav1.ConditionTrue, Reason: koratv1.ReasonProgrammed, LastTransitionTime: long},
		{Type: koratv1.ConditionAccepted, Status: metav1.ConditionTrue, Reason: koratv1.ReasonAccepted, LastTransitionTime: long},
	}
	before := append([]metav1.Condition{}, was...)
	if diff := cmp.Diff(was, accepted(was, finding{}, 0)); diff != "" {
		t.Errorf("the same facts give another status: %s", diff)
	}
	got := accepted(was, finding{koratv1.ReasonInvalid, "m"}, 1)
	if diff := cmp.Diff(before, was); diff != "" {
		t.Errorf("the object from the cache was changed: %s", diff)
	}
	if diff := cmp.Diff(before[0], got[0]); diff != "" || len(got) != 2 {
		t.Errorf("%d conditions: %s", len(got), diff)
	}
}

func TestStatusOfATier(t *testing.T) {
	good := &koratv1.Tier{Spec: koratv1.TierSpec{DefaultAction: koratv1.TierPass}}
	if s := tierStatus(good, 3); s.Policies != 3 || brief(s.Conditions, koratv1.ConditionAccepted) != "True Accepted" {
		t.Errorf("got %+v", s)
	}
	bad := &koratv1.Tier{Spec: koratv1.TierSpec{DefaultAction: "Allow"}}
	want := `False Invalid: spec.defaultAction: "Allow": expected Deny or Pass; the tier ends with Deny`
	if s := tierStatus(bad, 0); s.Policies != 0 || brief(s.Conditions, koratv1.ConditionAccepted) != want {
		t.Errorf("got %+v", s)
	}
}

func TestAcceptanceOfAHostEndpoint(t *testing.T) {
	for name, c := range map[string]struct {
		spec koratv1.HostEndpointSpec
		node bool
		want finding
	}{
		"a host": {koratv1.HostEndpointSpec{Node: "a"}, true, finding{}},
		"the interface of a pod": {koratv1.HostEndpointSpec{Node: "a", InterfaceName: "kor1"}, true, finding{
			koratv1.ReasonInvalid, `spec.interfaceName: "kor1": expected an interface of the host: those that begin with kor are of pods`,
		}},
		"of no node": {koratv1.HostEndpointSpec{Node: "a"}, false, finding{
			koratv1.ReasonUnknownNode, `spec.node: "a": expected the name of a Node, and there is none of this name`,
		}},
		"with a bad address": {koratv1.HostEndpointSpec{Node: "a", ExpectedIPs: []koratv1.IPAddress{"10.0.0"}}, true, finding{
			koratv1.ReasonInvalid, `spec.expectedIPs[0]: "10.0.0": expected an IPv4 or IPv6 address; it is left out`,
		}},
	} {
		if got := hostProblem(&koratv1.HostEndpoint{Spec: c.spec}, c.node); got != c.want {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}

func TestPoliciesOfGuestsAreRead(t *testing.T) {
	for _, o := range []client.Object{&cnp.ClusterNetworkPolicy{}, &anp.AdminNetworkPolicy{}, &anp.BaselineAdminNetworkPolicy{}} {
		if len(guestProblems(o)) == 0 {
			t.Errorf("a %T without subject has no problem", o)
		}
	}
}

func TestStandingOfAHostEndpoint(t *testing.T) {
	told := func(all ...koratv1.NodeHostEndpointStatus) *koratv1.NodeNetwork {
		return &koratv1.NodeNetwork{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Status: koratv1.NodeNetworkStatus{HostEndpoints: all}}
	}
	own := func(programmed bool, problem string) koratv1.NodeHostEndpointStatus {
		return koratv1.NodeHostEndpointStatus{Name: "h", Interfaces: []string{"eth0"}, Programmed: programmed, Problem: problem}
	}
	silent := told(own(true, ""))
	silent.Status.Conditions = []metav1.Condition{{Type: koratv1.ConditionReady, Status: metav1.ConditionUnknown, Reason: koratv1.ReasonAgentSilent}}
	named := koratv1.HostEndpointSpec{Node: "a", InterfaceName: "eth0"}
	for name, c := range map[string]struct {
		spec                 koratv1.HostEndpointSpec
		standing             standing
		accepted, programmed string
	}{
		"in force":           {named, standing{node: told(own(true, ""))}, "True Accepted", "True Programmed"},
		"found by address":   {koratv1.HostEndpointSpec{Node: "a"}, standing{node: told(own(true, ""))}, "True Accepted", "True Programmed"},
		"not yet":            {named, standing{node: told(own(false, ""))}, "True Accepted", "False Pending: its node does not have it yet"},
		"refused":            {named, standing{node: told(own(false, "nftables: no"))}, "True Accepted", "False KernelError: nftables: no"},
		"of another moment":  {koratv1.HostEndpointSpec{Node: "a", InterfaceName: "eth1"}, standing{node: told(own(true, ""))}, "True Accepted", "Unknown Pending: changed a moment ago: its node has not told yet"},
		"new":                {named, standing{node: told(), fresh: true}, "True Accepted", "Unknown Pending: changed a moment ago: its node has not told yet"},
		"nowhere":            {koratv1.HostEndpointSpec{Node: "a"}, standing{node: told()}, "False NoInterface: spec.expectedIPs: no interface of node a has one of them that no other HostEndpoint stands for", "False NoInterface: it is not in use"},
		"another goes first": {named, standing{node: told(koratv1.NodeHostEndpointStatus{Name: "b", Interfaces: []string{"eth0"}})}, `False NoInterface: spec.interfaceName: "eth0": HostEndpoint b stands for it: of several the first by name does`, "False NoInterface: it is not in use"},
		"of no agent":        {named, standing{node: &koratv1.NodeNetwork{}}, "True Accepted", "Unknown AgentSilent: node a is not heard of"},
		"of a silent agent":  {named, standing{node: silent}, "True Accepted", "Unknown AgentSilent: node a is not heard of"},
		"not understood":     {named, standing{node: told(), problem: finding{koratv1.ReasonInvalid, "x"}}, "False Invalid: x", "False Invalid: it is not in use"},
	} {
		got := c.standing.conditions(&koratv1.HostEndpoint{ObjectMeta: metav1.ObjectMeta{Name: "h"}, Spec: c.spec})
		for kind, want := range map[string]string{koratv1.ConditionAccepted: c.accepted, koratv1.ConditionProgrammed: c.programmed} {
			if b := brief(got, kind); b != want {
				t.Errorf("%s: %s is %q, want %q", name, kind, b, want)
			}
		}
	}
}
