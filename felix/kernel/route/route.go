// Package route keeps the kernel's routes as desired: the /32 and /128 of local
// pods, the unreachable routes of own blocks, and what BGP neighbours taught.
// felix/apply calls it. It is the only writer of routes in Korat.
//
// Ours are the routes of protocol desired.RouteProtocol in any table. Settings say
// which table they belong to and with what metric: one for each prefix, whatever its
// kind. Routes of other protocols are never changed, also where they stand in our
// way. A route that changes is replaced in one step, so that no packet meets the gap;
// move.go says how all of them go to another table or metric.
//
// Next hops are followed: one behind a router becomes that router, as the kernel's
// other routes say, and one that leads nowhere, or over a link without carrier, is
// left out while others do not.
package route

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/delta"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/nlsock"
)

// maxErrors bounds the errors that Apply joins: when an uplink is gone, all
// routes through it fail for the same reason.
const maxErrors = 10

// Reconciler is an apply.Reconciler, Gated (an endpoint whose route is missing
// is closed), Withholder, LinkWatcher and RouteWatcher.
type Reconciler struct {
	conn    *nlsock.Conn
	links   *links
	tracker *delta.Tracker[key, entry]

	place place                     // where our routes belong
	rules map[desired.Rule]struct{} // ours in the kernel
	moved bool                      // what is in other places is not used any more

	hops     *hops
	told     map[netip.Prefix]*desired.Route // wanted Via routes that are not in tracker as they are to be
	indirect map[netip.Prefix]*desired.Route // those whose entries have other next hops

	encrypted map[netip.Prefix]entry // wanted ones into tunnels that encrypt

	local    map[string]map[netip.Prefix]struct{} // wanted Local routes by interface
	made     map[string]uint64                    // generation of the endpoint by interface
	withheld map[string]error
	failed   map[key]error       // of the last Apply
	changed  map[string]struct{} // workload interfaces to look at again
	stale    bool                // read everything again

	complete, learned bool
}

// New returns a Reconciler for the network namespace of the calling thread.
func New() (*Reconciler, error) {
	conn, err := nlsock.Open(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("routes: %w", err)
	}
	links := newLinks(conn)
	r := &Reconciler{
		conn:      conn,
		links:     links,
		tracker:   delta.New[key](entry.equal),
		hops:      &hops{conn: conn, links: links, known: map[netip.Addr]way{}},
		place:     place{table: desired.MainTable},
		rules:     map[desired.Rule]struct{}{},
		told:      map[netip.Prefix]*desired.Route{},
		indirect:  map[netip.Prefix]*desired.Route{},
		encrypted: map[netip.Prefix]entry{},
		local:     map[string]map[netip.Prefix]struct{}{},
		made:      map[string]uint64{},
		changed:   map[string]struct{}{},
	}
	r.tracker.AllowRemoval(r.removable)
	return r, nil
}

// Close closes the netlink socket.
func (r *Reconciler) Close() error { return r.conn.Close() }

// Port is the sender of our own route notifications; see netmon.
func (r *Reconciler) Port() uint32 { return r.conn.Port() }

// Name implements apply.Reconciler.
func (*Reconciler) Name() string { return "route" }

// removable: learned routes outlive a restart until the neighbours have told
// what they know, the rest until the API server has.
func (r *Reconciler) removable(k key, have entry) bool {
	if r.misplaced(k) {
		return r.moved && r.replaced(k.prefix)
	}
	return r.complete && (r.learned || len(have.hops) == 0)
}

// Want implements apply.Reconciler.
func (r *Reconciler) Want(d desired.Delta) {
	r.complete = r.complete || d.Complete
	r.learned = r.learned || d.Learned
	for iface, ep := range d.Endpoints {
		r.wantEndpoint(iface, ep)
	}
	if s := d.Settings; s != nil {
		r.moveTo(place{table: s.RouteTable, metric: s.RouteMetric})
	}
	for prefix, route := range d.Routes {
		r.want(prefix, route)
	}
}

func (r *Reconciler) want(prefix netip.Prefix, route *desired.Route) {
	k := r.place.key(prefix)
	if old, ok := r.tracker.Wanted(k); ok && old.local() {
		r.unlist(old.dev, prefix)
	}
	delete(r.told, prefix)
	delete(r.indirect, prefix)
	delete(r.encrypted, prefix)
	if route == nil {
		r.tracker.Unwant(k)
		return
	}
	if route.Kind == desired.Via {
		r.told[prefix] = route
		return
	}
	e := entryOf(route)
	r.tracker.Want(k, e)
	if e.local() {
		r.list(e.dev, prefix)
	}
	if e.encrypted() {
		r.encrypted[prefix] = e
	}
}

// wantEndpoint: another generation means that the interface was made anew, maybe
// before any notification of that has come.
func (r *Reconciler) wantEndpoint(iface string, ep *desired.Endpoint) {
	if ep == nil {
		delete(r.made, iface)
		return
	}
	if generation, known := r.made[iface]; !known || generation != ep.Generation {
		r.made[iface] = ep.Generation
		r.LinkChanged(iface)
	}
}

func (r *Reconciler) list(dev string, prefix netip.Prefix) {
	if r.local[dev] == nil {
		r.local[dev] = map[netip.Prefix]struct{}{}
	}
	r.local[dev][prefix] = struct{}{}
}

