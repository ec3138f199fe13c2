package controller

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/ipam/vip"
)

// balancersPace is the shortest time between two looks at all services, longer
// after one that failed; and how soon it is tried again while the cache is behind.
const (
	balancersPace = 100 * time.Millisecond
	cacheBehind   = 200 * time.Millisecond
)

// balancers gives addresses to services of type LoadBalancer. It decides about all
// of them at once, since they take addresses from each other: whatever changed,
// the one request of its queue is made. Statuses of services are all the books that
// there are, so a new leader first waits until its cache has all that the last one
// may have written.
type balancers struct {
	cluster
	server client.Reader
	last   time.Time // when it last looked
	begun  bool      // the cache has caught up

	// written has, by UID, what was written over a version of a service: while the
	// cache still has that version, it counts instead.
	written map[types.UID]writtenStatus
}

type writtenStatus struct {
	over   string // resource version
	status corev1.ServiceStatus
}

func addBalancers(mgr manager.Manager, c cluster) error {
	all := func(context.Context, client.Object) []client.ObjectKey { return []client.ObjectKey{{Name: "all"}} }
	spec := builder.WithPredicates(predicate.GenerationChangedPredicate{})
	labels := builder.WithPredicates(predicate.LabelChangedPredicate{})
	return builder.ControllerManagedBy(mgr).Named("balancers").WithOptions(loopOptions()).
		Watches(&corev1.Service{}, each(all)).
		Watches(&koratv1.IPPool{}, each(all), spec).
		Watches(&koratv1.IPReservation{}, each(all), spec).
		Watches(&koratv1.BGPConfiguration{}, each(all), spec).
		Watches(&corev1.Namespace{}, each(all), builder.OnlyMetadata, labels).
		Complete(&balancers{cluster: c, server: mgr.GetAPIReader(), written: map[types.UID]writtenStatus{}})
}

// Reconcile looks at all services.
func (b *balancers) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	if wait := balancersPace - time.Since(b.last); wait > 0 {
		return reconcile.Result{RequeueAfter: wait}, nil
	}
	b.last = time.Now()
	var services corev1.ServiceList
	if err := b.List(ctx, &services, shared); err != nil {
		return reconcile.Result{}, fmt.Errorf("services: %w", err)
	}
	if !b.begun {
		caught, err := b.caughtUp(ctx, services.Items)
		if err != nil || !caught {
			return reconcile.Result{RequeueAfter: cacheBehind}, err
		}
		b.begun = true
	}
	world, err := b.world(ctx)
	if err != nil {
		return reconcile.Result{}, err
	}
	var errs []error
	for _, d := range world.decide(b.current(services.Items)) {
		if err := b.write(ctx, d); err != nil {
			errs = append(errs, fmt.Errorf("service %s/%s: %w", d.service.Namespace, d.service.Name, err))
		}
	}
	return reconcile.Result{}, errors.Join(errs...)
}

// caughtUp reports whether the cache is not behind the API server in what services
// have. The leader before this one has stopped.
func (b *balancers) caughtUp(ctx context.Context, cached []corev1.Service) (bool, error) {
	versions := map[types.UID]uint64{}
	for i := range cached {
		versions[cached[i].UID] = version(&cached[i])
	}
	for next := ""; ; {
		var page corev1.ServiceList
		if err := b.server.List(ctx, &page, client.Limit(podsAtOnce), client.Continue(next)); err != nil {
			return false, fmt.Errorf("services: %w", err)
		}
		for i := range page.Items {
			if s := &page.Items[i]; len(s.Status.LoadBalancer.Ingress) > 0 && versions[s.UID] < version(s) {
				return false, nil
			}
		}
		if next = page.Continue; next == "" {
			return true, nil
		}
	}
}

// version is the resource version as the number that it is.
func version(o client.Object) uint64 {
	n, _ := strconv.ParseUint(o.GetResourceVersion(), 10, 64)
	return n
}

// current returns the services with what was written to them, which the cache may
// not have heard of yet. Only copies are changed.
func (b *balancers) current(cached []corev1.Service) []*corev1.Service {
	there := make(map[types.UID]struct{}, len(cached))
	all := make([]*corev1.Service, len(cached))
	for i := range cached {
		s := &cached[i]
		there[s.UID] = struct{}{}
		if w, ok := b.written[s.UID]; ok && w.over == s.ResourceVersion {
			s = &corev1.Service{TypeMeta: s.TypeMeta, ObjectMeta: s.ObjectMeta, Spec: s.Spec, Status: w.status}
		} else {
			delete(b.written, s.UID)
		}
		all[i] = s
	}
	for uid := range b.written {
		if _, ok := there[uid]; !ok {
			delete(b.written, uid)
		}
	}
	return all
}

