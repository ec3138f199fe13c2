package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/policy/convert"
)

// What failed is tried again after firstRetry, doubling to lastRetry.
const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = 30 * time.Second
)

// poolField indexes blocks by their pool.
const poolField = "spec.pool"

// shared: lists come from the cache as they are there, so nobody changes them.
const shared = client.UnsafeDisableDeepCopy

// cluster reads the cache for the loops.
type cluster struct {
	client.Client
	silence time.Duration // after which an agent is not heard of
}

// addLoops gives the manager its loops. Each says what it watches and which of
// its objects a change of another kind concerns.
func addLoops(ctx context.Context, mgr manager.Manager, silence time.Duration) error {
	c := cluster{mgr.GetClient(), silence}
	err := mgr.GetFieldIndexer().IndexField(ctx, &koratv1.Block{}, poolField, func(o client.Object) []string {
		return []string{o.(*koratv1.Block).Spec.Pool}
	})
	if err != nil {
		return err
	}
	f, err := newForecasts(metrics.Registry)
	if err != nil {
		return err
	}
	spec := builder.WithPredicates(predicate.GenerationChangedPredicate{})
	return errors.Join(
		loopOver(mgr, &koratv1.IPPool{}).
			Watches(&koratv1.IPPool{}, each(c.everyPool), spec). // they may overlap
			Watches(&koratv1.IPReservation{}, each(c.everyPool), spec).
			Watches(&koratv1.Block{}, each(poolOfBlock)).
			Watches(&corev1.Service{}, each(c.poolsOfService)).
			Watches(&koratv1.NodeNetwork{}, each(c.everyPool), builder.WithPredicates(modesChanged)).
			Complete(c.pools(mgr, f)),
		loopOver(mgr, &koratv1.IPReservation{}).
			Watches(&koratv1.IPPool{}, each(c.everyReservation), spec).
			Complete(newLoop(c, func() *koratv1.IPReservation { return &koratv1.IPReservation{} }, c.reservation)),
		loopOver(mgr, &koratv1.Block{}).
			Watches(&koratv1.IPPool{}, each(c.blocksOfPool), spec).
			Complete(newLoop(c, func() *koratv1.Block { return &koratv1.Block{} }, c.block)),
		addBGPLoops(mgr, c),
		loopOver(mgr, &koratv1.NodeConfiguration{}).
			Watches(&corev1.Node{}, each(c.everyNodeConfiguration), builder.OnlyMetadata, builder.WithPredicates(predicate.LabelChangedPredicate{})).
			Complete(newLoop(c, func() *koratv1.NodeConfiguration { return &koratv1.NodeConfiguration{} }, c.nodeConfiguration)),
		loopOver(mgr, &networkingv1.NetworkPolicy{}, spec).
			Complete(reconcile.Func(c.networkPolicy)),
		addPolicyLoops(ctx, mgr, c),
		addBalancers(mgr, c),
	)
}

func loopOver(mgr manager.Manager, o client.Object, opts ...builder.ForOption) *builder.Builder {
	return builder.ControllerManagedBy(mgr).For(o, opts...).WithOptions(loopOptions())
}

func loopOptions() controller.Options {
	return controller.Options{
		RateLimiter: workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](firstRetry, lastRetry),
	}
}

func newLoop[O client.Object](c cluster, fresh func() O, decide func(context.Context, O) (change, error)) *statusLoop[O] {
	return &statusLoop[O]{client: c, fresh: fresh, decide: decide, pacer: pacer{}}
}

// pools makes the loop over pools.
func (c cluster) pools(mgr manager.Manager, f *forecasts) reconcile.Reconciler {
	decide := func(ctx context.Context, p *koratv1.IPPool) (change, error) { return c.pool(ctx, p, f) }
	l := newLoop(c, func() *koratv1.IPPool { return &koratv1.IPPool{} }, decide)
	l.again, l.gone = f.again, f.gone
	return &poolLoop{l, mgr.GetAPIReader()}
}