func (r *Reconciler) unlist(dev string, prefix netip.Prefix) {
	if delete(r.local[dev], prefix); len(r.local[dev]) == 0 {
		delete(r.local, dev)
	}
}

// Withhold implements apply.Withholder.
func (r *Reconciler) Withhold(closed map[string]error) { r.withheld = closed }

// Closed implements apply.Gated.
func (r *Reconciler) Closed() map[string]error {
	closed := map[string]error{}
	for k, c := range r.tracker.Pending() {
		if !c.Want.local() {
			continue
		}
		err := r.failed[k]
		if err == nil {
			err = errors.New("not installed yet")
		}
		closed[c.Want.dev] = fmt.Errorf("route %s: %w", k.prefix, err)
	}
	return closed
}

// LinkChanged implements apply.LinkWatcher. The kernel drops an interface's
// routes when it goes down, of IPv4 without saying so. For a workload's only its
// own are read again; through another interface any learned route may lead.
func (r *Reconciler) LinkChanged(name string) {
	r.links.forget(name)
	if strings.HasPrefix(name, desired.InterfacePrefix) {
		r.changed[name] = struct{}{}
	} else {
		r.stale, r.hops.stale = true, true
		r.tryEncrypted()
	}
}

// tryEncrypted wants the routes again that are closed because the kernel did not
// take them.
func (r *Reconciler) tryEncrypted() {
	for prefix, e := range r.encrypted {
		r.tracker.Want(r.place.key(prefix), e)
	}
}

// RouteChanged implements apply.RouteWatcher. A foreign route matters only where
// it may have taken the place of ours, or leads to a next hop.
func (r *Reconciler) RouteChanged(prefix netip.Prefix, protocol uint8) {
	_, ours := r.tracker.Have(r.place.key(prefix))
	if ours || protocol == desired.RouteProtocol {
		r.stale = true
	}
	r.hops.concerns(prefix)
}

// Apply implements apply.Reconciler.
func (r *Reconciler) Apply(ctx context.Context) error {
	if err := r.lookAgain(); err != nil {
		return err
	}
	if err := r.find(); err != nil {
		return err
	}
	r.failed = map[key]error{}
	if err := r.pushAll(ctx); err != nil {
		return err
	}
	err := r.move(ctx)
	return errors.Join(r.joinFailed(), err)
}

// pushAll sends what is pending. A replaced route may turn out to be gone; the second
// round creates it.
func (r *Reconciler) pushAll(ctx context.Context) error {
	for again := true; again; {
		var err error
		if again, err = r.push(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (r *Reconciler) joinFailed() error {
	var errs []error
	for k, err := range r.failed {
		if len(errs) == maxErrors {
			errs = append(errs, fmt.Errorf("and %d routes more", len(r.failed)-maxErrors))
			break
		}
		errs = append(errs, fmt.Errorf("route %s: %w", k.prefix, err))
	}
	return errors.Join(errs...)
}

// push sends what is pending and not withheld, once each. again says that it
// found routes gone that it meant to replace.
func (r *Reconciler) push(ctx context.Context) (again bool, err error) {
	var keys []key
	var requests []*nlsock.Request
	for k, c := range r.tracker.Pending() {
		if _, failed := r.failed[k]; failed {
			continue
		}
		if _, withheld := r.withheld[c.Want.dev]; withheld && c.Want.dev != "" {
			continue
		}
		request, err := r.request(k, c)
		if err != nil {
			again = r.refused(k, err) || again
			continue
		}
		keys, requests = append(keys, k), append(requests, request)
	}
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	err = r.conn.Batch(requests, func(i int, err error) {
		again = r.answered(keys[i], err) || again
	})
	if err != nil {
		r.stale = true // unknown what was done
	}
	return again, err
}

// answered takes in what the kernel said to the request about k. It reports
// whether the request is to be made anew.
func (r *Reconciler) answered(k key, err error) (again bool) {
	want, wanted := r.tracker.Wanted(k)
	_, there := r.tracker.Have(k)
	absent := errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOENT)
	switch {
	case err == nil || (!wanted && absent):
		r.tracker.Done(k)
	case there && absent: // what was to be replaced
		r.tracker.Gone(k)
		return true
	case errors.Is(err, unix.EEXIST):
		r.failed[k] = fmt.Errorf("a route that is not ours is in the way: %w", err)
	default:
		if want.dev != "" {
			r.links.forget(want.dev) // its index may be outdated
		}
		return r.refused(k, err)
	}
	return false
}

// refused takes in that the kernel does not take the route to k now. It reports
// whether another is to be made in its place: who keeps the interface of a tunnel
// says what is wrong with that.
func (r *Reconciler) refused(k key, err error) (again bool) {
	if want, _ := r.tracker.Wanted(k); want.encrypted() {
		r.tracker.Want(k, closed())
		return true
	}
	r.failed[k] = err
	return false
}

func (r *Reconciler) request(k key, c delta.Change[entry]) (*nlsock.Request, error) {
	switch c.Op {
	case delta.Remove:
		r.stale = r.stale || r.misplaced(k) // see move
		return removal(k, c.Have), nil
	case delta.Update:
		// Only what was seen to be ours is replaced.
		return addition(k, c.Want, r.links.index, unix.NLM_F_REPLACE)
	default:
		return addition(k, c.Want, r.links.index, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	}
}
