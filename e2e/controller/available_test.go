package controller

import (
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/koratnet/korat/felix/kube"

	nodereport "github.com/koratnet/korat/felix/report"
)

// TestNetworkUnavailableFollowsWhatIsTrue over the lives of two agents, whose clock is
// ours, with an agent's rights.
func TestNetworkUnavailableFollowsWhatIsTrue(t *testing.T) {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "condition"}}
	if err := admin.Create(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { remove(t, node) })
	others := []byte(`{"status":{"conditions":[{"type":"MemoryPressure","status":"False","reason":"KubeletHasSufficientMemory"}]}}`)
	if err := admin.Status().Patch(t.Context(), node, client.RawPatch(types.StrategicMergePatchType, others)); err != nil {
		t.Fatal(err)
	}
	clients, err := kube.New(identity(t, "korat:agent:condition", "korat:agents"))
	if err != nil {
		t.Fatal(err)
	}
	now, state := time.Unix(1_000_000, 0), nodereport.Serving{}
	agent := func() *nodereport.Availability {
		return &nodereport.Availability{
			Core: clients.Core, Node: node.Name, Log: slog.New(slog.DiscardHandler),
			Serving: func() nodereport.Serving { return state },
		}
	}
	first := agent()
	began := now
	is := func(a *nodereport.Availability, after time.Duration, s nodereport.Serving, want string) {
		t.Helper()
		now, state = now.Add(after), s
		if err := a.Keep(t.Context(), now); err != nil {
			t.Fatal(err)
		}
		if got := unavailable(t, node.Name); got != want {
			t.Errorf("%s after the beginning the Node says %q, want %q", now.Sub(began), got, want)
		}
	}
	broken := errors.New("nftables: not in sync yet")
	is(first, 0, nodereport.Serving{Silent: true, Problem: broken}, "")
	is(first, time.Second, nodereport.Serving{Problem: broken}, "True KoratStarting since 1s: nftables: not in sync yet")
	is(first, time.Second, nodereport.Serving{Configured: true}, "False KoratServes since 2s: Korat gives pods a network here")

	second := agent()
	is(second, time.Hour, nodereport.Serving{Problem: broken, Configured: true}, "False KoratServes since 2s: Korat gives pods a network here")
	is(second, time.Second, nodereport.Serving{Configured: true}, "False KoratServes since 2s: Korat gives pods a network here")
	is(second, time.Second, nodereport.Serving{Problem: broken, Configured: true}, "False KoratServes since 2s: Korat gives pods a network here")
	is(second, time.Minute, nodereport.Serving{Problem: broken, Configured: true}, "True KoratCannotServe since 1h1m4s: nftables: not in sync yet")

	stolen := []byte(`{"status":{"conditions":[{"type":"NetworkUnavailable","status":"True","reason":"CalicoIsDown"}]}}`)
	is(second, time.Second, nodereport.Serving{Configured: true}, "False KoratServes since 1h1m5s: Korat gives pods a network here")
	if err := admin.Status().Patch(t.Context(), node, client.RawPatch(types.StrategicMergePatchType, stolen)); err != nil {
		t.Fatal(err)
	}
	is(second, time.Minute, nodereport.Serving{Configured: true}, "False KoratServes since 1h2m5s: Korat gives pods a network here")
}

// unavailable returns the condition in words, with the time on the clock of the test; an
// other one must be there as it was.
func unavailable(t *testing.T, name string) (says string) {
	t.Helper()
	n := &corev1.Node{}
	if err := admin.Get(t.Context(), client.ObjectKey{Name: name}, n); err != nil {
		t.Fatal(err)
	}
	others := false
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeNetworkUnavailable {
			says = fmt.Sprintf("%s %s since %s: %s", c.Status, c.Reason, c.LastTransitionTime.Sub(time.Unix(1_000_000, 0)), c.Message)
		}
		others = others || c.Type == corev1.NodeMemoryPressure && c.Reason == "KubeletHasSufficientMemory"
	}
	if !others {
		t.Errorf("the condition of others is gone: %+v", n.Status.Conditions)
	}
	return says
}
