// Package status is the only pipe that flows back: what of the desired state is
// in the kernel, and what fails and why. The loops of felix/apply write on the
// Board; CNI replies wait at it, readiness, metrics and the status of API
// objects are read from it. It decides nothing and starts no goroutine.
package status

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// FailAfter is how long a reconciler may fail before the node is not ready:
// long enough for a lock of another program or a restarting neighbour, short
// enough that a rollout which breaks nodes stops at the first.
const FailAfter = time.Minute

// Attempt is the outcome of one run of a reconciler.
type Attempt struct {
	Reconciler string
	Took       time.Duration
	Resynced   bool  // it read back the kernel first
	Err        error // nil: all that it knew of is as desired
	Complete   bool  // it knew all that the event sources had told at their start
}

// Endpoint is what the kernel has of one local pod attachment.
type Endpoint struct {
	Generation uint64
	Closed     error // nil: applied. Else why not yet
}

// Board holds the present state. All methods may be called by any goroutine.
type Board struct {
	metrics metrics

	mu          sync.Mutex // guards the rest
	reconcilers map[string]*reconciler
	endpoints   map[string]Endpoint // by host interface
	changed     chan struct{}       // closed when endpoints are replaced
	enforcement Enforcement
	applied     uint64
}

type reconciler struct {
	synced bool      // succeeded with complete input
	since  time.Time // of the present state: failing or not
	err    error
}

// New returns a Board whose metrics are registered with reg.
func New(reg prometheus.Registerer) *Board {
	return &Board{
		metrics:     newMetrics(reg),
		reconcilers: map[string]*reconciler{},
		endpoints:   map[string]Endpoint{},
		changed:     make(chan struct{}),
	}
}

// Expect says that there is a reconciler of this name, which has not run yet.
func (b *Board) Expect(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reconcilers[name] = &reconciler{since: time.Now(), err: errors.New("has not run yet")}
	b.metrics.expect(name)
}

// Record takes in the outcome of a run of an expected reconciler.
func (b *Board) Record(a Attempt) {
	b.metrics.record(a)
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.reconcilers[a.Reconciler]
	if r == nil {
		panic("bug: status of a reconciler that is not expected: " + a.Reconciler)
	}
	if (r.err == nil) != (a.Err == nil) {
		r.since = time.Now()
	}
	r.err = a.Err
	r.synced = r.synced || (a.Err == nil && a.Complete)
}

// SetEndpoints says that the wanted endpoints are exactly these. The map is not
// changed afterwards.
func (b *Board) SetEndpoints(all map[string]Endpoint) {
	closed := 0
	for _, ep := range all {
		if ep.Closed != nil {
			closed++
		}
	}
	b.metrics.endpoints(len(all), closed)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.endpoints = all
	close(b.changed)
	b.changed = make(chan struct{})
}

// SetApplied says that the loop that keeps endpoints has tried all of the first n
// Deltas: what of them is not in the kernel is closed, or fails.
func (b *Board) SetApplied(n uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.applied = n
}

// SetPolicies says how many policies of each kind select something here.
func (b *Board) SetPolicies(count map[string]int) { b.metrics.countPolicies(count) }

// WaitEndpoint returns nil as soon as the endpoint behind the host interface
// iface is in the kernel in this generation: link, policy and route. When ctx
// ends before, the error says what was missing; it wraps the context's cause.
func (b *Board) WaitEndpoint(ctx context.Context, iface string, generation uint64) error {
	for {
		ep, known, changed := b.endpoint(iface)
		if known && ep.Generation == generation && ep.Closed == nil {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("endpoint %s: %w (%w)", iface, b.missing(iface, generation), context.Cause(ctx))
		}
	}
}

// WaitGone returns nil as soon as the kernel has nothing left of an endpoint
// behind the host interface iface: rules and routes. It does not know of what is
// only about to be applied. The error wraps the context's cause.
func (b *Board) WaitGone(ctx context.Context, iface string) error {
	for {
		_, known, changed := b.endpoint(iface)
		if !known {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("endpoint %s is still in the kernel: %w", iface, context.Cause(ctx))
		}
	}
}

func (b *Board) endpoint(iface string) (ep Endpoint, known bool, changed <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	ep, known = b.endpoints[iface]
	return ep, known, b.changed
}

// missing says why the endpoint is not applied in this generation.
func (b *Board) missing(iface string, generation uint64) error {
	ep, known, _ := b.endpoint(iface)
	if known && ep.Generation == generation {
		if ep.Closed == nil {
			return errors.New("applied too late")
		}
		return ep.Closed
	}
	if err := b.Ready(); err != nil {
		return fmt.Errorf("not applied yet: %w", err)
	}
	return errors.New("not applied yet")
}

// Ready returns nil when every reconciler has brought a complete input to the
// kernel once and none has been failing for FailAfter. Else it says what is
// wrong. It is cheap enough for a probe.
func (b *Board) Ready() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(b.reconcilers)) {
		r := b.reconcilers[name]
		failingFor := time.Since(r.since).Round(time.Second)
		switch {
		case !r.synced && r.err != nil:
			errs = append(errs, fmt.Errorf("%s: not in sync yet: %w", name, r.err))
		case !r.synced:
			errs = append(errs, fmt.Errorf("%s: not in sync yet", name))
		case r.err != nil && failingFor >= FailAfter:
			errs = append(errs, fmt.Errorf("%s: failing for %s: %w", name, failingFor, r.err))
		}
	}
	if len(b.reconcilers) == 0 {
		return errors.New("not started yet")
	}
	return errors.Join(errs...)
}
