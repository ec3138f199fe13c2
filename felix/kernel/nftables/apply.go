package nftables

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/kernel/nlsock"
)

// The limits of Apply. A transaction larger than splitBytes is preceded by what
// may be written before it, part by part. Every round in which something is
// refused, or others wrote meanwhile, is followed by another, until there were
// maxRounds of them and maxStorm is over: others may write without a pause.
const (
	splitBytes = 1 << 20
	maxRounds  = 40
	maxStorm   = 2 * time.Second
)

// Apply makes the table as wanted, and writes nothing when it is. It reads the
// table first where that was not done, or what was written before is in doubt,
// or others were heard to change it. The error names what was refused, which
// does not hold back the rest; other errors leave what they concern pending.
func (t *Table) Apply(ctx context.Context) error {
	t.doubts, t.firsts = 0, 0
	for n, began := 0, time.Now(); n < maxRounds || time.Since(began) < maxStorm; n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := t.catchUp(); err != nil {
			return fmt.Errorf("table %s: %w", t.name, err)
		}
		p, err := t.plan()
		if err != nil {
			return fmt.Errorf("table %s: %w", t.name, err)
		}
		all := p.all()
		if len(all) == 0 {
			return t.refusal()
		}
		if err := t.push(p, all); err != nil {
			return fmt.Errorf("table %s: %w", t.name, err)
		}
	}
	return errors.Join(fmt.Errorf("table %s: not as wanted after %d attempts and %s", t.name, maxRounds, maxStorm), t.refusal())
}

// push writes a plan, or as much of it as is not refused. It returns an error
// when another attempt makes no sense now.
func (t *Table) push(p *plan, all []*part) error {
	size := 0
	for _, one := range all {
		size += one.Size()
	}
	if size <= splitBytes || p.whole {
		done, err := t.commit(all, t.generation)
		// A table that was to be made anew is as it was.
		t.known = t.known && (done || !p.whole)
		return err
	}
	return t.unheard(func() error {
		var rest []*part
		for l := range levels {
			for _, one := range p.fresh[l] {
				// Whatever others write, it is right to write this.
				if done, err := t.commit([]*part{one}, 0); err != nil || !done {
					return err
				}
			}
			rest = append(rest, p.changed[l]...)
		}
		_, err := t.commit(rest, t.generation)
		return err
	})
}

// unheard does a large work while nobody listens to notifications, so that the
// kernel need not write one of each object. If any but our transactions were
// there meanwhile, the generation tells.
func (t *Table) unheard(work func() error) error {
	if err := t.ears.listener.Pause(); err != nil {
		return err
	}
	ours := t.generation
	t.mine = 0
	err := work()
	if resumed := t.ears.listener.Resume(); resumed != nil {
		t.known = false
		return errors.Join(err, resumed)
	}
	if generation := t.readGeneration(); generation != nil {
		t.known = false
		return errors.Join(err, generation)
	}
	if t.generation != ours+t.mine {
		t.known = false
	}
	return err
}

// commit writes parts as one transaction, of a generation or with 0 of any, and
// reports whether it was taken.
func (t *Table) commit(parts []*part, generation uint32) (done bool, err error) {
	if len(parts) == 0 {
		return true, nil
	}
	t.stats.Transactions++
	bodies := make([][]byte, 0, len(parts))
	for _, one := range parts {
		bodies = append(bodies, one.Bytes())
		t.stats.Messages += one.Count()
		t.stats.Bytes += one.Size()
	}
	refusals, err := t.conn.Commit(subsystem, generation, bodies...)
	switch {
	case errors.Is(err, unix.ERESTART): // somebody else wrote, maybe to this table
		return false, t.readGeneration()
	case err != nil:
		t.known = false
		return false, err
	case len(refusals) > 0:
		t.blame(parts, refusals)
		return false, nil
	}
	t.mine++
	if t.generation++; t.generation == 0 {
		t.generation = 1
	}
	for _, one := range parts {
		for i := range one.steps {
			t.settle(&one.steps[i])
		}
	}
	return true, nil
}

// settle enters into the books what a step has made.
func (t *Table) settle(s *step) {
	switch s.action {
	case makeTable:
		t.there, t.dormant = true, false
	case makeSet:
		h := *s.set.wanted
		s.set.have = &h
	case emptySet:
		s.set.elements.Resync(func(func(Key, Verdict) bool) {})
		s.set.odd = false
	case addElements:
		for _, k := range s.keys {
			s.set.elements.Done(k)
		}
		s.set.suspects = nil
	case delElements:
		for _, k := range s.keys {
			s.set.elements.Gone(k)
		}
	case makeChain:
		s.chain.have = &found{base: s.content.base, hash: noRules}
	case setPolicy:
		s.chain.have.base = s.content.base
	case emptyChain:
		s.chain.have.hash = noRules
	case writeRules:
		s.chain.have.hash = s.content.hash
	case removeSet:
		s.set.have = nil
	case removeChain:
		s.chain.have = nil
	}
	if s.set != nil {
		t.markSet(s.set)
	}
	if s.chain != nil {
		t.markChain(s.chain)
	}
}

// catchUp makes what is known of the kernel complete.
func (t *Table) catchUp() error {
	if err := t.recheck(); err != nil {
		return err
	}
	if !t.known {
		if err := t.read(); err != nil {
			return err
		}
	}
	for s := range t.dirtySets {
		if !s.unread || s.wanted == nil || s.have == nil || *s.wanted != *s.have {
			continue
		}
		if err := t.readElements(s); err != nil {
			return fmt.Errorf("read %s: %w", s.name, err)
		}
		t.markSet(s)
	}
	return nil
}

// mismatch says which object that is there has to be made anew, though others may
// refer to it: then the whole table is.
func (t *Table) mismatch() error {
	for s := range t.dirtySets {
		if s.wanted != nil && s.have != nil && *s.wanted != *s.have {
			return fmt.Errorf("set %s is there with another type, and not all that is wanted has been told yet", s.name)
		}
	}
	for c := range t.dirtyChains {
		if c.wanted != nil && c.have != nil && (c.have.base == Hook{}) != (c.wanted.base == Hook{}) {
			return fmt.Errorf("chain %s is there with or without a hook, and not all that is wanted has been told yet", c.name)
		}
	}
	return nil
}

// lost says that nothing is there any more.
func (t *Table) lost() {
	t.there, t.dormant = false, false
	for _, c := range t.chains {
		c.have = nil
		t.markChain(c)
	}
	for _, s := range t.sets {
		s.saw(nil)
		t.markSet(s)
	}
}

// Uninstall removes the table with everything in it. What is wanted stays wanted:
// the next Apply would make it again. The rules go first: while the kernel takes a
// table away, packets still meet the rules of its hooks, and maps that are empty.
func (t *Table) Uninstall(context.Context) error {
	var rules, table nlsock.Messages
	t.flushTable(&rules)
	t.delTable(&table)
	t.known = false
	for _, m := range []*nlsock.Messages{&rules, &table} {
		t.stats.Transactions++
		t.stats.Messages++
		refusals, err := t.conn.Commit(subsystem, 0, m.Bytes())
		for _, r := range refusals {
			if !errors.Is(r.Err, unix.ENOENT) {
				err = r.Err
			}
		}
		if err != nil {
			return fmt.Errorf("remove table %s: %w", t.name, err)
		}
	}
	return nil
}
