package controller

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/felix/kube"
	"github.com/koratnet/korat/felix/watch"
)

// letters is a watch.Box that keeps what is known.
type letters struct {
	mu     sync.Mutex // guards all below
	known  map[event.Key]event.Value
	synced bool
}

func (l *letters) Post(evs ...event.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, ev := range evs {
		if delete(l.known, ev.Key); ev.Value != nil {
			l.known[ev.Key] = ev.Value
		}
	}
}

func (l *letters) Synced(event.Source) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.synced = true
}

// await waits until the keys are known, or are not.
func (l *letters) await(t *testing.T, want bool, keys ...event.Key) {
	t.Helper()
	within(t, func(context.Context) error {
		l.mu.Lock()
		defer l.mu.Unlock()
		if !l.synced {
			return fmt.Errorf("not synced")
		}
		for _, k := range keys {
			if _, known := l.known[k]; known != want {
				return fmt.Errorf("%v is known: %v, want %v", k, known, want)
			}
		}
		return nil
	})
}

// listen watches as an agent does, with an agent's rights.
func listen(t *testing.T) *letters {
	t.Helper()
	clients, err := kube.New(identity(t, "korat:agent:node", "korat:agents"))
	if err != nil {
		t.Fatal(err)
	}
	box := &letters{known: map[event.Key]event.Value{}}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- watch.Run(ctx, clients, "kube-system", box, slog.New(slog.NewTextHandler(t.Output(), nil)))
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return box
}

func TestAgentsMayWatchEveryKindOfPolicy(t *testing.T) {
	box := listen(t)
	box.await(t, true, event.Key{Kind: event.NamespaceKind, Name: "default"}) // no kind keeps it waiting

	at := metav1.ObjectMeta{Namespace: "default", Name: "watched"}
	ofService := metav1.ObjectMeta{Namespace: "default", Name: "watched", Labels: map[string]string{discoveryv1.LabelServiceName: "watched"}}
	everywhere := metav1.ObjectMeta{Name: "watched"}
	for key, o := range map[event.Key]client.Object{
		{Kind: event.ServiceAccountKind, Name: "default/watched"}: &corev1.ServiceAccount{ObjectMeta: at},
		{Kind: event.NetworkSetKind, Name: "default/watched"}:     &koratv1.NetworkSet{ObjectMeta: at},
		{Kind: event.NetworkSetKind, Name: "watched"}:             &koratv1.GlobalNetworkSet{ObjectMeta: everywhere},
		{Kind: event.TierKind, Name: "watched"}:                   &koratv1.Tier{ObjectMeta: everywhere, Spec: koratv1.TierSpec{DefaultAction: koratv1.TierPass}},
		{Kind: event.HostEndpointKind, Name: "watched"}:           &koratv1.HostEndpoint{ObjectMeta: everywhere, Spec: koratv1.HostEndpointSpec{Node: "node", InterfaceName: "*"}},
		{Kind: event.PolicyKind, Name: "np/default/watched"}:      &koratv1.NetworkPolicy{ObjectMeta: at},
		{Kind: event.PolicyKind, Name: "gnp/watched"}:             &koratv1.GlobalNetworkPolicy{ObjectMeta: everywhere},
		{Kind: event.EndpointSliceKind, Name: "default/watched"}:  &discoveryv1.EndpointSlice{ObjectMeta: ofService, AddressType: discoveryv1.AddressTypeIPv4},
	} {
		if err := admin.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = admin.Delete(context.WithoutCancel(t.Context()), o) })
		box.await(t, true, key)
	}
}

func TestAgentsHearOfClusterNetworkPoliciesWhenTheirDefinitionComes(t *testing.T) {
	box := listen(t)
	box.await(t, true)

	definition := define(t, "clusternetworkpolicies")
	policy := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
		"metadata": map[string]any{"name": "guard"},
		"spec":     map[string]any{"tier": "Admin", "priority": int64(1), "subject": map[string]any{"namespaces": map[string]any{}}},
	}}
	within(t, func(ctx context.Context) error { return admin.Create(ctx, policy.DeepCopy()) })
	guard := event.Key{Kind: event.PolicyKind, Name: "cnp/guard"}
	box.await(t, true, guard)
	remove(t, definition)
	box.await(t, false, guard)
}
