package controller

import (
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	koratv1 "github.com/koratnet/korat/api/v1"
)

// agentClient is a client with the rights of an agent.
func agentClient(t *testing.T) client.Client {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := koratv1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(identity(t, "korat:node-a1", "korat:agents"), client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// What the manifest grants is what the programs do; what would hurt it denies.
func TestRights(t *testing.T) {
	agent := authorizationv1.SubjectAccessReviewSpec{User: "korat:node-a1", Groups: []string{"korat:agents"}}
	controller := authorizationv1.SubjectAccessReviewSpec{User: "korat:controller"}
	for _, c := range []struct {
		who             authorizationv1.SubjectAccessReviewSpec
		verb, group     string
		resource, inner string
		want            bool
	}{
		{agent, "watch", "", "pods", "", true},
		{agent, "watch", "networking.k8s.io", "networkpolicies", "", true},
		{agent, "watch", "korat.dev", "bgppeers", "", true},
		{agent, "watch", "korat.dev", "nodeconfigurations", "", true},
		{agent, "update", "korat.dev", "nodeconfigurations", "status", false},
		{agent, "create", "korat.dev", "blocks", "", true},
		{agent, "update", "korat.dev", "blocks", "status", true},
		{agent, "update", "korat.dev", "nodenetworks", "status", true},
		{agent, "update", "korat.dev", "blocks", "", true},
		{agent, "delete", "korat.dev", "blocks", "", true},
		{agent, "update", "korat.dev", "nodenetworks", "", false},
		{agent, "update", "coordination.k8s.io", "leases", "", false}, // of other namespaces
		{agent, "create", "korat.dev", "ippools", "", false},
		{agent, "get", "", "secrets", "", false},
		{agent, "list", "", "secrets", "", false},
		{agent, "patch", "", "nodes", "status", true},
		{agent, "update", "", "nodes", "status", false},
		{agent, "patch", "", "nodes", "", false},
		{agent, "watch", "", "services", "", true},
		{agent, "patch", "", "services", "status", false},
		{controller, "patch", "", "services", "status", true},
		{controller, "patch", "", "services", "", false},
		{controller, "create", "korat.dev", "ippools", "", true},
		{controller, "patch", "korat.dev", "blocks", "status", true},
		{controller, "watch", "networking.k8s.io", "networkpolicies", "", true},
		{controller, "watch", "korat.dev", "networkpolicies", "", true},
		{controller, "patch", "korat.dev", "tiers", "status", true},
		{controller, "patch", "korat.dev", "nodeconfigurations", "status", true},
		{controller, "list", "policy.networking.k8s.io", "adminnetworkpolicies", "", true},
		{controller, "update", "korat.dev", "networkpolicies", "", false},
		{controller, "patch", "korat.dev", "globalnetworkpolicies", "", false},
		{controller, "list", "", "pods", "", true},
		{controller, "watch", "", "pods", "", false},
		{controller, "delete", "korat.dev", "blocks", "", true},
		{controller, "update", "korat.dev", "blocks", "", false},
		{controller, "patch", "korat.dev", "nodenetworks", "status", true},
		{controller, "update", "korat.dev", "nodenetworks", "", false},
		{controller, "patch", "korat.dev", "bgpfilters", "status", true},
		{controller, "patch", "korat.dev", "bgpadvertisements", "", false},
		{controller, "delete", "korat.dev", "ippools", "", false},
		{controller, "get", "", "secrets", "", false},
	} {
		r := &authorizationv1.SubjectAccessReview{Spec: c.who}
		r.Spec.ResourceAttributes = &authorizationv1.ResourceAttributes{Verb: c.verb, Group: c.group, Resource: c.resource, Subresource: c.inner}
		if err := admin.Create(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		if r.Status.Allowed != c.want {
			t.Errorf("%s may %s %s %s: %t, want %t", c.who.User, c.verb, c.resource, c.inner, r.Status.Allowed, c.want)
		}
	}
}
