package watch

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/koratnet/korat/felix/event"
)

// secretWait bounds how long the engine waits for passwords at the start. Without
// them it would close sessions that a neighbour keeps over the restart.
const secretWait = 5 * time.Second

// secrets watches those Secrets of one namespace that objects name, each by itself:
// an agent is to see no other, and may be forbidden to.
type secrets struct {
	client    rest.Interface
	namespace string
	post      func(...event.Event)
	changed   chan struct{} // wanted may have changed

	mu     sync.Mutex            // guards wanted
	wanted map[event.Key]string  // names of Secrets by the object that names them
	known  map[string]*oneSecret // of run alone
}

// oneSecret is a watched Secret.
type oneSecret struct {
	stop   context.CancelFunc
	ended  chan struct{} // closed when its watch is over
	answer chan struct{} // closed when the API server told of it first
}

func newSecrets(client rest.Interface, namespace string, post func(...event.Event)) *secrets {
	return &secrets{
		client: client, namespace: namespace, post: post, changed: make(chan struct{}, 1),
		wanted: map[event.Key]string{}, known: map[string]*oneSecret{},
	}
}

// hear notes which Secrets objects name, before it hands them on.
func (s *secrets) hear(evs ...event.Event) {
	touched := false // most of what comes is pods
	s.mu.Lock()
	for _, ev := range evs {
		switch ev.Key.Kind {
		case event.PeerKind, event.BGPKind:
			touched = true
			if k := keyOf(ev.Value); k != nil {
				s.wanted[ev.Key] = k.Secret
			} else {
				delete(s.wanted, ev.Key)
			}
		}
	}
	s.mu.Unlock()
	if touched {
		select {
		case s.changed <- struct{}{}:
		default:
		}
	}
	s.post(evs...)
}

func keyOf(v event.Value) *event.SecretKey {
	switch v := v.(type) {
	case *event.Peer:
		return v.Password
	case *event.BGP:
		return v.Password
	}
	return nil
}

// run keeps the watches until ctx ends. When listed is closed it waits for what
// the Secrets that are named then hold, or secretWait, and calls synced.
func (s *secrets) run(ctx context.Context, listed <-chan struct{}, synced func()) error {
	defer s.end()
	for {
		select {
		case <-listed:
			s.follow(ctx)
			s.wait(ctx)
			synced()
			listed = nil
		case <-s.changed:
			s.follow(ctx)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// follow begins and ends watches.
func (s *secrets) follow(ctx context.Context) {
	s.mu.Lock()
	wanted := map[string]bool{}
	for _, name := range s.wanted {
		wanted[name] = true
	}
	s.mu.Unlock()
	for name, one := range s.known {
		if !wanted[name] {
			one.stop()
			<-one.ended
			delete(s.known, name)
			s.post(event.Gone(event.SecretKind, name))
		}
	}
	for name := range wanted {
		if s.known[name] == nil {
			s.known[name] = s.watch(ctx, name)
		}
	}
}

func (s *secrets) watch(ctx context.Context, name string) *oneSecret {
	ctx, stop := context.WithCancel(ctx)
	one := &oneSecret{stop: stop, ended: make(chan struct{}), answer: make(chan struct{})}
	store := &letterbox{
		kind: event.SecretKind, convert: secret, post: s.post, known: map[string]struct{}{},
		synced: func() { close(one.answer) },
	}
	lw := cache.NewListWatchFromClient(s.client, "secrets", s.namespace, fields.OneTermEqualSelector("metadata.name", name))
	reflector := cache.NewReflectorWithOptions(lw, &corev1.Secret{}, store, options("secret "+name))
	go func() { // ends with stop, which follow or end calls
		defer close(one.ended)
		reflector.RunWithContext(ctx)
	}()
	return one
}

func (s *secrets) wait(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, secretWait)
	defer cancel()
	for _, one := range s.known {
		select {
		case <-one.answer:
		case <-ctx.Done():
			return
		}
	}
}

func (s *secrets) end() {
	for _, one := range s.known {
		one.stop()
		<-one.ended
	}
}
