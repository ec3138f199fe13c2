package status

import (
	"maps"
	"slices"
	"time"
)

// Snapshot is the Board at one moment, for the status of API objects.
type Snapshot struct {
	Applied         uint64            // Deltas that the kernel loop has tried, of all it was told
	Endpoints       int               // local pods whose attachment is wanted
	ClosedEndpoints map[string]string // those not applied: host interface -> reason
	Reconcilers     []Condition       // sorted by name
}

// Condition is the state of one reconciler.
type Condition struct {
	Reconciler string
	Synced     bool // has once brought a complete input to the kernel
	Err        error
	Since      time.Time // when it began to fail, or to succeed
}

// Snapshot returns the present state.
func (b *Board) Snapshot() Snapshot {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := Snapshot{Applied: b.applied, Endpoints: len(b.endpoints), ClosedEndpoints: map[string]string{}}
	for iface, ep := range b.endpoints {
		if ep.Closed != nil {
			s.ClosedEndpoints[iface] = ep.Closed.Error()
		}
	}
	for _, name := range slices.Sorted(maps.Keys(b.reconcilers)) {
		r := b.reconcilers[name]
		s.Reconcilers = append(s.Reconcilers, Condition{Reconciler: name, Synced: r.synced, Err: r.err, Since: r.since})
	}
	return s
}
