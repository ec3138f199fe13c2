// Package watch is the letterbox for the API server: it turns objects into
// events. It watches whole kinds, never lists per event, and loses nothing
// over a reconnect: a relist is compared with what was known.
//
// When the API server goes away the last state stays; the engine is not told.
package watch

import (
	"context"
	"log/slog"
	"math"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	policyv1alpha1 "sigs.k8s.io/network-policy-api/apis/v1alpha1"
	policyv1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/felix/kube"
	"github.com/koratnet/korat/policy/convert"
)

// A lost watch is retried after firstRetry, doubling to lastRetry, each time
// with jitter, so that a cluster's agents do not come back as one wave.
const (
	firstRetry = 200 * time.Millisecond
	lastRetry  = 10 * time.Second
)

// Box is where events go. felix/event/mailbox implements it.
type Box interface {
	Post(...event.Event)
	Synced(event.Source)
}

// feed is one watched resource.
type feed struct {
	client   rest.Interface
	resource string
	object   runtime.Object
	kind     event.Kind
	convert  func(any) (string, event.Value)
	absent   event.Value // what holds for an object that does not exist; usually nil
}

// feeds are the resources that every cluster serves that Korat is installed in.
func feeds(c *kube.Clients) []feed {
	return []feed{
		{c.Core, "namespaces", &corev1.Namespace{}, event.NamespaceKind, namespace, nil},
		{c.Core, "nodes", &corev1.Node{}, event.NodeKind, node, nil},
		{c.Core, "pods", &corev1.Pod{}, event.PodKind, pod, nil},
		{c.Core, "serviceaccounts", &corev1.ServiceAccount{}, event.ServiceAccountKind, serviceAccount, nil},
		{c.Core, "services", &corev1.Service{}, event.ServiceKind, service, nil},
		{c.Discovery, "endpointslices", &discoveryv1.EndpointSlice{}, event.EndpointSliceKind, endpointSlice, nil},
		{c.Networking, "networkpolicies", &networkingv1.NetworkPolicy{}, event.PolicyKind, policyOf(convert.NetworkPolicy), nil},
		{c.Korat, "ippools", &koratv1.IPPool{}, event.PoolKind, pool, nil},
		{c.Korat, "ipreservations", &koratv1.IPReservation{}, event.ReservationKind, reservation, nil},
		{c.Korat, "blocks", &koratv1.Block{}, event.BlockKind, block, nil},
		{c.Korat, "nodenetworks", &koratv1.NodeNetwork{}, event.NodeNetworkKind, nodeNetwork, nil},
		{c.Korat, "bgppeers", &koratv1.BGPPeer{}, event.PeerKind, bgpPeer, nil},
		{c.Korat, "bgpfilters", &koratv1.BGPFilter{}, event.FilterKind, bgpFilter, nil},
		{c.Korat, "bgpadvertisements", &koratv1.BGPAdvertisement{}, event.AdvertisementKind, bgpAdvertisement, nil},
		{c.Korat, "bgpconfigurations", &koratv1.BGPConfiguration{}, event.BGPKind, bgpConfiguration, bgpDefaults},
		{c.Korat, "nodeconfigurations", &koratv1.NodeConfiguration{}, event.NodeConfigurationKind, nodeConfiguration, nil},
		{c.Korat, "tiers", &koratv1.Tier{}, event.TierKind, tier, nil},
		{c.Korat, "networksets", &koratv1.NetworkSet{}, event.NetworkSetKind, networkSet, nil},
		{c.Korat, "globalnetworksets", &koratv1.GlobalNetworkSet{}, event.NetworkSetKind, globalNetworkSet, nil},
		{c.Korat, "hostendpoints", &koratv1.HostEndpoint{}, event.HostEndpointKind, hostEndpoint, nil},
		{c.Korat, "networkpolicies", &koratv1.NetworkPolicy{}, event.PolicyKind, policyOf(convert.KoratNetworkPolicy), nil},
		{c.Korat, "globalnetworkpolicies", &koratv1.GlobalNetworkPolicy{}, event.PolicyKind, policyOf(convert.GlobalNetworkPolicy), nil},
	}
}

// guests are the resources that a cluster may have.
func guests(c *kube.Clients) []guest {
	return []guest{
		{feed{
			c.PolicyV1alpha2, "clusternetworkpolicies", &policyv1alpha2.ClusterNetworkPolicy{},
			event.PolicyKind, policyOf(convert.ClusterNetworkPolicy), nil,
		}, "clusternetworkpolicies.policy.networking.k8s.io"},
		{feed{
			c.PolicyV1alpha1, "adminnetworkpolicies", &policyv1alpha1.AdminNetworkPolicy{},
			event.PolicyKind, policyOf(convert.AdminNetworkPolicy), nil,
		}, "adminnetworkpolicies.policy.networking.k8s.io"},
		{feed{
			c.PolicyV1alpha1, "baselineadminnetworkpolicies", &policyv1alpha1.BaselineAdminNetworkPolicy{},
			event.PolicyKind, policyOf(convert.BaselineAdminNetworkPolicy), nil,
		}, "baselineadminnetworkpolicies.policy.networking.k8s.io"},
	}
}

// Run posts what the API server knows to box until ctx ends, and box.Synced
// once every resource that the cluster has was listed. Secrets that BGP objects
// name are of that namespace. It returns ctx's error: an API server that is away
// is waited for.
func Run(ctx context.Context, clients *kube.Clients, namespace string, box Box, log *slog.Logger) error {
	klog.SetSlogLogger(log)
	box.Post(event.Set(koratv1.BGPConfigurationName, bgpDefaults)) // a listed object replaces it before Synced
	var listed sync.WaitGroup
	g, ctx := errgroup.WithContext(ctx)
	passwords := newSecrets(clients.Core, namespace, box.Post)
	run := func(f feed, watch func(context.Context, *letterbox)) {
		listed.Add(1)
		store := &letterbox{kind: f.kind, convert: f.convert, absent: f.absent, post: passwords.hear, synced: listed.Done, known: map[string]struct{}{}}
		g.Go(func() error {
			watch(ctx, store)
			return context.Cause(ctx)
		})
	}
	for _, f := range feeds(clients) {
		run(f, func(ctx context.Context, store *letterbox) { reflector(f, store).RunWithContext(ctx) })
	}
	for _, v := range guests(clients) {
		run(v.feed, func(ctx context.Context, store *letterbox) { v.run(ctx, clients.Metadata, store) })
	}
	synced := make(chan struct{})
	go func() { listed.Wait(); close(synced) }() // ends with the process when a kind is never listed
	g.Go(func() error { return passwords.run(ctx, synced, func() { box.Synced(event.API) }) })
	return g.Wait()
}

func reflector(f feed, store cache.ReflectorStore) *cache.Reflector {
	lw := cache.NewListWatchFromClient(f.client, f.resource, "", fields.Everything())
	return cache.NewReflectorWithOptions(lw, f.object, store, options(f.resource))
}

func options(name string) cache.ReflectorOptions {
	return cache.ReflectorOptions{
		Name: name,
		Backoff: &wait.Backoff{
			Duration: firstRetry, Cap: lastRetry, Factor: 2, Jitter: 1,
			Steps: int(math.Ceil(float64(lastRetry) / float64(firstRetry))),
		},
	}
}
