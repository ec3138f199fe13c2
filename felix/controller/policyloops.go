package controller

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/convert"
)

// tierField indexes policies by their tier, nodeField host endpoints by their node.
const (
	tierField = "spec.tier"
	nodeField = "spec.node"
)

// addPolicyLoops gives the manager the loops over policies and what they need.
func addPolicyLoops(ctx context.Context, mgr manager.Manager, c cluster) error {
	if err := errors.Join(indexPolicies(ctx, mgr.GetFieldIndexer()), indexReports(ctx, mgr.GetFieldIndexer())); err != nil {
		return err
	}
	own, global := changes{}, changes{}
	ownLoop := newLoop(c, func() *koratv1.NetworkPolicy { return &koratv1.NetworkPolicy{} }, c.ownPolicy(own))
	globalLoop := newLoop(c, func() *koratv1.GlobalNetworkPolicy { return &koratv1.GlobalNetworkPolicy{} }, c.globalPolicy(global))
	ownLoop.gone, globalLoop.gone = own.forget, global.forget
	ownLoop.again, globalLoop.again = own.settled, global.settled
	hosts := changes{}
	hostLoop := newLoop(c, func() *koratv1.HostEndpoint { return &koratv1.HostEndpoint{} }, c.host(hosts))
	hostLoop.gone, hostLoop.again = hosts.forget, hosts.settled
	spec := builder.WithPredicates(predicate.GenerationChangedPredicate{})
	existence := builder.WithPredicates(predicate.Funcs{UpdateFunc: func(event.UpdateEvent) bool { return false }})
	return errors.Join(
		loopOver(mgr, &koratv1.NetworkPolicy{}).
			Named("korat-networkpolicy"). // Kubernetes' own is networkpolicy
			Watches(&koratv1.Tier{}, each(c.policiesOfTier(&koratv1.NetworkPolicyList{})), existence).
			Watches(&koratv1.NodeNetwork{}, c.told("NetworkPolicy", &koratv1.NetworkPolicyList{})).
			Watches(&corev1.Node{}, each(c.policiesOfNode("NetworkPolicy")), builder.OnlyMetadata, existence).
			Complete(ownLoop),
		loopOver(mgr, &koratv1.GlobalNetworkPolicy{}).
			Watches(&koratv1.Tier{}, each(c.policiesOfTier(&koratv1.GlobalNetworkPolicyList{})), existence).
			Watches(&koratv1.NodeNetwork{}, c.told("GlobalNetworkPolicy", &koratv1.GlobalNetworkPolicyList{})).
			Watches(&corev1.Node{}, each(c.policiesOfNode("GlobalNetworkPolicy")), builder.OnlyMetadata, existence).
			Complete(globalLoop),
		loopOver(mgr, &koratv1.Tier{}).
			Watches(&koratv1.NetworkPolicy{}, each(tierOfPolicy), spec).
			Watches(&koratv1.GlobalNetworkPolicy{}, each(tierOfPolicy), spec).
			Complete(newLoop(c, func() *koratv1.Tier { return &koratv1.Tier{} }, c.tier)),
		loopOver(mgr, &koratv1.HostEndpoint{}).
			Watches(&corev1.Node{}, each(c.hostsOfNode), builder.OnlyMetadata, existence).
			Watches(&koratv1.NodeNetwork{}, each(c.hostsOfNode), builder.WithPredicates(hostsToldAnew)).
			Complete(hostLoop),
	)
}

func indexPolicies(ctx context.Context, index client.FieldIndexer) error {
	tier := func(o client.Object) []string { return []string{tierOf(policySpec(o))} }
	return errors.Join(
		index.IndexField(ctx, &koratv1.NetworkPolicy{}, tierField, tier),
		index.IndexField(ctx, &koratv1.GlobalNetworkPolicy{}, tierField, tier),
		index.IndexField(ctx, &koratv1.HostEndpoint{}, nodeField, func(o client.Object) []string {
			return []string{o.(*koratv1.HostEndpoint).Spec.Node}
		}),
	)
}

// policySpec returns what both kinds of policy have in common.
func policySpec(o client.Object) *koratv1.PolicySpec {
	if p, ok := o.(*koratv1.NetworkPolicy); ok {
		return &p.Spec.PolicySpec
	}
	return &o.(*koratv1.GlobalNetworkPolicy).Spec.PolicySpec
}

func (c cluster) ownPolicy(seen changes) func(context.Context, *koratv1.NetworkPolicy) (change, error) {
	return func(ctx context.Context, p *koratv1.NetworkPolicy) (change, error) {
		_, problems := convert.KoratNetworkPolicy(p)
		exists, err := c.hasTier(ctx, tierOf(&p.Spec.PolicySpec))
		if err != nil {
			return change{}, err
		}
		f := policyProblem(problems, p.Spec.Tier, exists)
		return c.policy(ctx, p, p.Status, f, seen)
	}
}

func (c cluster) globalPolicy(seen changes) func(context.Context, *koratv1.GlobalNetworkPolicy) (change, error) {
	return func(ctx context.Context, p *koratv1.GlobalNetworkPolicy) (change, error) {
		_, problems := convert.GlobalNetworkPolicy(p)
		exists, err := c.hasTier(ctx, tierOf(&p.Spec.PolicySpec))
		if err != nil {
			return change{}, err
		}
		f := policyProblem(problems, p.Spec.Tier, exists)
		return c.policy(ctx, p, p.Status, f, seen)
	}
}

// hasTier says whether there is a tier of this name. Some need no object.
func (c cluster) hasTier(ctx context.Context, name string) (bool, error) {
	if _, builtin := policy.Builtin(name); builtin {
		return true, nil
	}
	return c.has(ctx, &koratv1.Tier{}, name)
}

func (c cluster) has(ctx context.Context, o client.Object, name string) (bool, error) {
	switch err := c.Get(ctx, client.ObjectKey{Name: name}, o); {
	case err == nil:
		return true, nil
	case client.IgnoreNotFound(err) == nil:
		return false, nil
	default:
		return false, fmt.Errorf("%T %s: %w", o, name, err)
	}
}

func (c cluster) tier(ctx context.Context, t *koratv1.Tier) (change, error) {
	var policies koratv1.NetworkPolicyList
	var global koratv1.GlobalNetworkPolicyList
	for _, list := range []client.ObjectList{&policies, &global} {
		if err := c.List(ctx, list, shared, client.MatchingFields{tierField: t.Name}); err != nil {
			return change{}, fmt.Errorf("policies of tier %s: %w", t.Name, err)
		}
	}
	want := tierStatus(t, len(policies.Items)+len(global.Items))
	return change{t.Status, want, t.Status.Conditions, want.Conditions}, nil
}

func (c cluster) policiesOfTier(list client.ObjectList) func(context.Context, client.Object) []client.ObjectKey {
	return func(ctx context.Context, o client.Object) []client.ObjectKey {
		return c.keys(ctx, list.DeepCopyObject().(client.ObjectList), client.MatchingFields{tierField: o.GetName()})
	}
}

func tierOfPolicy(_ context.Context, o client.Object) []client.ObjectKey {
	return []client.ObjectKey{{Name: tierOf(policySpec(o))}}
}

func (c cluster) hostsOfNode(ctx context.Context, o client.Object) []client.ObjectKey {
	return c.keys(ctx, &koratv1.HostEndpointList{}, client.MatchingFields{nodeField: o.GetName()})
}
