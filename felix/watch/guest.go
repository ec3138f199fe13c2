package watch

import (
	"context"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"
)

// guest is a resource that a cluster may or may not have, because the
// CustomResourceDefinition of that name is not ours. It may come and go.
type guest struct {
	feed
	definition string
}

var definitions = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}

// run keeps store as the API server says while the definition exists, and empty
// while it does not.
func (g guest) run(ctx context.Context, client metadata.Interface, store *letterbox) {
	door := &doorbell{rung: make(chan struct{}, 1)}
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = fields.OneTermEqualSelector("metadata.name", g.definition).String()
			return client.Resource(definitions).List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = fields.OneTermEqualSelector("metadata.name", g.definition).String()
			return client.Resource(definitions).Watch(ctx, o)
		},
	}
	definition := cache.ToListWatcherWithWatchListSemantics(lw, client) // as the client can
	var tasks sync.WaitGroup
	defer tasks.Wait()
	tasks.Go(func() {
		cache.NewReflectorWithOptions(definition, &metav1.PartialObjectMetadata{}, door, options(g.definition)).RunWithContext(ctx)
	})
	var leave context.CancelFunc // of the reflector, while there is one
	var left chan struct{}
	for {
		select {
		case <-ctx.Done():
			if leave != nil {
				leave()
			}
			return
		case <-door.rung:
		}
		switch here := door.answer(); {
		case here && leave == nil:
			var stay context.Context
			stay, leave = context.WithCancel(ctx)
			left = make(chan struct{})
			tasks.Go(func() {
				defer close(left)
				g.reflector(store).RunWithContext(stay)
			})
		case !here && leave != nil:
			leave()
			<-left
			leave = nil
			_ = store.Replace(nil, "")
		case !here:
			_ = store.Replace(nil, "")
		}
	}
}

// reflector watches the resource. A cluster that has the definition but serves
// another version of it must not keep the agent waiting: what was known stays.
func (g guest) reflector(store *letterbox) *cache.Reflector {
	lw := cache.NewListWatchFromClient(g.client, g.resource, "", fields.Everything())
	list := lw.ListWithContextFunc
	lw.ListWithContextFunc = func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
		objects, err := list(ctx, o)
		if apierrors.IsNotFound(err) {
			store.once.Do(store.synced)
		}
		return objects, err
	}
	return cache.NewReflectorWithOptions(lw, g.object, store, options(g.resource))
}

// doorbell is the store of a reflector for one object: it rings whenever it
// hears whether the object exists.
type doorbell struct {
	rung chan struct{} // holds one token after the answer may have changed

	mu   sync.Mutex // guards here: a reflector is another goroutine
	here bool
}

func (d *doorbell) ring(here bool) error {
	d.mu.Lock()
	d.here = here
	d.mu.Unlock()
	select {
	case d.rung <- struct{}{}:
	default: // it rings already
	}
	return nil
}

func (d *doorbell) answer() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.here
}

// Add implements cache.ReflectorStore.
func (d *doorbell) Add(any) error { return d.ring(true) }

// Update implements cache.ReflectorStore.
func (d *doorbell) Update(any) error { return d.ring(true) }

// Delete implements cache.ReflectorStore.
func (d *doorbell) Delete(any) error { return d.ring(false) }

// Replace implements cache.ReflectorStore.
func (d *doorbell) Replace(list []any, _ string) error { return d.ring(len(list) > 0) }

// Resync implements cache.ReflectorStore: the last answer holds.
func (d *doorbell) Resync() error { return nil }
