// Package rule keeps the kernel's rules of policy routing as desired. felix/apply
// calls it. It writes no routes: felix/kernel/wireguard fills the tables that rules
// lead to.
//
// Ours are the rules of protocol desired.RuleProtocol. Others are never changed.
package rule

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/delta"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/nlsock"
	"github.com/koratnet/korat/felix/kernel/owned"
)

// Reconciler is an apply.Reconciler.
type Reconciler struct {
	kernel   owned.Rules
	rules    *delta.Tracker[desired.Rule, struct{}]
	complete bool
}

// New returns a Reconciler for the network namespace of the calling thread.
func New() (*Reconciler, error) {
	conn, err := nlsock.Open(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("rules: %w", err)
	}
	r := &Reconciler{kernel: owned.Rules{Conn: conn, Protocol: desired.RuleProtocol}, rules: delta.New[desired.Rule](func(_, _ struct{}) bool { return true })}
	r.rules.AllowRemoval(func(desired.Rule, struct{}) bool { return r.complete })
	return r, nil
}

// Close closes the netlink socket.
func (r *Reconciler) Close() error { return r.kernel.Conn.Close() }

// Port is the sender of our own notifications; see netmon.
func (r *Reconciler) Port() uint32 { return r.kernel.Conn.Port() }

// Name implements apply.Reconciler.
func (*Reconciler) Name() string { return "rule" }

// Want implements apply.Reconciler.
func (r *Reconciler) Want(d desired.Delta) {
	r.complete = r.complete || d.Complete
	for rule, wanted := range d.Rules {
		if wanted == nil {
			r.rules.Unwant(rule)
		} else {
			r.rules.Want(rule, *wanted)
		}
	}
}

// Resync implements apply.Reconciler.
func (r *Reconciler) Resync(context.Context) error {
	have, err := r.kernel.Read()
	if err != nil {
		return err
	}
	r.rules.Resync(maps.All(have))
	return nil
}

// Present returns our rules in the network namespace of the calling thread, in the
// words of `ip rule`, sorted.
func Present() (names []string, err error) {
	r, err := New()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	have, err := r.kernel.Read()
	if err != nil {
		return nil, err
	}
	for rule := range have {
		names = append(names, rule.String())
	}
	slices.Sort(names)
	return names, nil
}

// Apply implements apply.Reconciler. Rules that lead what the node itself sends to a
// table come after those that keep things from it, and not without them, and go before.
func (r *Reconciler) Apply(context.Context) error {
	first := r.apply(func(rule desired.Rule, op delta.Op) bool { return leadsHost(rule) == (op == delta.Remove) })
	if first != nil {
		return errors.Join(first, r.apply(func(rule desired.Rule, _ delta.Op) bool { return !rule.Local }))
	}
	return r.apply(func(desired.Rule, delta.Op) bool { return true })
}

func leadsHost(r desired.Rule) bool { return r.Local && r.Table != 0 }

// apply makes those of the pending changes that which chooses.
func (r *Reconciler) apply(which func(desired.Rule, delta.Op) bool) error {
	var errs []error
	for rule, c := range r.rules.Pending() {
		change := r.kernel.Add
		if c.Op == delta.Remove {
			change = r.kernel.Remove
		}
		if !which(rule, c.Op) {
			continue
		}
		if err := change(rule); err != nil {
			errs = append(errs, err)
			continue
		}
		r.rules.Done(rule)
	}
	return errors.Join(errs...)
}
