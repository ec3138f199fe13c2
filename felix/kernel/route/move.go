package route

import (
	"context"
	"maps"
	"net/netip"
)

// A move of all routes to another table or metric goes in steps that Apply makes in
// this order, and that may end after any of them. No packet meets a table that has a
// part of them only, where a wider route would take it that is meant for what the
// narrower ones leave:
//
//	routes    all are added in the new place, to which nothing leads yet
//	rules     lead there, and no longer where the routes were
//	routes    of the old place are removed
//
// What the kernel refuses is not waited for. After a restart, the last two wait until
// neighbours have told all they know, since the old place may have what they have not
// told yet; meanwhile the new one is asked before it.

// moveTo has the routes belong to p.
func (r *Reconciler) moveTo(p place) {
	if p == r.place {
		return
	}
	all := maps.Collect(r.tracker.AllWanted()) // whole: people move routes, rarely
	for k := range all {
		r.tracker.Unwant(k)
	}
	r.place = p
	for k, e := range all {
		r.tracker.Want(p.key(k.prefix), e)
	}
}

// misplaced reports whether k is not where our routes belong.
func (r *Reconciler) misplaced(k key) bool { return k != r.place.key(k.prefix) }

// replaced reports whether the route to prefix is where it belongs, if it is wanted. One
// that is withheld, or refused, keeps what it had.
func (r *Reconciler) replaced(prefix netip.Prefix) bool {
	k := r.place.key(prefix)
	_, wanted := r.tracker.Wanted(k)
	_, there := r.tracker.Have(k)
	return there || !wanted
}

// move makes the steps that follow when all routes have been added that can be.
func (r *Reconciler) move(ctx context.Context) error {
	if !r.complete {
		return nil
	}
	if err := r.lead(); err != nil {
		return err
	}
	r.moved = r.learned
	defer func() { r.moved = false }()
	if err := r.pushAll(ctx); err != nil || !r.stale {
		return err
	}
	// Something was removed that had another metric. The kernel takes the first of any
	// metric where an IPv4 route is to go that had none.
	if err := r.resync(); err != nil {
		return err
	}
	return r.pushAll(ctx)
}
