package v1

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	crdvalidation "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/koratnet/korat/policy"
)

func TestDefaultsOfPolicies(t *testing.T) {
	kinds := loadSchemas(t)

	var namespaced NetworkPolicy
	noMistakes(t, roundTrip(t, kinds, "NetworkPolicy", &NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "db", Namespace: "shop"},
	}, &namespaced))
	var global GlobalNetworkPolicy
	noMistakes(t, roundTrip(t, kinds, "GlobalNetworkPolicy", &GlobalNetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "db"},
	}, &global))
	want := PolicySpec{Tier: policy.DefaultTier, Enforcement: Enforced}
	if diff := cmp.Diff(want, namespaced.Spec.PolicySpec); diff != "" {
		t.Errorf("NetworkPolicy (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want, global.Spec.PolicySpec); diff != "" {
		t.Errorf("GlobalNetworkPolicy (-want +got):\n%s", diff)
	}

	var tier Tier
	noMistakes(t, roundTrip(t, kinds, "Tier", &Tier{ObjectMeta: metav1.ObjectMeta{Name: "security"}}, &tier))
	if diff := cmp.Diff(TierSpec{DefaultAction: TierDeny}, tier.Spec); diff != "" {
		t.Errorf("Tier (-want +got):\n%s", diff)
	}
}

// The schema repeats the orders and actions of the tiers that are always there:
// it takes them as they are and in no other way.
func TestBuiltinTiersAreThoseOfTheRules(t *testing.T) {
	kinds := loadSchemas(t)
	admit := func(name string, spec TierSpec) []error {
		return roundTrip(t, kinds, "Tier", &Tier{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec}, &Tier{})
	}
	other := map[TierAction]TierAction{TierDeny: TierPass, TierPass: TierDeny}
	for _, name := range []string{policy.AdminTier, policy.DefaultTier, policy.BaselineTier} {
		tier, _ := policy.Builtin(name)
		spec := TierSpec{Order: &tier.Order, DefaultAction: TierAction(tier.End.String())}
		noMistakes(t, admit(name, spec))
		order := *spec.Order + 0.5
		wantRefusal(t, "spec.order: ", admit(name, TierSpec{Order: &order, DefaultAction: spec.DefaultAction}))
		wantRefusal(t, "spec.order: ", admit(name, TierSpec{DefaultAction: spec.DefaultAction}))
		wantRefusal(t, "spec.defaultAction: ", admit(name, TierSpec{Order: spec.Order, DefaultAction: other[spec.DefaultAction]}))
	}
}

func TestStatusOfPoliciesIsAccepted(t *testing.T) {
	kinds := loadSchemas(t)
	now := metav1.NewTime(time.Unix(1767225600, 0).UTC())
	order := 10.5
	in := &NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "db", Namespace: "shop"},
		Spec:       NetworkPolicySpec{PolicySpec{Tier: policy.DefaultTier, Order: &order, Enforcement: Enforced}},
		Status: PolicyStatus{
			Conditions: []metav1.Condition{
				{Type: ConditionAccepted, Status: metav1.ConditionFalse, Reason: ReasonInvalidSelector, Message: `spec.selector: column 1: expected a label`, LastTransitionTime: now},
				{Type: ConditionProgrammed, Status: metav1.ConditionFalse, Reason: ReasonPending, LastTransitionTime: now},
			},
			Endpoints:       12,
			Nodes:           3,
			ProgrammedNodes: 2,
			Programmed:      "2/3",
		},
	}
	var out NetworkPolicy
	noMistakes(t, roundTrip(t, kinds, "NetworkPolicy", in, &out))
	if diff := cmp.Diff(in, &out); diff != "" {
		t.Errorf("read back (-written +read):\n%s", diff)
	}
	noMistakes(t, roundTrip(t, kinds, "HostEndpoint", &HostEndpoint{
		ObjectMeta: metav1.ObjectMeta{Name: "node-a1"},
		Spec:       HostEndpointSpec{Node: "node-a1", InterfaceName: "*"},
		Status:     HostEndpointStatus{Conditions: in.Status.Conditions},
	}, &HostEndpoint{}))
}

