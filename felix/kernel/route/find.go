package route

import (
	"net/netip"

	"github.com/koratnet/korat/felix/desired"
)

// find finds the ways of routes that are new, and of those over next hops whose
// ways have changed or are to be found again.
func (r *Reconciler) find() error {
	if err := r.findChanged(); err != nil {
		return err
	}
	for p, route := range r.told {
		delete(r.indirect, p)
		e, direct, err := r.hops.resolve(route)
		if err != nil {
			return err
		}
		r.tracker.Want(r.place.key(p), e)
		delete(r.told, p)
		if !direct {
			r.indirect[p] = route
		}
	}
	return nil
}

// findChanged asks for ways again. It walks all routes only when one has changed:
// that is when links or the routes between nodes do. What has changed is noted also
// when the kernel did not answer for all.
func (r *Reconciler) findChanged() error {
	changed, err := r.hops.again()
	if len(changed) == 0 {
		return err
	}
	used := map[netip.Addr]bool{}
	over := func(route *desired.Route) {
		for _, h := range route.NextHops {
			if used[h] = true; changed[h] {
				r.told[route.Prefix] = route
			}
		}
	}
	for k, e := range r.tracker.AllWanted() {
		if _, indirect := r.indirect[k.prefix]; len(e.hops) > 0 && e.dev == "" && !indirect && r.told[k.prefix] == nil {
			over(&desired.Route{Prefix: k.prefix, Kind: desired.Via, NextHops: e.hops, Weights: e.weights})
		}
	}
	for _, route := range r.indirect {
		over(route)
	}
	for h := range r.hops.known {
		if !used[h] {
			delete(r.hops.known, h)
		}
	}
	return err
}