// write brings the status of a service up to date, unless the service has changed
// since it was decided: then it is decided again.
func (b *balancers) write(ctx context.Context, d decision) error {
	s := d.service
	if _, ok := b.written[s.UID]; ok {
		return nil // the cache is to hear of that first, and then this is decided again
	}
	if err := tell(ctx, b.Client, s, conditionWarnings(s.ResourceVersion, s.Status.Conditions, d.conditions)); err != nil {
		return err
	}
	type loadBalancer struct {
		Ingress []corev1.LoadBalancerIngress `json:"ingress"` // an empty list takes away what is there
	}
	status := struct {
		LoadBalancer loadBalancer       `json:"loadBalancer"`
		Conditions   []metav1.Condition `json:"conditions"`
	}{loadBalancer{d.ingress}, d.conditions}
	patch, err := statusPatch(s, status, s.ResourceVersion)
	if err != nil {
		return err
	}
	err = b.Status().Patch(ctx, s.DeepCopy(), client.RawPatch(types.MergePatchType, patch))
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil // the watch brings it
	}
	if err != nil {
		return err
	}
	b.written[s.UID] = writtenStatus{s.ResourceVersion, corev1.ServiceStatus{
		LoadBalancer: corev1.LoadBalancerStatus{Ingress: d.ingress}, Conditions: d.conditions,
	}}
	return nil
}

// decision is what is to change of a service's status.
type decision struct {
	service    *corev1.Service
	ingress    []corev1.LoadBalancerIngress
	conditions []metav1.Condition
}

// decide returns what of the statuses of services has to change.
func (w *balancerWorld) decide(all []*corev1.Service) (changes []decision) {
	var mine []*corev1.Service
	var asks []vip.Service
	for _, s := range all {
		switch {
		case w.concerns(s):
			mine, asks = append(mine, s), append(asks, w.ask(s))
		case meta.FindStatusCondition(s.Status.Conditions, koratv1.ConditionAddressAssigned) != nil:
			changes = append(changes, letGo(s))
		}
	}
	for i, g := range vip.Plan(asks, w.pools, w.reserved) {
		d := granted(mine[i], g, w.problem(mine[i]))
		if !equality.Semantic.DeepEqual(d.ingress, mine[i].Status.LoadBalancer.Ingress) || !equality.Semantic.DeepEqual(d.conditions, mine[i].Status.Conditions) {
			changes = append(changes, d)
		}
	}
	return changes
}

// letGo takes back what this controller once gave to a service that is not its any
// more. That the condition is there says that it was.
func letGo(s *corev1.Service) decision {
	d := decision{service: s, conditions: slices.Clone(s.Status.Conditions)}
	meta.RemoveStatusCondition(&d.conditions, koratv1.ConditionAddressAssigned)
	return d
}

func granted(s *corev1.Service, g vip.Grant, problem finding) decision {
	d := decision{service: s, conditions: slices.Clone(s.Status.Conditions)}
	for _, a := range g.Addrs {
		d.ingress = append(d.ingress, corev1.LoadBalancerIngress{IP: a.String(), IPMode: ptr(corev1.LoadBalancerIPModeVIP)})
	}
	f := finding{koratv1.ReasonAssigned, ""}
	switch {
	case problem.reason != "":
		f = problem
	case g.Reason != "":
		f = finding{string(g.Reason), g.Message}
	}
	meta.SetStatusCondition(&d.conditions, f.condition(koratv1.ConditionAddressAssigned, f.reason == koratv1.ReasonAssigned, s.Generation))
	return d
}

// families returns the address lengths that a service wants, and whether those
// after the first are only nice to have.
func families(s *corev1.Service) (lengths []int, lenient bool) {
	for _, f := range s.Spec.IPFamilies {
		length := 32
		if f == corev1.IPv6Protocol {
			length = 128
		}
		lengths = append(lengths, length)
	}
	return lengths, s.Spec.IPFamilyPolicy != nil && *s.Spec.IPFamilyPolicy == corev1.IPFamilyPolicyPreferDualStack
}

// addressesOf returns the addresses in a service's status.
func addressesOf(s *corev1.Service) (addrs []netip.Addr) {
	for _, in := range s.Status.LoadBalancer.Ingress {
		if a, err := netip.ParseAddr(in.IP); err == nil {
			addrs = append(addrs, a)
		}
	}
	return addrs
}

// assigned returns the addresses of s that this controller gave it.
func assigned(s *corev1.Service) []netip.Addr {
	if meta.FindStatusCondition(s.Status.Conditions, koratv1.ConditionAddressAssigned) == nil {
		return nil
	}
	return addressesOf(s)
}

// poolsOfService returns the pools that a service has addresses of.
func (c cluster) poolsOfService(ctx context.Context, o client.Object) (keys []client.ObjectKey) {
	addrs := assigned(o.(*corev1.Service))
	if len(addrs) == 0 {
		return nil
	}
	var pools koratv1.IPPoolList
	if err := c.List(ctx, &pools, shared); err != nil {
		return nil // the cache has none before it has all
	}
	for i := range pools.Items {
		cidr, _ := poolRange(&pools.Items[i])
		if slices.ContainsFunc(addrs, cidr.Contains) {
			keys = append(keys, client.ObjectKey{Name: pools.Items[i].Name})
		}
	}
	return keys
}
