package ipset

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/delta"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/nlsock"
)

// Adder is the apply.Reconciler that makes sets and changes their members. It
// stands before the rules.
type Adder struct{ *Sets }

// Remover is the apply.Reconciler that destroys sets nobody wants. It stands
// after the rules, in a later phase than Adder.
type Remover struct{ *Sets }

// Name implements apply.Reconciler.
func (Adder) Name() string { return "ipset" }

// Name implements apply.Reconciler.
func (Remover) Name() string { return "ipset-remove" }

// Want implements apply.Reconciler, for both.
func (a Adder) Want(d desired.Delta) { a.want(d) }

// Want implements apply.Reconciler: Adder, which comes first, has taken d in.
func (Remover) Want(desired.Delta) {}

// Resync implements apply.Reconciler, for both.
func (a Adder) Resync(context.Context) error { return a.resync() }

// Resync implements apply.Reconciler: what Adder read is shared, and what keeps
// a set from being destroyed is not in the set.
func (Remover) Resync(context.Context) error { return nil }

// Apply implements apply.Reconciler.
func (a Adder) Apply(context.Context) error {
	var errs []error
	for name, one := range a.sets { // a few thousand at most; a settled one costs nothing
		if one.wanted == nil {
			continue
		}
		if err := a.mend(one); err != nil {
			errs = append(errs, fmt.Errorf("set %s: %w", name, inWords(err)))
		}
	}
	return errors.Join(errs...)
}

// Apply implements apply.Reconciler.
func (r Remover) Apply(context.Context) error {
	if !r.complete {
		return nil
	}
	var errs []error
	for name, one := range r.sets {
		if one.wanted != nil {
			continue
		}
		if err := r.destroy(name); err != nil {
			errs = append(errs, fmt.Errorf("destroy set %s: %w", name, inWords(err)))
			continue
		}
		delete(r.sets, name)
	}
	return errors.Join(errs...)
}

// mend makes one wanted set as it should be.
func (s *Sets) mend(one *set) error {
	if one.have == nil {
		if err := s.do(creation(one.name, one.wanted)); err != nil {
			return err
		}
		one.have = one.wanted
	}
	if *one.have != *one.wanted {
		return s.rebuild(one)
	}
	if one.unread {
		members, err := s.readMembers(one.name)
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		one.members.Resync(maps.All(members))
		one.unread = false
	}
	return s.change(one)
}

// change adds and removes pending members.
func (s *Sets) change(one *set) error {
	if one.members.Settled() {
		return nil
	}
	return s.fill(one.name, func(yield func(int, netip.Addr) bool) {
		for a, c := range one.members.Pending() {
			cmd := nl.IPSET_CMD_ADD
			if c.Op == delta.Remove {
				cmd = nl.IPSET_CMD_DEL
			}
			if !yield(cmd, a) {
				return
			}
		}
	}, one.members.Done)
}

// rebuild replaces a set that was made otherwise by a new one, in one step if
// the kernel finds the two alike enough. Where it does not and rules refer to
// the old one, only the rules' going can help.
func (s *Sets) rebuild(one *set) error {
	temp := temporary(one.name)
	if err := s.destroy(temp); err != nil {
		return err
	}
	if err := s.do(creation(temp, one.wanted)); err != nil {
		return err
	}
	err := s.fill(temp, func(yield func(int, netip.Addr) bool) {
		for a := range one.members.AllWanted() {
			if !yield(nl.IPSET_CMD_ADD, a) {
				return
			}
		}
	}, func(netip.Addr) {})
	if err == nil {
		err = s.takePlace(temp, one.name)
	}
	if err != nil {
		return errors.Join(err, s.destroy(temp))
	}
	one.have, one.unread = one.wanted, false
	for a := range one.members.Pending() {
		one.members.Done(a)
	}
	return nil
}

// takePlace makes temp the set of this name and destroys the one that was.
func (s *Sets) takePlace(temp, name string) error {
	err := s.do(exchange(nl.IPSET_CMD_SWAP, temp, name))
	if err == nil {
		return s.destroy(temp)
	}
	if !errors.Is(err, errMismatch) {
		return err
	}
	if err := s.destroy(name); err != nil {
		return err
	}
	return s.do(exchange(nl.IPSET_CMD_RENAME, temp, name))
}

// fill adds and deletes members and calls done for each that succeeded.
func (s *Sets) fill(name string, changes iter.Seq2[int, netip.Addr], done func(netip.Addr)) error {
	var addrs []netip.Addr
	var requests []*nlsock.Request
	for cmd, a := range changes {
		addrs, requests = append(addrs, a), append(requests, member(cmd, name, a))
	}
	s.writes += len(requests)
	failed := 0
	var first error
	err := s.conn.Batch(requests, func(i int, err error) {
		switch {
		case err == nil:
			done(addrs[i])
		case failed == 0:
			first = fmt.Errorf("member %s: %w", addrs[i], err)
			fallthrough
		default:
			failed++
		}
	})
	if failed > 1 {
		first = fmt.Errorf("%d of %d members, first %w", failed, len(addrs), first)
	}
	return errors.Join(first, err)
}

// destroy destroys a set; one that is not there is fine.
func (s *Sets) destroy(name string) error {
	if err := s.do(destruction(name)); !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}

func (s *Sets) do(r *nlsock.Request) error {
	s.writes++
	return s.conn.Do(r)
}
