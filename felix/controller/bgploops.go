package controller

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	koratv1 "github.com/koratnet/korat/api/v1"
)

// addBGPLoops gives the manager the loops over what configures BGP.
func addBGPLoops(mgr manager.Manager, c cluster) error {
	spec := builder.WithPredicates(predicate.GenerationChangedPredicate{})
	// Names and labels of peers are what advertisements select them by.
	known := builder.WithPredicates(predicate.Or(predicate.GenerationChangedPredicate{}, predicate.LabelChangedPredicate{}))
	labels := builder.WithPredicates(predicate.LabelChangedPredicate{})
	return errors.Join(
		loopOver(mgr, &koratv1.BGPPeer{}).
			Watches(&koratv1.BGPPeer{}, each(c.everyPeer), spec). // they may conflict
			Watches(&koratv1.BGPFilter{}, each(c.everyPeer), spec).
			Watches(&corev1.Node{}, each(c.everyPeer), builder.OnlyMetadata, labels).
			Watches(&koratv1.NodeNetwork{}, each(peersOfNode), builder.WithPredicates(sessionsChanged)).
			Complete(newLoop(c, func() *koratv1.BGPPeer { return &koratv1.BGPPeer{} }, c.peer)),
		loopOver(mgr, &koratv1.BGPFilter{}).
			Watches(&koratv1.BGPPeer{}, each(c.everyFilter), spec).
			Complete(newLoop(c, func() *koratv1.BGPFilter { return &koratv1.BGPFilter{} }, c.filter)),
		loopOver(mgr, &koratv1.BGPAdvertisement{}).
			Watches(&koratv1.BGPPeer{}, each(c.everyAdvertisement), known).
			Watches(&koratv1.IPPool{}, each(c.everyAdvertisement), spec).
			Watches(&corev1.Node{}, each(c.everyAdvertisement), builder.OnlyMetadata, labels).
			Complete(newLoop(c, func() *koratv1.BGPAdvertisement { return &koratv1.BGPAdvertisement{} }, c.advertisement)),
		loopOver(mgr, &koratv1.BGPConfiguration{}).
			Complete(newLoop(c, func() *koratv1.BGPConfiguration { return &koratv1.BGPConfiguration{} }, c.configuration)),
	)
}

func (c cluster) peer(ctx context.Context, p *koratv1.BGPPeer) (change, error) {
	var peers koratv1.BGPPeerList
	var filters koratv1.BGPFilterList
	var networks koratv1.NodeNetworkList
	nodes := nodeList()
	if err := c.lists(ctx, &peers, &filters, &networks, nodes); err != nil {
		return change{}, err
	}
	want := peerStatus(p, surroundings{peers.Items, filters.Items, joined(nodes.Items, networks.Items)})
	return change{p.Status, want, p.Status.Conditions, want.Conditions}, nil
}

func (c cluster) filter(ctx context.Context, f *koratv1.BGPFilter) (change, error) {
	var peers koratv1.BGPPeerList
	if err := c.lists(ctx, &peers); err != nil {
		return change{}, err
	}
	want := filterStatus(f, peers.Items)
	return change{f.Status, want, f.Status.Conditions, want.Conditions}, nil
}

func (c cluster) advertisement(ctx context.Context, a *koratv1.BGPAdvertisement) (change, error) {
	var peers koratv1.BGPPeerList
	var pools koratv1.IPPoolList
	nodes := nodeList()
	if err := c.lists(ctx, &peers, &pools, nodes); err != nil {
		return change{}, err
	}
	want := advertisementStatus(a, peers.Items, pools.Items, joined(nodes.Items, nil))
	return change{a.Status, want, a.Status.Conditions, want.Conditions}, nil
}

func (c cluster) configuration(_ context.Context, b *koratv1.BGPConfiguration) (change, error) {
	is, want := b.Status.Conditions, configurationConditions(b)
	return change{conditionsOnly{is}, conditionsOnly{want}, is, want}, nil
}

func nodeList() *metav1.PartialObjectMetadataList {
	nodes := &metav1.PartialObjectMetadataList{}
	nodes.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("NodeList"))
	return nodes
}

// lists reads lists from the cache.
func (c cluster) lists(ctx context.Context, lists ...client.ObjectList) error {
	for _, list := range lists {
		if err := c.List(ctx, list, shared); err != nil {
			return fmt.Errorf("%T: %w", list, err)
		}
	}
	return nil
}

func (c cluster) everyPeer(ctx context.Context, _ client.Object) []client.ObjectKey {
	return c.keys(ctx, &koratv1.BGPPeerList{})
}

func (c cluster) everyFilter(ctx context.Context, _ client.Object) []client.ObjectKey {
	return c.keys(ctx, &koratv1.BGPFilterList{})
}

func (c cluster) everyAdvertisement(ctx context.Context, _ client.Object) []client.ObjectKey {
	return c.keys(ctx, &koratv1.BGPAdvertisementList{})
}
