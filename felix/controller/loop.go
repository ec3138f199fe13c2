package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// pace is the shortest time between two runs of a loop for one object.
const pace = 2 * time.Second

// A statusLoop keeps the status of the objects of one kind. One goroutine runs it.
type statusLoop[O client.Object] struct {
	client client.Client
	fresh  func() O
	// decide reads the cache and says what the status of o has to be. It does not
	// change o, which is the cache's.
	decide func(ctx context.Context, o O) (change, error)
	pacer  pacer

	// Both may be nil. again says when to decide anew also if nothing changes, 0 for
	// never; gone is told of objects that are no more.
	again func(o client.ObjectKey, now time.Time) time.Duration
	gone  func(o client.ObjectKey)
}

// A change is the part of an object's status that a loop owns, as it is and as it
// has to be; nothing else of the object is touched. The two are of one type.
type change struct {
	is, want      any
	before, after []metav1.Condition // in them
}

// Reconcile brings the status of one object up to date. Events are written
// first: killed in between, the next run finds the same to say and says it once.
func (l *statusLoop[O]) Reconcile(ctx context.Context, r reconcile.Request) (reconcile.Result, error) {
	if left := l.pacer.left(r.NamespacedName, time.Now()); left > 0 {
		return reconcile.Result{RequeueAfter: left}, nil
	}
	o := l.fresh()
	if err := l.client.Get(ctx, r.NamespacedName, o); err != nil {
		l.pacer.forget(r.NamespacedName)
		if l.gone != nil {
			l.gone(r.NamespacedName)
		}
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	c, err := l.decide(ctx, o)
	if err != nil {
		return reconcile.Result{}, err
	}
	later := reconcile.Result{}
	if l.again != nil {
		later.RequeueAfter = l.again(r.NamespacedName, time.Now())
	}
	if equality.Semantic.DeepEqual(c.is, c.want) {
		return later, nil
	}
	if err := tell(ctx, l.client, o, conditionWarnings(o.GetResourceVersion(), c.before, c.after)); err != nil {
		return reconcile.Result{}, err
	}
	if err := l.write(ctx, o, c.want); err != nil {
		return reconcile.Result{}, err
	}
	return later, nil
}

// write merges status into that of o, unless o was deleted and made anew.
func (l *statusLoop[O]) write(ctx context.Context, o O, status any) error {
	patch, err := statusPatch(o, status, "")
	if err != nil {
		return err
	}
	into := o.DeepCopyObject().(O)
	err = l.client.Status().Patch(ctx, into, client.RawPatch(types.MergePatchType, patch))
	return client.IgnoreNotFound(err)
}

// statusPatch is a merge patch of the status of o, and of no other object of its
// name; of o only as it was at version, unless that is empty.
func statusPatch(o client.Object, status any, version string) ([]byte, error) {
	identity := map[string]any{"uid": o.GetUID()}
	if version != "" {
		identity["resourceVersion"] = version
	}
	patch, err := json.Marshal(map[string]any{"metadata": identity, "status": status})
	if err != nil {
		return nil, fmt.Errorf("bug: status as JSON: %w", err)
	}
	return patch, nil
}

// A pacer spaces the runs of a loop for each object.
type pacer map[client.ObjectKey]time.Time // when it last ran

// left returns how long to wait before running for o. If that is no time, the
// run counts as done now.
func (p pacer) left(o client.ObjectKey, now time.Time) time.Duration {
	if last, ran := p[o]; ran && now.Sub(last) < pace {
		return pace - now.Sub(last)
	}
	p[o] = now
	return 0
}

func (p pacer) forget(o client.ObjectKey) { delete(p, o) }
