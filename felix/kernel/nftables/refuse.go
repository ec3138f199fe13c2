package nftables

import (
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/kernel/nlsock"
)

// maxDoubts is how often in one Apply a refusal is answered by reading again:
// what is there may be other than we knew.
const maxDoubts = 3

// blame finds out what was refused and leaves it out from now on. Only the first
// level counts at which something was: what comes later may have been refused
// because of that.
func (t *Table) blame(parts []*part, refusals []nlsock.Refusal) {
	first := 0
	for _, one := range parts {
		n := 0
		for n < len(refusals) && refusals[n].Index < first+one.Count() {
			message := refusals[n].Index - first
			after, _ := slices.BinarySearchFunc(one.steps, message+1, func(s step, at int) int { return s.first - at })
			t.refuse(&one.steps[after-1], refusals[n].Err)
			n++
		}
		if n > 0 {
			return
		}
		first += one.Count()
	}
}

// refuse leaves out what a step was about.
func (t *Table) refuse(s *step, err error) {
	if t.doubts < maxDoubts && s.doubtful(err) {
		t.doubt(s)
		return
	}
	o := Object{Kind: AChain}
	if s.set != nil {
		o.Kind, o.Name = s.set.kind, s.set.name
	} else if s.chain != nil {
		o.Name = s.chain.name
	}
	switch s.action {
	case makeTable:
		t.known = false
		return
	case makeSet, emptySet, removeSet:
		s.set.refused = true
	case addElements, delElements:
		if len(s.keys) > 1 { // which of them?
			s.set.single = true
			return
		}
		o.Key = s.keys[0]
		s.set.bad[o.Key] = struct{}{}
	case makeChain, setPolicy, emptyChain, removeChain:
		s.chain.hopeless = true
	case writeRules:
		s.chain.hopeless = s.chain.refused || s.chain.wanted.err != nil
		s.chain.refused = true
	}
	if t.refused[o] == nil {
		t.refused[o] = err
	}
	t.mark(s)
}

// doubtful reports whether err says that what is there is not what we knew.
func (s *step) doubtful(err error) bool {
	switch s.action {
	case emptyChain, removeChain, removeSet, delElements, setPolicy, emptySet:
		return errors.Is(err, unix.ENOENT)
	case makeSet, makeChain, addElements:
		return errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EBUSY) || errors.Is(err, unix.ENOTEMPTY)
	}
	return false
}

// doubt reads again what a step was about, before the next attempt.
func (t *Table) doubt(s *step) {
	switch {
	case s.action == addElements || s.action == delElements:
		if !s.set.unread { // else another message of this set was refused as well
			t.doubts++
			s.set.unread = true
		}
	case t.known:
		t.doubts++
		t.known = false
	}
}

// mark keeps book of whether what a step was about has to be written.
func (t *Table) mark(s *step) {
	if s.set != nil {
		t.markSet(s.set)
	}
	if s.chain != nil {
		t.markChain(s.chain)
	}
}
