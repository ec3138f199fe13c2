package conntrack

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	"github.com/koratnet/korat/felix/desired"
)

// Flusher is the apply.Reconciler that deletes entries of addresses whose owner
// changes. It stands after the rules and before the routes, and is Gated: nobody is
// let to an address whose former connections are not gone.
//
// While no agent ran addresses may have lost their owner too. So once all is known, also
// what other nodes have of its blocks, it deletes the entries of addresses in the node's
// own blocks that no pod has. Who gets such an address before then has it flushed.
type Flusher struct {
	table     *table
	endpoints map[string]*desired.Endpoint // by interface
	held      map[netip.Addr]string        // interfaces by address
	stale     map[netip.Addr]struct{}      // to flush
	strayed   map[netip.Addr]struct{}      // floating addresses, of which to flush what asked for them
	complete  bool
	learned   bool // all neighbours have told what other nodes have
	// Until swept: own blocks, and what other nodes have, be it a part of one.
	blocks, away map[netip.Prefix]struct{}
	swept        bool
}

// NewFlusher returns the Flusher of the network namespace of the calling thread.
func NewFlusher() (*Flusher, error) {
	t, err := open()
	if err != nil {
		return nil, err
	}
	return &Flusher{
		table: t, endpoints: map[string]*desired.Endpoint{}, held: map[netip.Addr]string{}, stale: map[netip.Addr]struct{}{}, strayed: map[netip.Addr]struct{}{},
		blocks: map[netip.Prefix]struct{}{}, away: map[netip.Prefix]struct{}{},
	}, nil
}

// Close closes the netlink socket.
func (f *Flusher) Close() error { return f.table.conn.Close() }

// Name implements apply.Reconciler.
func (f *Flusher) Name() string { return "conntrack" }

// Want implements apply.Reconciler. An endpoint of another generation is another
// pod's, or the same pod's after it was made anew.
func (f *Flusher) Want(d desired.Delta) {
	for iface, e := range d.Endpoints {
		old := f.endpoints[iface]
		f.stray(old, e)
		if old != nil {
			f.leave(old, e)
		}
		delete(f.endpoints, iface)
		if e == nil {
			continue
		}
		f.endpoints[iface] = e
		if f.complete { // before, endpoints are heard of that have run for long
			f.arrive(e, old)
		}
	}
	f.own(d)
	if !f.swept {
		f.learn(d.Routes)
	}
	f.complete, f.learned = f.complete || d.Complete, f.learned || d.Learned
}

func (f *Flusher) learn(routes map[netip.Prefix]*desired.Route) {
	for p, r := range routes {
		delete(f.blocks, p)
		delete(f.away, p)
		switch {
		case r == nil:
		case r.Kind == desired.Unreachable:
			f.blocks[p] = struct{}{}
		case r.Kind == desired.Via, r.Kind == desired.Tunneled:
			f.away[p] = struct{}{}
		}
	}
}

// leave marks the addresses of old that is, which takes its place, does not keep.
func (f *Flusher) leave(old, is *desired.Endpoint) {
	kept := addrsOf(is)
	for _, a := range old.Addrs {
		if _, same := kept[a]; !same || is.Generation != old.Generation {
			f.stale[a] = struct{}{}
		}
	}
}

// stray marks the floating addresses that led to old and do not lead to is, or the
// other way round. Packets to such an address may have been passed on as they were,
// and all of their connection would be.
func (f *Flusher) stray(old, is *desired.Endpoint) {
	for _, pair := range [][2]*desired.Endpoint{{old, is}, {is, old}} {
		if pair[0] == nil || !f.complete { // before, endpoints are heard of that have run for long
			continue
		}
		for _, a := range pair[0].Floating {
			if pair[1] == nil || !slices.Contains(pair[1].Floating, a) {
				f.strayed[a] = struct{}{}
			}
		}
	}
}

// arrive marks the addresses that e did not have before.
func (f *Flusher) arrive(e, old *desired.Endpoint) {
	had := addrsOf(old)
	for _, a := range e.Addrs {
		if _, same := had[a]; !same || e.Generation != old.Generation {
			f.stale[a] = struct{}{}
		}
	}
}

func addrsOf(e *desired.Endpoint) map[netip.Addr]struct{} {
	addrs := map[netip.Addr]struct{}{}
	if e != nil {
		for _, a := range e.Addrs {
			addrs[a] = struct{}{}
		}
	}
	return addrs
}

// own notes who has which address now: two endpoints may change in one Delta.
func (f *Flusher) own(d desired.Delta) {
	if len(d.Endpoints) == 0 {
		return
	}
	for a, iface := range f.held { // a few hundred at most
		if _, changed := d.Endpoints[iface]; changed {
			delete(f.held, a)
		}
	}
	for iface, e := range d.Endpoints {
		for a := range addrsOf(e) {
			f.held[a] = iface
		}
	}
}

// Resync implements apply.Reconciler. Entries come and go by themselves: there is
// nothing that they should be.
func (f *Flusher) Resync(context.Context) error { return nil }

// Apply implements apply.Reconciler. What fails is tried again as a whole.
func (f *Flusher) Apply(context.Context) error {
	if err := f.table.flush(f.stale, origSource, replySource); err != nil {
		return err
	}
	clear(f.stale)
	if err := f.table.flush(f.strayed, origDestination); err != nil {
		return err
	}
	clear(f.strayed)
	if f.swept || !f.complete || !f.learned {
		return nil
	}
	if _, err := f.table.purge(nil, f.orphaned); err != nil {
		return err
	}
	f.swept, f.blocks, f.away = true, nil, nil
	return nil
}

var errInherited = errors.New("connections of the address's former owner are not deleted yet")

// Closed implements apply.Gated.
func (f *Flusher) Closed() map[string]error {
	closed := map[string]error{}
	for a := range f.stale {
		if iface, held := f.held[a]; held {
			closed[iface] = errInherited
		}
	}
	return closed
}

// orphaned reports whether an entry is of an address that nobody has.
func (f *Flusher) orphaned(e *entry) bool {
	return f.vacant(e.orig.src) || f.vacant(e.reply.src)
}

func (f *Flusher) vacant(a netip.Addr) bool {
	if _, held := f.held[a]; held {
		return false
	}
	for b := range f.blocks { // some dozens
		if b.Contains(a) {
			return !f.elsewhere(a, b)
		}
	}
	return false
}

// elsewhere reports whether another node has a part of block b in which a lies.
func (f *Flusher) elsewhere(a netip.Addr, b netip.Prefix) bool {
	for bits := b.Bits() + 1; bits <= a.BitLen(); bits++ {
		part, err := a.Prefix(bits)
		if _, away := f.away[part]; err == nil && away {
			return true
		}
	}
	return false
}
