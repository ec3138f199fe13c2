package controller

import (
	"context"
	"fmt"
	"log/slog"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/felix/controller"
	"github.com/koratnet/korat/felix/kube"
	nodereport "github.com/koratnet/korat/felix/report"
)

// agent reports for a node what the test says, with an agent's rights.
type agent struct {
	node string
	stop func()

	mu    sync.Mutex // guards the rest
	facts nodereport.Facts
}

func (a *agent) say(policies ...koratv1.NodePolicyStatus) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.facts.Policies = policies
}

// reporting starts one, and makes its Node.
func reporting(t *testing.T, node string, policies ...koratv1.NodePolicyStatus) *agent {
	t.Helper()
	clients, err := kube.New(identity(t, "korat:"+node, "korat:agents"))
	if err != nil {
		t.Fatal(err)
	}
	a := &agent{node: node, facts: nodereport.Facts{Policies: policies}}
	r := nodereport.New(nodereport.Config{
		Client: clients.Korat, Core: clients.Core, Leases: clients.Coordination, Node: node, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Blocks: func(context.Context) error { return nil },
		Facts: func(context.Context) nodereport.Facts {
			a.mu.Lock()
			defer a.mu.Unlock()
			return a.facts
		},
	})
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	a.stop = sync.OnceFunc(func() { cancel(); <-ended })
	t.Cleanup(func() { remove(t, &koratv1.NodeNetwork{ObjectMeta: metav1.ObjectMeta{Name: node}}) })
	t.Cleanup(a.stop)
	return a
}

// of is what a node says of a policy that is in its kernel.
func of(o client.Object, generation int64, endpoints int32) koratv1.NodePolicyStatus {
	kind := "NetworkPolicy"
	if o.GetNamespace() == "" {
		kind = "GlobalNetworkPolicy"
	}
	return koratv1.NodePolicyStatus{
		Kind: kind, Namespace: o.GetNamespace(), Name: o.GetName(), Generation: generation, Endpoints: endpoints, Programmed: true,
	}
}

func TestPoliciesTellWhereTheyAreInForce(t *testing.T) {
	run(t)
	at := metav1.ObjectMeta{Namespace: "default", Name: "inforce"}
	own := &koratv1.NetworkPolicy{ObjectMeta: at, Spec: koratv1.NetworkPolicySpec{PolicySpec: koratv1.PolicySpec{Selector: "app == 'db'"}}}
	idle := &koratv1.GlobalNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "inforce"}}
	create(t, machine("p1"), machine("p2"), machine("p3"), own, idle)
	first := reporting(t, "p1", of(own, 1, 2))
	reporting(t, "p2", of(own, 1, 3))
	reporting(t, "p3")

	says(t, own, &own.Status.Conditions, koratv1.ConditionProgrammed, "Unknown Pending: changed a moment ago")
	says(t, own, &own.Status.Conditions, koratv1.ConditionProgrammed, "True Programmed")
	says(t, idle, &idle.Status.Conditions, koratv1.ConditionProgrammed, "True NotSelecting")
	if s := own.Status; s.Endpoints != 5 || s.Nodes != 2 || s.ProgrammedNodes != 2 || s.Programmed != "2/2" {
		t.Errorf("%+v", s)
	}
	row := table(t, "networkpolicies.korat.dev", "-n", "default", "inforce")
	if want := "inforce default Enforced 5 2/2 True"; !strings.HasPrefix(row, want) {
		t.Errorf("kubectl prints %q, want %q", row, want)
	}

	refused := of(own, 1, 2)
	refused.Programmed, refused.Problem = false, "pod default/db-0: iptables: locked"
	first.say(refused)
	says(t, own, &own.Status.Conditions, koratv1.ConditionProgrammed, "False KernelError: node p1: pod default/db-0: iptables: locked")
	if got := events(t, own, 1)[0]; got != "KernelError: node p1: pod default/db-0: iptables: locked" {
		t.Errorf("event %s", got)
	}

	first.say(of(own, 1, 2))
	says(t, own, &own.Status.Conditions, koratv1.ConditionProgrammed, "True Programmed")
	if err := admin.Get(t.Context(), client.ObjectKeyFromObject(own), own); err != nil {
		t.Fatal(err)
	}
	own.Spec.Selector = "app == 'web'"
	if err := admin.Update(t.Context(), own); err != nil {
		t.Fatal(err)
	}
	says(t, own, &own.Status.Conditions, koratv1.ConditionProgrammed, "False Pending: 2 of 2 nodes do not have it, among them: node p1 works with generation 1 of the policy, which is at 2")
}

func TestANodeWhoseAgentIsSilentIsNotBelieved(t *testing.T) {
	runWith(t, controller.Config{Silence: 4 * time.Second})
	own := &koratv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "unheard"}}
	create(t, machine("s1"), own)
	a := reporting(t, "s1", of(own, 1, 1))
	n := &koratv1.NodeNetwork{ObjectMeta: metav1.ObjectMeta{Name: "s1"}}
	says(t, n, &n.Status.Conditions, koratv1.ConditionReady, "Unknown AgentSilent: its agent renewed its Lease last at ") // 40 s are too long for this controller
	says(t, own, &own.Status.Conditions, koratv1.ConditionProgrammed, "Unknown AgentSilent: node s1 is not heard of")
	if own.Status.Programmed != "1/1" {
		t.Errorf("programmed on %s: what an agent programmed stays", own.Status.Programmed)
	}
	if c := meta.FindStatusCondition(n.Status.Conditions, koratv1.ConditionEstablished); c == nil {
		t.Error("the other conditions are lost")
	}
	later := &koratv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "unheard-later"}}
	create(t, later)
	says(t, later, &later.Status.Conditions, koratv1.ConditionProgrammed, "Unknown AgentSilent: node s1 is not heard of")

	a.stop()
	lease := &coordinationv1.Lease{}
	key := client.ObjectKey{Namespace: koratv1.LeaseNamespace, Name: koratv1.LeaseOfAgent + ".s1"}
	if err := admin.Get(t.Context(), key, lease); err != nil {
		t.Fatal(err)
	}
	if o := lease.OwnerReferences; len(o) != 1 || o[0].UID != n.UID {
		t.Errorf("the Lease belongs to %v, want the NodeNetwork %s", o, n.UID)
	}
	reporting(t, "s1", of(own, 1, 1)) // restarted, it says at once that it lives
	says(t, n, &n.Status.Conditions, koratv1.ConditionReady, "True Programmed")
}

// table returns the last line of what kubectl prints about objects, with single
// spaces.
func table(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command(binary, append([]string{"kubectl", "--kubeconfig", filepath.Join(dir, "admin.kubeconfig"), "get"}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return fmt.Sprint(strings.Join(strings.Fields(lines[len(lines)-1]), " "))
}