func (c cluster) pool(ctx context.Context, p *koratv1.IPPool, f *forecasts) (change, error) {
	var pools koratv1.IPPoolList
	var blocks koratv1.BlockList
	var reserved koratv1.IPReservationList
	var services corev1.ServiceList
	if err := c.List(ctx, &pools, shared); err != nil {
		return change{}, fmt.Errorf("pools: %w", err)
	}
	var networks koratv1.NodeNetworkList
	if err := c.List(ctx, &reserved, shared); err != nil {
		return change{}, fmt.Errorf("reservations: %w", err)
	}
	if err := c.List(ctx, &networks, shared); err != nil {
		return change{}, fmt.Errorf("node networks: %w", err)
	}
	if err := c.List(ctx, &blocks, shared, client.MatchingFields{poolField: p.Name}); err != nil {
		return change{}, fmt.Errorf("blocks of pool %s: %w", p.Name, err)
	}
	if err := c.List(ctx, &services, shared); err != nil {
		return change{}, fmt.Errorf("services: %w", err)
	}
	want := poolStatus(p, pools.Items, blocks.Items, reserved.Items)
	countServices(p, &want, services.Items)
	encapsulate(&want, p, networks.Items)
	f.note(p, &want, time.Now())
	return change{p.Status, want, p.Status.Conditions, want.Conditions}, nil
}

// conditionsOnly is the part of a status that the controller owns where another
// writes the rest.
type conditionsOnly struct {
	Conditions []metav1.Condition `json:"conditions"`
}

func (c cluster) block(ctx context.Context, b *koratv1.Block) (change, error) {
	pool := &koratv1.IPPool{}
	if err := c.Get(ctx, types.NamespacedName{Name: b.Spec.Pool}, pool); client.IgnoreNotFound(err) != nil {
		return change{}, fmt.Errorf("pool of block %s: %w", b.Name, err)
	} else if err != nil {
		pool = nil
	}
	is, want := b.Status.Conditions, blockConditions(b, pool)
	return change{conditionsOnly{is}, conditionsOnly{want}, is, want}, nil
}

func (c cluster) nodeConfiguration(ctx context.Context, n *koratv1.NodeConfiguration) (change, error) {
	nodes := nodeList()
	if err := c.List(ctx, nodes, shared); err != nil {
		return change{}, fmt.Errorf("nodes: %w", err)
	}
	want := nodeConfigurationStatus(n, joined(nodes.Items, nil))
	return change{n.Status, want, n.Status.Conditions, want.Conditions}, nil
}

// networkPolicy tells the author of a policy what of it cannot be understood. The
// object has no status to say it in.
func (c cluster) networkPolicy(ctx context.Context, r reconcile.Request) (reconcile.Result, error) {
	var np networkingv1.NetworkPolicy
	if err := c.Get(ctx, r.NamespacedName, &np); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	_, problems := convert.NetworkPolicy(&np)
	return reconcile.Result{}, tell(ctx, c, &np, policyWarnings(np.Generation, problems))
}

// each makes a handler that runs the loop for the objects that keys gives.
func each(keys func(context.Context, client.Object) []client.ObjectKey) handler.EventHandler {
	return handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, o client.Object) []reconcile.Request {
		var out []reconcile.Request
		for _, key := range keys(ctx, o) {
			out = append(out, reconcile.Request{NamespacedName: key})
		}
		return out
	})
}

func poolOfBlock(_ context.Context, o client.Object) []client.ObjectKey {
	return []client.ObjectKey{{Name: o.(*koratv1.Block).Spec.Pool}}
}

func peersOfNode(_ context.Context, o client.Object) []client.ObjectKey {
	var keys []client.ObjectKey
	for _, s := range o.(*koratv1.NodeNetwork).Status.Sessions {
		keys = append(keys, client.ObjectKey{Name: strings.TrimPrefix(s.Peer, koratv1.SessionPeerBGPPeer)})
	}
	return keys
}

func (c cluster) everyPool(ctx context.Context, _ client.Object) []client.ObjectKey {
	return c.keys(ctx, &koratv1.IPPoolList{})
}

func (c cluster) blocksOfPool(ctx context.Context, o client.Object) []client.ObjectKey {
	return c.keys(ctx, &koratv1.BlockList{}, client.MatchingFields{poolField: o.GetName()})
}

func (c cluster) everyNodeConfiguration(ctx context.Context, _ client.Object) []client.ObjectKey {
	return c.keys(ctx, &koratv1.NodeConfigurationList{})
}

// keys returns the names of what the cache lists. Kinds that a loop watches are
// never missing there, so the only error is that of a context that ended.
func (c cluster) keys(ctx context.Context, list client.ObjectList, opts ...client.ListOption) (keys []client.ObjectKey) {
	_ = c.List(ctx, list, append(opts, shared)...)
	_ = meta.EachListItem(list, func(o runtime.Object) error {
		keys = append(keys, client.ObjectKeyFromObject(o.(client.Object)))
		return nil
	})
	return keys
}

var sessionsChanged = predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
	before, after := e.ObjectOld.(*koratv1.NodeNetwork), e.ObjectNew.(*koratv1.NodeNetwork)
	return !slices.Equal(before.Status.Sessions, after.Status.Sessions)
}}
