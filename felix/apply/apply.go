// Package apply brings desired state to the kernel, through small reconcilers
// that each keep one kind of object. It owns their order, their retries and
// their read-backs, so that no reconciler has a loop, a clock or a lock.
//
// A Loop runs phases one after another and the reconcilers of a phase in
// parallel. The agent has two: one for the kernel,
//
//	{sysctl, link} → {sets+} → {programs} → gate → {route} → {sets−}
//
// and one for the BGP speaker, for which nobody waits. The order makes that a
// packet never meets a program that misses its set, nor a pod that can be
// reached before its program is in the kernel. The gate stands before every
// phase: what Gated reconcilers of earlier phases hold closed, Withholders of
// the phase do not open.
//
// What stands in a phase may come and go: the data planes, of which settings
// choose one. A Loop brings the new one fully in force before it removes the old
// one, see Planes.
//
// Nothing here imports a reconciler: felix/agent makes them and hands them in.
package apply

import (
	"context"
	"net/netip"
	"time"

	"github.com/koratnet/korat/felix/desired"
)

// Reconciler keeps one kind of kernel object as desired. A Loop calls the
// methods of one Reconciler, optional ones included, never at the same time.
// Reconcilers that share an object must stand in different phases.
type Reconciler interface {
	// Name is a short constant word, for logs and metrics.
	Name() string
	// Want takes in a change of what is desired. It works in memory only. The
	// Delta's maps and the SetChanges belong to the caller and may change after
	// Want returned; what the other maps' values point to does not change and may
	// be kept. Nothing may be deleted from the kernel before a Delta said
	// Complete, nor Via routes before one said Learned; both hold from then on.
	Want(desired.Delta)
	// Resync reads back what is in the kernel and is ours, so that the next Apply
	// mends what differs. It changes nothing in the kernel. It is called before
	// the first Apply (and Apply is not called until it has succeeded), before
	// every retry, and from time to time.
	Resync(context.Context) error
	// Apply makes what is pending so. It goes on after failures of single objects
	// and joins their errors; what failed stays pending. It does not write to the
	// kernel when nothing is pending, and is cheap then: it is called for every
	// Delta.
	Apply(context.Context) error
}

// Gated is a Reconciler that must have succeeded for an endpoint before a packet
// may reach it.
type Gated interface {
	// Closed returns the wanted endpoints that are not enforced yet, by host
	// interface, with the reason in words. An endpoint that is wanted and was
	// never applied is closed, also when Apply or Resync failed before they came
	// to it. An endpoint that was applied once and whose change failed is closed
	// too: its routes are left as they are, but nobody is told that the change
	// is in force.
	Closed() map[string]error
}

// Withholder is a Reconciler that opens the way to endpoints.
type Withholder interface {
	// Withhold is called before Apply, whenever there is one, with all that Gated
	// reconcilers of earlier phases hold closed. Apply makes no new way to these
	// endpoints until a later call leaves them out. It does not take away what is
	// there: established flows do not pay for a failed change.
	Withhold(closed map[string]error)
}

// Checker is a Reconciler of objects that others change without the kernel
// telling of it.
type Checker interface {
	// Check looks, more cheaply than Resync, whether the kernel still holds what
	// Apply made, and reports whether the next Apply has something to mend. It
	// changes nothing in the kernel.
	Check(context.Context) (changed bool, err error)
	// CheckEvery is how often.
	CheckEvery() time.Duration
}

// LinkWatcher is a Reconciler that depends on network interfaces.
type LinkWatcher interface {
	// LinkChanged says that the interface of this name came, went, changed its
	// state or its addresses. What was known about it may be wrong; the next
	// Apply looks again. Memory only.
	LinkChanged(name string)
}

// RouteWatcher is a Reconciler that keeps routes.
type RouteWatcher interface {
	// RouteChanged says that somebody else changed a route to prefix in the main
	// table. protocol is that route's, as it is or was. The next Apply looks again.
	// Memory only.
	RouteChanged(prefix netip.Prefix, protocol uint8)
}

// Poke says what changed in the kernel behind our back: either Link, or Route
// and Protocol, or Lost is set. netmon.Change converts to it.
type Poke struct {
	Link     string       // name of an interface
	Route    netip.Prefix // a route that is or was there; of a rule: the one to everywhere
	Protocol uint8        // of that route or rule
	Lost     bool         // notifications were lost: anything may have changed
}

// Phase is a group of reconcilers that may work at the same time.
type Phase []Reconciler
