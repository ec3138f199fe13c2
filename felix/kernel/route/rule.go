package route

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/owned"
)

// The priorities of our rules: before that of the main table, 32766, and behind those
// that people add without naming any, which the kernel puts before all that are there.
// They send every packet to a table, and have the protocol number of our routes.
const (
	first  = 32112 // to the table that our routes belong to
	behind = 32113 // to one that they belonged to
)

// lead makes the rules as they are wanted. What comes is there before anything goes.
func (r *Reconciler) lead() error {
	want := r.wantedRules()
	var errs []error
	for w := range want {
		if _, there := r.rules[w]; there {
			continue
		}
		err := r.ruler().Add(w)
		switch {
		case errors.Is(err, unix.EAFNOSUPPORT): // a kernel without IPv6 has no routes of it either
		case err != nil:
			errs = append(errs, err)
		default:
			r.rules[w] = struct{}{}
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	for have := range r.rules {
		if _, wanted := want[have]; wanted {
			continue
		}
		if err := r.ruler().Remove(have); err != nil {
			errs = append(errs, err)
			continue
		}
		delete(r.rules, have)
	}
	return errors.Join(errs...)
}

// wantedRules are those of the table that our routes belong to and, as long as what is
// in others may still be needed, those that lead there, behind it.
func (r *Reconciler) wantedRules() map[desired.Rule]struct{} {
	want := map[desired.Rule]struct{}{}
	if r.place.table != desired.MainTable {
		for _, all := range owned.AllPackets {
			want[desired.Rule{Priority: first, From: all, Table: r.place.table}] = struct{}{}
		}
	}
	for old := range r.rules {
		if old.Table != r.place.table && !r.learned {
			want[desired.Rule{Priority: behind, From: old.From, Table: old.Table}] = struct{}{}
		}
	}
	return want
}

// readRules reads our rules.
func (r *Reconciler) readRules() (err error) {
	r.rules, err = r.ruler().Read()
	return err
}

func (r *Reconciler) ruler() owned.Rules {
	return owned.Rules{Conn: r.conn, Protocol: desired.RouteProtocol}
}
