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
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/felix/kube"
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

func feeds(c *kube.Clients) []feed {
	return []feed{
		{c.Core, "namespaces", &corev1.Namespace{}, event.NamespaceKind, namespace, nil},
		{c.Core, "nodes", &corev1.Node{}, event.NodeKind, node, nil},
		{c.Core, "pods", &corev1.Pod{}, event.PodKind, pod, nil},
		{c.Networking, "networkpolicies", &networkingv1.NetworkPolicy{}, event.PolicyKind, networkPolicy, nil},
		{c.Korat, "ippools", &koratv1.IPPool{}, event.PoolKind, pool, nil},
		{c.Korat, "blocks", &koratv1.Block{}, event.BlockKind, block, nil},
		{c.Korat, "nodenetworks", &koratv1.NodeNetwork{}, event.NodeNetworkKind, nodeNetwork, nil},
		{c.Korat, "bgppeers", &koratv1.BGPPeer{}, event.PeerKind, bgpPeer, nil},
		{c.Korat, "bgpconfigurations", &koratv1.BGPConfiguration{}, event.BGPKind, bgpConfiguration, bgpDefaults},
	}
}

// Run posts what the API server knows to box until ctx ends, and box.Synced
// once every resource has been listed. It returns ctx's error: an API server
// that is away is waited for.
func Run(ctx context.Context, clients *kube.Clients, box Box, log *slog.Logger) error {
	klog.SetSlogLogger(log)
	box.Post(event.Set(koratv1.BGPConfigurationName, bgpDefaults)) // a listed object replaces it before Synced
	fs := feeds(clients)
	var listed sync.WaitGroup
	listed.Add(len(fs))
	g, ctx := errgroup.WithContext(ctx)
	for _, f := range fs {
		store := &letterbox{kind: f.kind, convert: f.convert, absent: f.absent, post: box.Post, synced: listed.Done, known: map[string]struct{}{}}
		g.Go(func() error {
			reflector(f, store).RunWithContext(ctx)
			return context.Cause(ctx)
		})
	}
	synced := make(chan struct{})
	go func() { listed.Wait(); close(synced) }() // ends with the process when a kind is never listed
	g.Go(func() error {
		select {
		case <-synced:
			box.Synced(event.API)
		case <-ctx.Done():
		}
		return nil
	})
	return g.Wait()
}

func reflector(f feed, store cache.ReflectorStore) *cache.Reflector {
	lw := cache.NewListWatchFromClient(f.client, f.resource, "", fields.Everything())
	return cache.NewReflectorWithOptions(lw, f.object, store, cache.ReflectorOptions{
		Name: f.resource,
		Backoff: &wait.Backoff{
			Duration: firstRetry, Cap: lastRetry, Factor: 2, Jitter: 1,
			Steps: int(math.Ceil(float64(lastRetry) / float64(firstRetry))),
		},
	})
}
