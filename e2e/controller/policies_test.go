package controller

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	koratv1 "github.com/koratnet/korat/api/v1"
)

func TestStatusOfPoliciesTiersAndHostEndpoints(t *testing.T) {
	run(t)
	policy := func(name string, spec koratv1.PolicySpec) *koratv1.NetworkPolicy {
		return &koratv1.NetworkPolicy{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: koratv1.NetworkPolicySpec{PolicySpec: spec},
		}
	}
	good, bad := policy("good", koratv1.PolicySpec{Selector: "app == 'db'"}), policy("bad", koratv1.PolicySpec{Selector: "app = 'db'"})
	early := policy("early", koratv1.PolicySpec{Tier: "platform"})
	everywhere := &koratv1.GlobalNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "good"}, Spec: koratv1.GlobalNetworkPolicySpec{
		PolicySpec: koratv1.PolicySpec{Tier: "platform"}, NamespaceSelector: "all()",
	}}
	create(t, good, bad, early, everywhere)
	says(t, good, &good.Status.Conditions, koratv1.ConditionAccepted, "True Accepted")
	want := `InvalidSelector: spec.selector: "app = 'db'": expected a selector, but at column 5`
	says(t, bad, &bad.Status.Conditions, koratv1.ConditionAccepted, "False "+want)
	if got := events(t, bad, 1)[0]; !strings.HasPrefix(got, want) {
		t.Error(got)
	}
	says(t, early, &early.Status.Conditions, koratv1.ConditionAccepted, `False UnknownTier: spec.tier: "platform": expected the name of a Tier`)
	says(t, everywhere, &everywhere.Status.Conditions, koratv1.ConditionAccepted, "False UnknownTier")

	tier := &koratv1.Tier{ObjectMeta: metav1.ObjectMeta{Name: "platform"}}
	create(t, tier)
	says(t, tier, &tier.Status.Conditions, koratv1.ConditionAccepted, "True Accepted")
	says(t, early, &early.Status.Conditions, koratv1.ConditionAccepted, "True Accepted")
	says(t, everywhere, &everywhere.Status.Conditions, koratv1.ConditionAccepted, "True Accepted")
	counts(t, tier, 2)
	remove(t, everywhere)
	counts(t, tier, 1)

	host := &koratv1.HostEndpoint{ObjectMeta: metav1.ObjectMeta{Name: "host"}, Spec: koratv1.HostEndpointSpec{Node: "later", InterfaceName: "*"}}
	create(t, host)
	says(t, host, &host.Status.Conditions, koratv1.ConditionAccepted, `False UnknownNode: spec.node: "later"`)
	create(t, machine("later"))
	says(t, host, &host.Status.Conditions, koratv1.ConditionAccepted, "True Accepted")
}

// counts waits until the tier says that so many policies name it.
func counts(t *testing.T, tier *koratv1.Tier, n int32) {
	t.Helper()
	within(t, func(ctx context.Context) error {
		if err := admin.Get(ctx, client.ObjectKeyFromObject(tier), tier); err != nil {
			return err
		}
		if tier.Status.Policies != n {
			return fmt.Errorf("tier %s has %d policies, want %d", tier.Name, tier.Status.Policies, n)
		}
		return nil
	})
}

// The API server lets no NetworkPolicy of Kubernetes pass in which something is
// not understood today; of the cluster-wide kinds it does.
func TestProblemsOfPoliciesAreToldOnceForEachGeneration(t *testing.T) {
	stop, _ := run(t) // while the cluster does not have the kind
	define(t, "clusternetworkpolicies")
	guard := clusterPolicy("guard", "Near")
	within(t, func(ctx context.Context) error { return admin.Create(ctx, guard) })
	want := `PolicyProblem: spec.subject.namespaces.matchExpressions[0].operator: "Near": expected In, NotIn, Exists or DoesNotExist`
	if got := events(t, guard, 1)[0]; !strings.HasPrefix(got, want) {
		t.Errorf("got %s, want %s", got, want)
	}

	// The next leader lists the policy anew and has nothing new to say: a policy
	// made later is told of, which shows that it came that far.
	stop()
	run(t)
	later := clusterPolicy("guard-later", "Near")
	create(t, later)
	events(t, later, 1)
	events(t, guard, 1)

	guard.Spec.Subject.Namespaces.MatchExpressions[0].Operator = "Far"
	if err := admin.Update(t.Context(), guard); err != nil {
		t.Fatal(err)
	}
	events(t, guard, 2)
}

// clusterPolicy makes one whose subject is selected by this operator.
func clusterPolicy(name string, operator metav1.LabelSelectorOperator) *cnp.ClusterNetworkPolicy {
	subject := &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "app", Operator: operator}}}
	return &cnp.ClusterNetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       cnp.ClusterNetworkPolicySpec{Tier: cnp.AdminTier, Priority: 1, Subject: cnp.ClusterNetworkPolicySubject{Namespaces: subject}},
	}
}

// define makes the cluster serve a kind of policy.networking.k8s.io, until the
// end of the test or until what it returns is removed. Objects of it go with it.
func define(t *testing.T, plural string) *unstructured.Unstructured {
	t.Helper()
	module, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/network-policy-api").Output()
	if err != nil {
		t.Fatal(err)
	}
	definitions, err := manifests(strings.TrimSpace(string(module)) + "/config/crd/standard/policy.networking.k8s.io_" + plural + ".yaml")
	if err != nil || len(definitions) != 1 {
		t.Fatalf("%d definitions of %s: %v", len(definitions), plural, err)
	}
	t.Cleanup(func() { // another test may define it again
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		o := definitions[0].DeepCopy()
		if err := eventually(ctx, func() error { return gone(ctx, o) }); err != nil {
			t.Error(err)
		}
	})
	create(t, definitions[0])
	return definitions[0]
}
