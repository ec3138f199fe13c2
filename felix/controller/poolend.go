package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	koratv1 "github.com/koratnet/korat/api/v1"
)

// lastClaims is how long a pool is kept, from when it was deleted, for agents to
// hear of that: until then one may claim a block of it.
const lastClaims = 5 * time.Second

// poolLoop keeps the status of pools, and holds one that is deleted until nobody
// has a block of it: what covers live addresses, such as who is hidden behind a
// node, follows from the pools there are.
type poolLoop struct {
	*statusLoop[*koratv1.IPPool]
	server client.Reader // asked before a pool is let go
}

// Reconcile brings one pool up to date.
func (l *poolLoop) Reconcile(ctx context.Context, r reconcile.Request) (reconcile.Result, error) {
	var p koratv1.IPPool
	if err := l.client.Get(ctx, r.NamespacedName, &p); client.IgnoreNotFound(err) != nil {
		return reconcile.Result{}, err
	} else if err == nil {
		after, err := l.hold(ctx, &p, time.Now())
		if err != nil {
			return reconcile.Result{}, fmt.Errorf("pool %s: %w", p.Name, err)
		}
		if after > 0 {
			result, err := l.statusLoop.Reconcile(ctx, r)
			if result.RequeueAfter == 0 || after < result.RequeueAfter {
				result.RequeueAfter = after
			}
			return result, err
		}
	}
	return l.statusLoop.Reconcile(ctx, r)
}

// hold sets the finalizer of a pool that lives, and takes it from one that is
// deleted and empty. It returns when to look again, 0 for no need.
func (l *poolLoop) hold(ctx context.Context, p *koratv1.IPPool, now time.Time) (time.Duration, error) {
	held := slices.Contains(p.Finalizers, koratv1.PoolFinalizer)
	switch {
	case p.DeletionTimestamp == nil && !held:
		return 0, l.setFinalizers(ctx, p, append(slices.Clone(p.Finalizers), koratv1.PoolFinalizer))
	case p.DeletionTimestamp == nil || !held:
		return 0, nil
	}
	if wait := lastClaims - now.Sub(p.DeletionTimestamp.Time); wait > 0 {
		return wait, nil
	}
	empty, err := l.empty(ctx, p)
	if err != nil || !empty {
		return lastClaims, err
	}
	rest := slices.DeleteFunc(slices.Clone(p.Finalizers), func(f string) bool { return f == koratv1.PoolFinalizer })
	return 0, l.setFinalizers(ctx, p, rest)
}

// empty reports whether no service has an address of the pool, and no block of it is
// left: in the cache, and then on the API server itself. What is no claim holds
// nothing.
func (l *poolLoop) empty(ctx context.Context, p *koratv1.IPPool) (bool, error) {
	holds := func(b koratv1.Block) bool { return b.Spec.Pool == p.Name && blockProblem(&b, p).reason == "" }
	var services corev1.ServiceList
	if err := l.client.List(ctx, &services, shared); err != nil {
		return false, err
	}
	cidr, _ := poolRange(p)
	for i := range services.Items {
		if slices.ContainsFunc(assigned(&services.Items[i]), cidr.Contains) {
			return false, nil
		}
	}
	var cached koratv1.BlockList
	if err := l.client.List(ctx, &cached, shared, client.MatchingFields{poolField: p.Name}); err != nil || slices.ContainsFunc(cached.Items, holds) {
		return false, err
	}
	for next := ""; ; {
		var page koratv1.BlockList
		if err := l.server.List(ctx, &page, client.Limit(podsAtOnce), client.Continue(next)); err != nil {
			return false, err
		}
		if slices.ContainsFunc(page.Items, holds) {
			return false, nil
		}
		if next = page.Continue; next == "" {
			return true, nil
		}
	}
}

func (l *poolLoop) setFinalizers(ctx context.Context, p *koratv1.IPPool, want []string) error {
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": p.UID, "resourceVersion": p.ResourceVersion, "finalizers": want},
	})
	if err != nil {
		return fmt.Errorf("bug: finalizers as JSON: %w", err)
	}
	err = l.client.Patch(ctx, p.DeepCopy(), client.RawPatch(types.MergePatchType, patch))
	if apierrors.IsConflict(err) { // changed meanwhile: the watch brings it again
		return nil
	}
	return client.IgnoreNotFound(err)
}
