package controller

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	koratv1 "github.com/koratnet/korat/api/v1"
)

// says is what a node says of a policy at generation 2.
func says(node string, change func(*use)) use {
	u := use{node: node, NodePolicyStatus: koratv1.NodePolicyStatus{
		Kind: "NetworkPolicy", Namespace: "shop", Name: "db", Generation: 2, Endpoints: 2, Programmed: true,
	}}
	if change != nil {
		change(&u)
	}
	return u
}

func TestWhetherAPolicyIsProgrammed(t *testing.T) {
	older := func(u *use) { u.Generation = 1 }
	broken := func(u *use) { u.Programmed, u.Problem = false, "pod shop/db-0: iptables: locked" }
	slow := func(u *use) { u.Programmed = false }
	silent := func(u *use) { u.silent = true }
	for name, c := range map[string]struct {
		reports
		summary, want string
		endpoints     int32
	}{
		"on every node": {
			reports{uses: []use{says("a", nil), says("b", nil), says("c", nil)}}, "3/3", "True Programmed", 6,
		},
		"changed a moment ago": {
			reports{uses: []use{says("a", nil)}, fresh: true},
			"1/1",
			"Unknown Pending: changed a moment ago: all nodes have told of it within 12s", 2,
		},
		"nobody told of yet":      {reports{fresh: true}, "0/0", "Unknown Pending: changed a moment ago: all nodes have told of it within 12s", 0},
		"selecting nothing":       {reports{}, "0/0", "True NotSelecting", 0},
		"of an older generation":  {reports{uses: []use{says("b", older), says("a", nil)}}, "1/2", "False Pending: node b works with generation 1 of the policy, which is at 2", 4},
		"not in the kernel yet":   {reports{uses: []use{says("a", slow)}, fresh: true}, "0/1", "False Pending: node a does not have it yet", 2},
		"refused by a kernel":     {reports{uses: []use{says("a", nil), says("b", broken)}}, "1/2", "False KernelError: node b: pod shop/db-0: iptables: locked", 4},
		"missing on several":      {reports{uses: []use{says("a", slow), says("b", broken), says("c", nil)}}, "1/3", "False KernelError: 2 of 3 nodes do not have it, among them: node b: pod shop/db-0: iptables: locked", 6},
		"with a silent node":      {reports{uses: []use{says("a", nil), says("b", silent)}}, "2/2", "Unknown AgentSilent: node b is not heard of", 4},
		"while a node was silent": {reports{uses: []use{says("b", nil)}, unheard: []string{"c", "a"}}, "1/1", "Unknown AgentSilent: 2 nodes are not heard of, among them a", 2},
		"staged": {
			reports{staged: true, uses: []use{says("a", slow), says("b", slow)}},
			"",
			`False Staged: spec.enforcement: "Staged": no kernel is to have it`, 4,
		},
	} {
		t.Run(name, func(t *testing.T) {
			c.generation = 2
			got := c.count(nil)
			if text := brief(got.Conditions, koratv1.ConditionProgrammed); text != c.want {
				t.Errorf("got  %s\nwant %s", text, c.want)
			}
			if got.Programmed != c.summary || got.Endpoints != c.endpoints || int(got.Nodes) != len(c.uses) {
				t.Errorf("got %+v, want %s with %d endpoints", got, c.summary, c.endpoints)
			}
			if diff := cmp.Diff(got, c.count(got.Conditions)); diff != "" {
				t.Errorf("the same facts give another status: %s", diff)
			}
		})
	}
}

