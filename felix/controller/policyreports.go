package controller

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	koratv1 "github.com/koratnet/korat/api/v1"
)

// policiesField indexes NodeNetworks by the policies that they tell of,
// silentField those whose agent is silent.
const (
	policiesField = "status.policies"
	silentField   = "silent"
)

func indexReports(ctx context.Context, index client.FieldIndexer) error {
	err := index.IndexField(ctx, &koratv1.NodeNetwork{}, policiesField, func(o client.Object) (names []string) {
		for _, p := range o.(*koratv1.NodeNetwork).Status.Policies {
			names = append(names, nameOf(p.Kind, p.Namespace, p.Name))
		}
		return names
	})
	if err != nil {
		return err
	}
	return index.IndexField(ctx, &koratv1.NodeNetwork{}, silentField, func(o client.Object) []string {
		if isSilent(o.(*koratv1.NodeNetwork)) {
			return []string{"true"}
		}
		return nil
	})
}

func nameOf(kind, namespace, name string) string { return kind + "/" + namespace + "/" + name }

// kindOf returns how NodeNetworks call the kind of a policy.
func kindOf(o client.Object) string {
	if _, ok := o.(*koratv1.NetworkPolicy); ok {
		return "NetworkPolicy"
	}
	return "GlobalNetworkPolicy"
}

// policy says what the status of a policy has to be: f is why not all of it is in
// use, and the nodes have told the rest.
func (c cluster) policy(ctx context.Context, o client.Object, is koratv1.PolicyStatus, f finding, seen changes) (change, error) {
	now := time.Now()
	at := seen.of(o, is.Conditions, now)
	r := reports{
		generation: o.GetGeneration(), fresh: now.Sub(at) < settle,
		staged: policySpec(o).Enforcement == koratv1.Staged,
	}
	var err error
	if r.uses, err = c.uses(ctx, o); err != nil {
		return change{}, err
	}
	if r.unheard, err = c.unheard(ctx, o, at); err != nil {
		return change{}, err
	}
	want := r.count(accepted(is.Conditions, f, r.generation))
	return change{partOf(is), want, worthTelling(is.Conditions), worthTelling(want.Conditions)}, nil
}

// worthTelling leaves out that a policy is not in every kernel, unless a kernel
// refuses it: for a moment that is so after every change, and no reason to worry.
func worthTelling(conditions []metav1.Condition) []metav1.Condition {
	return slices.DeleteFunc(slices.Clone(conditions), func(c metav1.Condition) bool {
		return c.Type == koratv1.ConditionProgrammed && c.Reason != koratv1.ReasonKernelError
	})
}

// uses returns what the nodes of the cluster say of a policy.
func (c cluster) uses(ctx context.Context, o client.Object) ([]use, error) {
	var list koratv1.NodeNetworkList
	key := koratv1.NodePolicyStatus{Kind: kindOf(o), Namespace: o.GetNamespace(), Name: o.GetName()}
	err := c.List(ctx, &list, shared, client.MatchingFields{policiesField: nameOf(key.Kind, key.Namespace, key.Name)})
	if err != nil {
		return nil, fmt.Errorf("nodes with policy %s: %w", key.Name, err)
	}
	var uses []use
	for i := range list.Items {
		n := &list.Items[i]
		at, found := slices.BinarySearchFunc(n.Status.Policies, key, comparePolicies)
		if !found {
			continue // not in the order that is promised
		}
		exists, err := c.hasNode(ctx, n.Name)
		if err != nil {
			return nil, err
		}
		if exists {
			uses = append(uses, use{n.Name, isSilent(n), n.Status.Policies[at]})
		}
	}
	return uses, nil
}

func comparePolicies(a, b koratv1.NodePolicyStatus) int {
	return cmp.Or(strings.Compare(a.Kind, b.Kind), strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
}

// unheard returns the nodes that say nothing of a policy, and that were silent
// already when it changed.
func (c cluster) unheard(ctx context.Context, o client.Object, changed time.Time) (names []string, err error) {
	var list koratv1.NodeNetworkList
	if err := c.List(ctx, &list, shared, client.MatchingFields{silentField: "true"}); err != nil {
		return nil, fmt.Errorf("silent nodes: %w", err)
	}
	key := koratv1.NodePolicyStatus{Kind: kindOf(o), Namespace: o.GetNamespace(), Name: o.GetName()}
	for i := range list.Items {
		n := &list.Items[i]
		if _, tells := slices.BinarySearchFunc(n.Status.Policies, key, comparePolicies); tells {
			continue
		}
		since := n.Status.Conditions[0].LastTransitionTime.Add(-c.silence)
		exists, err := c.hasNode(ctx, n.Name)
		if err != nil {
			return nil, err
		}
		if exists && !changed.Before(since) {
			names = append(names, n.Name)
		}
	}
	return names, nil
}

func (c cluster) hasNode(ctx context.Context, name string) (bool, error) {
	node := &metav1.PartialObjectMetadata{}
	node.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Node"))
	return c.has(ctx, node, name)
}

// policiesOfNode returns those of a kind of which a node tells that came or went.
func (c cluster) policiesOfNode(kind string) func(context.Context, client.Object) []client.ObjectKey {
	return func(ctx context.Context, o client.Object) (keys []client.ObjectKey) {
		n := &koratv1.NodeNetwork{}
		if err := c.Get(ctx, client.ObjectKeyFromObject(o), n); err != nil {
			return nil // it tells of nothing
		}
		for key := range differences(kind, &koratv1.NodeNetwork{}, n) {
			keys = append(keys, key)
		}
		return keys
	}
}

// told makes a handler that runs the loop over policies of a kind for those of
// which a node now says something else, and for all when an agent falls silent or
// is heard of again.
func (c cluster) told(kind string, all client.ObjectList) handler.EventHandler {
	type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]
	tell := func(ctx context.Context, q queue, was, is *koratv1.NodeNetwork) {
		for name := range differences(kind, was, is) {
			q.Add(reconcile.Request{NamespacedName: name})
		}
		if isSilent(was) != isSilent(is) {
			for _, key := range c.keys(ctx, all.DeepCopyObject().(client.ObjectList)) {
				q.Add(reconcile.Request{NamespacedName: key})
			}
		}
	}
	nothing := &koratv1.NodeNetwork{}
	return handler.Funcs{
		CreateFunc: func(ctx context.Context, e event.CreateEvent, q queue) {
			tell(ctx, q, nothing, e.Object.(*koratv1.NodeNetwork))
		},
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, q queue) {
			tell(ctx, q, e.ObjectOld.(*koratv1.NodeNetwork), e.ObjectNew.(*koratv1.NodeNetwork))
		},
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, q queue) {
			tell(ctx, q, e.Object.(*koratv1.NodeNetwork), nothing)
		},
	}
}

// differences returns the policies of a kind of which two states of a node do not
// say the same.
func differences(kind string, was, is *koratv1.NodeNetwork) map[client.ObjectKey]struct{} {
	before := map[koratv1.NodePolicyStatus]struct{}{}
	for _, p := range was.Status.Policies {
		before[p] = struct{}{}
	}
	out := map[client.ObjectKey]struct{}{}
	note := func(p koratv1.NodePolicyStatus) {
		if p.Kind == kind {
			out[client.ObjectKey{Namespace: p.Namespace, Name: p.Name}] = struct{}{}
		}
	}
	for _, p := range is.Status.Policies {
		if _, same := before[p]; same {
			delete(before, p)
		} else {
			note(p)
		}
	}
	for p := range before {
		note(p)
	}
	return out
}
