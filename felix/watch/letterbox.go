package watch

import (
	"fmt"
	"sync"

	"k8s.io/client-go/tools/cache"

	"github.com/koratnet/korat/felix/event"
)

// letterbox is what a reflector stores into: it converts each object at the
// door and posts it, and remembers names only. The engine's map is the cache,
// so no object is held twice.
//
// A reflector replaces the whole content after each (re)connect; names that are
// missing then are gone. So a relist heals whatever was missed while the API
// server was away, and a watch that ends removes nothing.
type letterbox struct {
	kind event.Kind
	// convert returns the name and value of an object. A nil value says that the
	// object is there but means nothing to the engine (a finished pod, say).
	convert func(obj any) (name string, value event.Value)
	// absent, if not nil, is what holds for a name that is gone: its defaults.
	absent event.Value
	post   func(...event.Event)
	synced func() // called once, after the first full list was posted

	mu    sync.Mutex // guards known: a reflector is one goroutine, but nothing promises it
	known map[string]struct{}
	once  sync.Once
}

// Add posts obj.
func (b *letterbox) Add(obj any) error { return b.Update(obj) }

// Update posts obj, or that it is gone when it means nothing any more.
func (b *letterbox) Update(obj any) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	name, value := b.convert(obj)
	if value == nil {
		b.forget(name)
		return nil
	}
	b.known[name] = struct{}{}
	b.post(event.Set(name, value))
	return nil
}

// Delete posts that obj is gone.
func (b *letterbox) Delete(obj any) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if d, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = d.Obj
	}
	if obj == nil {
		return fmt.Errorf("bug: %v deleted without a last state", b.kind)
	}
	name, _ := b.convert(obj)
	b.forget(name)
	return nil
}

// Replace posts every object of the list, and that all others are gone.
func (b *letterbox) Replace(list []any, _ string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	seen := make(map[string]struct{}, len(list))
	events := make([]event.Event, 0, len(list))
	for _, obj := range list {
		if name, value := b.convert(obj); value != nil {
			seen[name] = struct{}{}
			events = append(events, event.Set(name, value))
		}
	}
	for name := range b.known {
		if _, ok := seen[name]; !ok {
			events = append(events, b.gone(name))
		}
	}
	b.known = seen
	b.post(events...)
	b.once.Do(b.synced)
	return nil
}

// Resync does nothing: the engine keeps what was posted.
func (b *letterbox) Resync() error { return nil }

func (b *letterbox) forget(name string) {
	if _, ok := b.known[name]; ok {
		delete(b.known, name)
		b.post(b.gone(name))
	}
}

func (b *letterbox) gone(name string) event.Event {
	if b.absent != nil {
		return event.Set(name, b.absent)
	}
	return event.Gone(b.kind, name)
}
