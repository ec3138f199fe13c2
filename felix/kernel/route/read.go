package route

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"golang.org/x/sys/unix"
)

// Resync implements apply.Reconciler.
func (r *Reconciler) Resync(context.Context) error {
	r.hops.stale = true
	r.tryEncrypted()
	return r.resync()
}

func (r *Reconciler) resync() error {
	if err := r.links.read(); err != nil {
		return fmt.Errorf("read interfaces: %w", err)
	}
	all, err := r.dump()
	if err != nil {
		return err
	}
	if err := r.readRules(); err != nil {
		return err
	}
	r.tracker.Resync(maps.All(all))
	r.stale = false
	clear(r.changed)
	return nil
}

// lookAgain reads what notifications said may have changed.
func (r *Reconciler) lookAgain() error {
	if r.stale {
		return r.resync()
	}
	for dev := range r.changed {
		if err := r.lookAtLink(dev); err != nil {
			return fmt.Errorf("read routes of %s: %w", dev, err)
		}
		delete(r.changed, dev)
	}
	return nil
}

// lookAtLink asks for the wanted routes of one workload, each by itself: a dump,
// filtered or not, makes the kernel walk all routes, 50 ms of 100,000.
func (r *Reconciler) lookAtLink(dev string) error {
	if _, err := r.links.index(dev); err != nil && !errors.Is(err, unix.ENODEV) {
		return err
	}
	for prefix := range r.local[dev] {
		k := r.place.key(prefix)
		answer, found, err := r.ask(k)
		switch {
		case err != nil:
			return err
		case found == nowhere:
			r.tracker.Gone(k)
		case found == there:
			r.tracker.Saw(k, answer)
		case found == hidden:
			return r.resync()
		}
	}
	return nil
}

// finding is what asking for one route came to.
type finding uint8

// hidden: a policy routing rule leads to another table, so that asking does not
// tell what is in ours.
const (
	nowhere finding = iota
	there
	hidden
)

// ask asks the kernel by which route it would reach the single address of k.
func (r *Reconciler) ask(k key) (answer entry, found finding, err error) {
	if !k.prefix.IsSingleIP() {
		return entry{}, hidden, nil // maybe behind a longer prefix
	}
	err = r.conn.Get(question(k.prefix.Addr()), func(body []byte) error {
		if tableOf(body) != k.table {
			found = hidden
		} else if at, e, ours := decode(unix.RTM_NEWROUTE, body, r.links.name); ours && at == k {
			answer, found = e, there
		}
		return nil
	})
	if errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH) {
		err = nil
	}
	return answer, found, err
}

// dump reads our routes.
func (r *Reconciler) dump() (map[key]entry, error) {
	all := map[key]entry{}
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		found := map[key]entry{}
		err := r.conn.Dump(dumpRequest(family), func() { clear(found) }, func(kind uint16, body []byte) error {
			if k, e, ok := decode(kind, body, r.links.name); ok {
				found[k] = e
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("read routes: %w", err)
		}
		maps.Copy(all, found)
	}
	return all, nil
}