func TestSinceWhenAPolicyIsAsItIs(t *testing.T) {
	now := time.Unix(1000, 0)
	p := &koratv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "db", UID: "1", Generation: 1, CreationTimestamp: metav1.Unix(900, 0)}}
	c := changes{}
	if at := c.of(p, nil, now); !at.Equal(time.Unix(900, 0)) {
		t.Errorf("one that never changed is of %s", at)
	}
	p.Generation = 2
	if at := c.of(p, nil, now); !at.Equal(now) {
		t.Errorf("one that changed is of %s", at)
	}
	if at := c.of(p, nil, now.Add(time.Second)); !at.Equal(now) {
		t.Errorf("asked again it is of %s", at)
	}
	if left := c.settled(client.ObjectKeyFromObject(p), now.Add(2*time.Second)); left != settle-2*time.Second {
		t.Errorf("settled in %s", left)
	}
	told := []metav1.Condition{{Type: koratv1.ConditionProgrammed, ObservedGeneration: 2, LastTransitionTime: metav1.Unix(950, 0)}}
	if at := (changes{}).of(p, told, now); !at.Equal(time.Unix(950, 0)) {
		t.Errorf("one that another leader has judged is of %s", at)
	}
	c.forget(client.ObjectKeyFromObject(p))
	if len(c) != 0 {
		t.Error("one that is gone is remembered")
	}
}

func TestAgentsAreSilentWhenTheirLeaseStandsStill(t *testing.T) {
	h := &hearts{silence: time.Minute, beats: map[string]beat{}}
	node := func(name string) koratv1.NodeNetwork {
		return koratv1.NodeNetwork{ObjectMeta: metav1.ObjectMeta{Name: name}}
	}
	known := node("known")
	known.Status.Conditions = []metav1.Condition{{Type: koratv1.ConditionReady, Status: metav1.ConditionUnknown, Reason: koratv1.ReasonAgentSilent}}
	networks := []koratv1.NodeNetwork{node("a"), node("b"), known}
	start, clock := time.Unix(1000, 0), time.Unix(5, 0) // the nodes' clocks are wrong
	for _, step := range []struct {
		after time.Duration
		a     time.Time // renewed
		want  []string
	}{
		{0, clock, nil},
		{50 * time.Second, clock.Add(time.Second), nil},
		{60 * time.Second, clock.Add(time.Second), []string{"b"}},
		{109 * time.Second, clock.Add(time.Second), []string{"b"}},
		{110 * time.Second, clock.Add(time.Second), []string{"a", "b"}},
		{111 * time.Second, clock.Add(time.Minute), []string{"b"}},
	} {
		got := h.silent(networks, map[string]time.Time{"a": step.a}, start.Add(step.after))
		if diff := cmp.Diff(step.want, got); diff != "" {
			t.Errorf("after %s (-want +got):\n%s", step.after, diff)
		}
	}
	if h.silent(nil, nil, start); len(h.beats) != 0 {
		t.Error("nodes that are gone are remembered")
	}
}

func TestOnlyPoliciesThatANodeSpeaksOtherwiseOfAreJudgedAnew(t *testing.T) {
	of := func(policies ...koratv1.NodePolicyStatus) *koratv1.NodeNetwork {
		return &koratv1.NodeNetwork{Status: koratv1.NodeNetworkStatus{Policies: policies}}
	}
	p := func(kind, name string, n int32) koratv1.NodePolicyStatus {
		return koratv1.NodePolicyStatus{Kind: kind, Name: name, Endpoints: n}
	}
	got := differences("NetworkPolicy",
		of(p("NetworkPolicy", "gone", 1), p("NetworkPolicy", "more", 1), p("NetworkPolicy", "same", 1)),
		of(p("GlobalNetworkPolicy", "other", 1), p("NetworkPolicy", "more", 2), p("NetworkPolicy", "new", 1), p("NetworkPolicy", "same", 1)))
	want := map[client.ObjectKey]struct{}{{Name: "gone"}: {}, {Name: "more"}: {}, {Name: "new"}: {}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestOnlyRefusalsOfKernelsAreEvents(t *testing.T) {
	c := func(kind, reason string) metav1.Condition {
		return metav1.Condition{Type: kind, Status: metav1.ConditionFalse, Reason: reason}
	}
	all := []metav1.Condition{c(koratv1.ConditionAccepted, koratv1.ReasonInvalid), c(koratv1.ConditionProgrammed, koratv1.ReasonPending)}
	if got := worthTelling(all); len(got) != 1 || got[0].Type != koratv1.ConditionAccepted || len(all) != 2 {
		t.Errorf("got %v", got)
	}
	if got := worthTelling([]metav1.Condition{c(koratv1.ConditionProgrammed, koratv1.ReasonKernelError)}); len(got) != 1 {
		t.Errorf("got %v", got)
	}
}
