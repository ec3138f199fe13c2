package ipset

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/delta"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/nlsock"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
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
		members, plain, err := s.readMembers(one.name)
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		if !plain { // somebody added exceptions, which no member of ours overrides
			return s.rebuild(one)
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
	return s.fill(one.name, one.wanted.kind, func(yield func(int, ir.Member) bool) {
		for m, c := range one.members.Pending() {
			cmd := nl.IPSET_CMD_ADD
			if c.Op == delta.Remove {
				cmd = nl.IPSET_CMD_DEL
			}
			if !yield(cmd, m) {
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
	err := s.fill(temp, one.wanted.kind, func(yield func(int, ir.Member) bool) {
		for m := range one.members.AllWanted() {
			if !yield(nl.IPSET_CMD_ADD, m) {
				return
			}
		}
	}, func(ir.Member) {})
	if err == nil {
		err = s.takePlace(temp, one.name)
	}
	if err != nil {
		return errors.Join(err, s.destroy(temp))
	}
	one.have, one.unread = one.wanted, false
	for m := range one.members.Pending() {
		one.members.Done(m)
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
func (s *Sets) fill(name, kind string, changes iter.Seq2[int, ir.Member], done func(ir.Member)) error {
	var members []ir.Member
	var requests []*nlsock.Request
	for cmd, m := range changes {
		members, requests = append(members, m), append(requests, member(cmd, name, kind, m))
	}
	s.writes += len(requests)
	failed := 0
	var first error
	err := s.conn.Batch(requests, func(i int, err error) {
		switch {
		case err == nil:
			done(members[i])
		case failed == 0:
			first = fmt.Errorf("member %s: %w", printed(members[i]), err)
			fallthrough
		default:
			failed++
		}
	})
	if failed > 1 {
		first = fmt.Errorf("%d of %d members, first %w", failed, len(members), first)
	}
	return errors.Join(first, err)
}

// printed returns a member as ipset prints it.
func printed(m ir.Member) string {
	switch {
	case m.Protocol != policy.AnyProtocol:
		return fmt.Sprintf("%s,%s:%d", m.Prefix.Addr(), strings.ToLower(m.Protocol.String()), m.Port)
	case m.Prefix.IsSingleIP():
		return m.Prefix.Addr().String()
	}
	return m.Prefix.String()
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
