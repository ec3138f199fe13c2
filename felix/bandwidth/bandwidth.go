// Package bandwidth bounds what pods send and get, for those that ask for it in an
// annotation. felix/apply calls it, whichever data plane enforces policy.
//
// What a pod gets is shaped by a token bucket (the queueing discipline tbf) on the
// host side of its veth: packets wait. A kernel without tbf, and what a pod sends,
// is policed by nf_tables, in a table of this package's own: what is too much is
// dropped, and the sender slows down. Both are on the node's side, where the pod
// cannot lift them. A kernel that can do neither has the pod closed, with the
// reason.
//
//	from a pod ─▶ "sent", before everything else ─▶ map by interface ─▶ its limit
//	to a pod ───▶ "received", after everything else ─▶ map by interface ─▶ its limit
package bandwidth

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/nftables"
	"github.com/koratnet/korat/felix/kernel/nlsock"
)

// TableName is the nf_tables table, of family inet, that is this package's own. It
// is there while a pod of the node has a limit that is policed.
const TableName = "korat-bandwidth"

// Reconciler is an apply.Reconciler, Gated and a LinkWatcher.
type Reconciler struct {
	table *nftables.Table
	conn  *nlsock.Conn

	want     map[string]wanted   // pods with limits, by host interface
	unsure   map[string]struct{} // of them, those to look at
	failed   map[string]error
	unshaped bool // the kernel has no tbf
	idle     bool // nobody has limits, and nothing of ours is in the kernel
}

type wanted struct {
	desired.Rates
	generation uint64 // another one: the interface was made anew
}

// New returns a Reconciler of the network namespace of the calling thread.
func New() (*Reconciler, error) {
	conn, err := nlsock.Open(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("bandwidth: %w", err)
	}
	table, err := nftables.Open(nftables.Inet, TableName)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("bandwidth: %w", err)
	}
	return &Reconciler{
		table: table, conn: conn,
		want: map[string]wanted{}, unsure: map[string]struct{}{}, failed: map[string]error{},
	}, nil
}

// Close closes the sockets. Limits stay.
func (r *Reconciler) Close() error { return errors.Join(r.table.Close(), r.conn.Close()) }

// Name implements apply.Reconciler.
func (*Reconciler) Name() string { return "bandwidth" }

// Want implements apply.Reconciler.
func (r *Reconciler) Want(d desired.Delta) {
	for iface, ep := range d.Endpoints {
		old, had := r.want[iface]
		if ep == nil || ep.Rates == (desired.Rates{}) {
			if had {
				r.forget(iface)
			}
			continue
		}
		if w := (wanted{ep.Rates, ep.Generation}); !had || w != old {
			r.want[iface], r.unsure[iface] = w, struct{}{}
			r.idle = false
		}
	}
	if d.Complete {
		r.table.AllowRemoval()
	}
}

func (r *Reconciler) forget(iface string) {
	delete(r.want, iface)
	delete(r.unsure, iface)
	delete(r.failed, iface)
	for _, w := range ways {
		w.lift(r.table, iface)
	}
}

// LinkChanged implements apply.LinkWatcher.
func (r *Reconciler) LinkChanged(name string) {
	if _, limited := r.want[name]; limited {
		r.unsure[name] = struct{}{}
	}
}

// Closed implements apply.Gated.
func (r *Reconciler) Closed() map[string]error {
	closed := map[string]error{}
	for iface := range r.unsure {
		closed[iface] = errors.New("bandwidth is not bounded yet")
	}
	for iface, err := range r.failed {
		closed[iface] = fmt.Errorf("bandwidth: %w", err)
	}
	return closed
}

// Resync implements apply.Reconciler.
func (r *Reconciler) Resync(ctx context.Context) error {
	for iface := range r.want {
		r.unsure[iface] = struct{}{}
	}
	r.idle = false
	return r.table.Resync(ctx)
}

// Apply implements apply.Reconciler.
func (r *Reconciler) Apply(ctx context.Context) error {
	if r.idle {
		return nil
	}
	var errs []error
	for iface := range r.unsure {
		err := r.bound(iface)
		delete(r.failed, iface)
		switch {
		case errors.Is(err, unix.ENODEV):
			continue // LinkChanged tells when it comes
		case err != nil:
			r.failed[iface] = err
			errs = append(errs, fmt.Errorf("interface %s: %w", iface, err))
		}
		delete(r.unsure, iface)
	}
	if err := r.police(ctx); err != nil {
		errs = append(errs, err)
	}
	r.idle = len(errs) == 0 && len(r.want) == 0
	return errors.Join(errs...)
}

// bound shapes what the pod behind iface gets, if the kernel can, and has the rest
// policed.
func (r *Reconciler) bound(iface string) error {
	w := r.want[iface]
	received.lift(r.table, iface)
	if w.Ingress > 0 && !r.unshaped {
		err := shape(r.conn, iface, w.Ingress)
		r.unshaped = errors.Is(err, errNoShaper)
		if err != nil && !r.unshaped {
			return err
		}
	}
	if w.Ingress > 0 && r.unshaped {
		received.limit(r.table, iface, w.Ingress)
	}
	sent.lift(r.table, iface)
	if w.Egress > 0 {
		sent.limit(r.table, iface, w.Egress)
	}
	return nil
}

// police writes the table, if it holds or held a limit. Limits that the kernel
// refuses close their pods.
func (r *Reconciler) police(ctx context.Context) error {
	for _, w := range ways {
		w.enter(r.table, r.policed(w))
	}
	err := r.table.Apply(ctx)
	if err == nil {
		return nil
	}
	refused := r.table.Refused()
	for iface := range r.want {
		for _, w := range ways {
			if why := refused[nftables.Object{Kind: nftables.AChain, Name: w.chain(iface)}]; why != nil {
				r.failed[iface] = why
			}
		}
		if !r.table.Settled() && r.failed[iface] == nil {
			r.failed[iface] = err
			r.unsure[iface] = struct{}{}
		}
	}
	return err
}

// policed reports whether a pod has a limit that way.
func (r *Reconciler) policed(w way) bool {
	for _, x := range r.want {
		if w == sent && x.Egress > 0 || w == received && x.Ingress > 0 && r.unshaped {
			return true
		}
	}
	return false
}