// The rules of a policy are the dearest of the API. An object as large as an
// API server stores must still be within what it spends on one object.
func TestLongestPolicyIsAcceptedAndNoLonger(t *testing.T) {
	kinds := loadSchemas(t)
	tcp := intstr.FromString("TCP")
	end := func(n, ports int) RuleEnd {
		e := RuleEnd{Selector: "app == 'db'"}
		for i := range n {
			e.Nets = append(e.Nets, Net(fmt.Sprintf("fd00:10:%x:%x:ffff:ffff:ffff:ff00/120", n, i)))
		}
		for i := range ports {
			e.Ports = append(e.Ports, intstr.FromString(fmt.Sprintf("%d:%d", 10000+i, 20000+i)))
		}
		return e
	}
	policy := func(rules, nets, ports int) *GlobalNetworkPolicy {
		p := &GlobalNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "long"}}
		for range rules {
			r := Rule{Action: ActionDeny, IPVersion: 6, Protocol: &tcp, Source: end(nets, ports), Destination: end(nets, ports)}
			p.Spec.Ingress = append(p.Spec.Ingress, r)
			p.Spec.Egress = append(p.Spec.Egress, r)
		}
		return p
	}
	admit := func(p *GlobalNetworkPolicy) []error {
		return roundTrip(t, kinds, "GlobalNetworkPolicy", p, &GlobalNetworkPolicy{})
	}
	noMistakes(t, admit(policy(512, 10, 10)))
	noMistakes(t, admit(policy(40, 256, 50)))
	wantRefusal(t, "spec.ingress[0].source.nets: Too many: 257: must have at most 256 items", oneRule(admit(policy(1, 257, 0))))
	wantRefusal(t, "spec.ingress[0].source.ports: Too many: 51: must have at most 50 items", oneRule(admit(policy(1, 0, 51))))

	long := policy(513, 0, 0)
	long.Spec.Egress = nil
	wantRefusal(t, "spec.ingress: Too many: 513: must have at most 512 items", admit(long))
}

// oneRule keeps the mistakes at the source of the first ingress rule.
func oneRule(errs []error) []error {
	var kept []error
	for _, err := range errs {
		if strings.HasPrefix(err.Error(), "spec.ingress[0].source.") {
			kept = append(kept, err)
		}
	}
	return kept
}

func TestLargestNetworkSetIsAcceptedAndNoLarger(t *testing.T) {
	kinds := loadSchemas(t)
	set := func(n int) *GlobalNetworkSet {
		s := &GlobalNetworkSet{ObjectMeta: metav1.ObjectMeta{Name: "feed"}}
		for i := range n {
			s.Spec.Nets = append(s.Spec.Nets, Net(fmt.Sprintf("203.%d.%d.0/24", i>>8, i&255)))
		}
		return s
	}
	noMistakes(t, roundTrip(t, kinds, "GlobalNetworkSet", set(50000), &GlobalNetworkSet{}))
	wantRefusal(t, "spec.nets: Too many: 50001: must have at most 50000 items",
		roundTrip(t, kinds, "GlobalNetworkSet", set(50001), &GlobalNetworkSet{}))
}

// API servers before the one in go.mod do not see the maxLength of what may be
// a number or a name, and estimate the cost of rules about it as if it filled a
// whole request. They must take the CRDs as well.
func TestOlderServersTakeThePolicies(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(crdDir, "*policies.yaml"))
	if err != nil || len(files) != 2 {
		t.Fatalf("CRDs of policies in %s: %v, %v, want 2", crdDir, files, err)
	}
	for _, file := range files {
		crd := loadCRD(t, file)
		if n := unboundNames(crd.Spec.Validation.OpenAPIV3Schema); n == 0 {
			t.Fatalf("%s: nothing that may be a number or a name", file)
		}
		if errs := crdvalidation.ValidateCustomResourceDefinition(t.Context(), crd); len(errs) > 0 {
			t.Errorf("%s: %v", file, errs.ToAggregate())
		}
	}
}

// unboundNames removes the maxLength of every int-or-string below s and says
// how many there were.
func unboundNames(s *apiextensions.JSONSchemaProps) int {
	n := 0
	if s.XIntOrString && s.MaxLength != nil {
		s.MaxLength = nil
		n++
	}
	for name, p := range s.Properties {
		n += unboundNames(&p)
		s.Properties[name] = p
	}
	if s.Items != nil && s.Items.Schema != nil {
		n += unboundNames(s.Items.Schema)
	}
	return n
}
