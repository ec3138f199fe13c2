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

// maxFirsts is how often in one Apply only the first of several refusals is
// believed.
const maxFirsts = 16

// blame finds out what was refused and leaves it out from now on. Only the first
// part counts in which something was: what comes later may have been refused
// because of that.
func (t *Table) blame(parts []*part, refusals []nlsock.Refusal) {
	first := 0
	for _, one := range parts {
		n := 0
		for n < len(refusals) && refusals[n].Index < first+one.Count() {
			refusals[n].Index -= first
			n++
		}
		first += one.Count()
		if n == 0 {
			continue
		}
		refusals = refusals[:n]
		if t.firsts < maxFirsts && one.infectious(refusals) {
			t.firsts++
			refusals = refusals[:1]
		}
		t.refuseAll(one, refusals)
		return
	}
}

// refuseAll leaves out what messages of one part were about, unless some of the
// refusals say that what is there is to be read again first.
func (t *Table) refuseAll(p *part, refusals []nlsock.Refusal) {
	doubts := t.doubts
	for _, r := range refusals {
		if s := p.about(r.Index); doubts < maxDoubts && s.doubtful(r.Err) {
			t.doubt(s)
		}
	}
	if t.doubts > doubts {
		return
	}
	var last *step
	for _, r := range refusals {
		if s := p.about(r.Index); s != last { // a chain may have several bad rules
			t.refuse(s, r.Err)
			last = s
		}
	}
}

// about returns the step that a message belongs to.
func (p *part) about(message int) *step {
	after, _ := slices.BinarySearchFunc(p.steps, message+1, func(s step, at int) int { return s.first - at })
	return &p.steps[after-1]
}

// infectious reports whether the first refusal may be the reason of the others.
// When the kernel finds by a last look that rules do not fit where packets reach
// them, it goes through the transaction again and takes that look after every
// message: the first that fails is guilty, and all after it fail as well.
func (p *part) infectious(refusals []nlsock.Refusal) bool {
	err := refusals[0].Err
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EMLINK) && !errors.Is(err, unix.ELOOP) {
		return false
	}
	looks := 0 // messages from the first on after which it is taken
	for i := range p.steps {
		s, end := &p.steps[i], p.Count()
		if i+1 < len(p.steps) {
			end = p.steps[i+1].first
		}
		if s.action == writeRules || s.action == addElements {
			looks += max(0, end-max(s.first, refusals[0].Index))
		}
	}
	return len(refusals) > 1 && len(refusals) == looks
}

// refuse leaves out what a step was about.
func (t *Table) refuse(s *step, err error) {
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
			s.set.suspect(s.keys)
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
	case s.set != nil && s.set.have != nil && (s.action == addElements || s.action == delElements):
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
