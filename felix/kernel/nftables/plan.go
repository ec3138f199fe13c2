package nftables

import (
	"cmp"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/delta"
	"github.com/koratnet/korat/felix/kernel/nlsock"
)

// level is a place in the order of a transaction: what a level writes refers only
// to what the levels before it have made, and what it takes away is referred to
// only by what they have taken away.
type level int

// The levels, in order.
const (
	toTable   level = iota // the table
	toSets                 // sets and maps, empty
	toMembers              // what is in sets
	toChains               // chains, empty
	toForget               // elements of maps that go or change
	toRules                // the rules of chains
	toSay                  // elements of maps
	toRemove               // sets and maps, then chains
	levels
)

// action is what a step does.
type action uint8

const (
	makeTable action = iota
	makeSet
	emptySet
	addElements
	delElements
	makeChain
	setPolicy
	emptyChain
	writeRules
	removeSet
	removeChain
)

// step is one or more messages in a row that succeed or fail together in our
// books.
type step struct {
	action  action
	first   int // its first message, counted from the beginning of the part
	chain   *chain
	set     *set
	keys    []Key
	content *content // of makeChain, setPolicy and writeRules
}

// part is messages that are sent together.
type part struct {
	nlsock.Messages
	steps []step
}

// pieceBytes is how large a part becomes before another is begun. The kernel's
// hash tables grow between transactions: in one of all members, they would be
// slow from being too small.
const pieceBytes = 256 << 10

// lane is the messages of one level, in parts.
type lane []*part

// step begins a step and returns where its messages are to be added.
func (l *lane) step(s step) *nlsock.Messages {
	if n := len(*l); n == 0 || (*l)[n-1].Size() >= pieceBytes {
		*l = append(*l, &part{})
	}
	at := (*l)[len(*l)-1]
	if at.Size() >= growBytes { // it will be full: growing bit by bit would copy a lot
		at.Grow(pieceBytes + maxElements - at.Size())
	}
	s.first = at.Count()
	at.steps = append(at.steps, s)
	return &at.Messages
}

// last returns the step begun last.
func (l lane) last() *step {
	p := l[len(l)-1]
	return &p.steps[len(p.steps)-1]
}

// growBytes is the size from which a part is expected to become full.
const growBytes = 8 << 10

// plan is what has to be written. fresh is about objects that are not there yet,
// to which therefore nothing refers that packets meet; changed is the rest.
type plan struct {
	fresh, changed [levels]lane
	whole          bool // must not be split
}

// all returns everything in order.
func (p *plan) all() []*part {
	var parts []*part
	for l := range levels {
		parts = append(append(parts, p.fresh[l]...), p.changed[l]...)
	}
	return parts
}

// plan returns what has to be written.
func (t *Table) plan() (*plan, error) {
	p := &plan{}
	// What is in a table that is switched off is not in force: nothing is lost when
	// it goes before all has been told.
	if why := t.mismatch(); why != nil || t.dormant {
		if !t.removal && !t.dormant {
			return nil, why
		}
		p.whole = true
		t.delTable(p.changed[toTable].step(step{action: makeTable}))
		t.lost()
	}
	chains := sorted(t.dirtyChains, func(c *chain) string { return c.name })
	sets := sorted(t.dirtySets, func(s *set) string { return s.name })
	if !t.there && len(chains)+len(sets) > 0 {
		parts := &p.fresh
		if p.whole { // after it was deleted
			parts = &p.changed
		}
		t.newTable(parts[toTable].step(step{action: makeTable}))
	}
	for _, s := range sets {
		t.planSet(p, s)
	}
	for _, c := range chains {
		t.planChain(p, c)
	}
	return p, nil
}

func sorted[T any](dirty map[*T]struct{}, name func(*T) string) []*T {
	all := make([]*T, 0, len(dirty))
	for one := range dirty {
		all = append(all, one)
	}
	slices.SortFunc(all, func(a, b *T) int { return cmp.Compare(name(a), name(b)) })
	return all
}

func (t *Table) planSet(p *plan, s *set) {
	if s.settled(t.removal) {
		return
	}
	if s.wanted == nil {
		t.delSet(p.changed[toRemove].step(step{action: removeSet, set: s}), s.name)
		return
	}
	parts, added, gone := &p.changed, toMembers, toMembers
	if s.kind == AMap {
		added, gone = toSay, toForget
	}
	if s.have == nil {
		parts = &p.fresh
		t.newSetMessage(parts[toSets].step(step{action: makeSet, set: s}), s.name, *s.wanted)
	}
	var del, add []Key
	if s.odd {
		t.flushSet(parts[gone].step(step{action: emptySet, set: s}), s.name)
		for k := range s.elements.AllWanted() {
			add = s.unless(k, add)
		}
	} else {
		for k, c := range s.elements.Pending() {
			if c.Op != delta.Create {
				del = s.unless(k, del)
			}
			if c.Op != delta.Remove {
				add = s.unless(k, add)
			}
		}
	}
	t.planElements(&parts[gone], unix.NFT_MSG_DELSETELEM, step{action: delElements, set: s, keys: del})
	t.planElements(&parts[added], unix.NFT_MSG_NEWSETELEM, step{action: addElements, set: s, keys: add})
}

// unless appends k if it was not refused.
func (s *set) unless(k Key, keys []Key) []Key {
	if _, bad := s.bad[k]; bad {
		return keys
	}
	return append(keys, k)
}

// planElements adds or deletes keys, as many in a message as fit, and suspects
// few at a time.
func (t *Table) planElements(into *lane, message int, all step) {
	sure, suspects := all.keys, []Key(nil)
	if len(all.set.suspects) > 0 {
		sure = nil
		for _, k := range all.keys {
			if _, suspect := all.set.suspects[k]; suspect {
				suspects = append(suspects, k)
			} else {
				sure = append(sure, k)
			}
		}
	}
	t.planKeys(into, message, all, sure, len(sure))
	t.planKeys(into, message, all, suspects, all.set.few)
}

// planKeys adds or deletes keys, at most so many in a message.
func (t *Table) planKeys(into *lane, message int, one step, rest []Key, most int) {
	for len(rest) > 0 {
		n := 0
		t.elements(into.step(one), message, one.set, func(element func(Key, Verdict) bool) {
			for full := false; n < min(len(rest), most) && !full; n++ {
				var v Verdict
				if one.action == addElements {
					v, _ = one.set.elements.Wanted(rest[n])
				}
				full = element(rest[n], v)
			}
		})
		into.last().keys, rest = rest[:n], rest[n:]
	}
}

func (t *Table) planChain(p *plan, c *chain) {
	if c.settled(t.removal) {
		return
	}
	parts := &p.changed
	if c.wanted == nil {
		t.flushChain(parts[toRules].step(step{action: emptyChain, chain: c}), c.name)
		t.delChain(parts[toRemove].step(step{action: removeChain, chain: c}), c.name)
		return
	}
	to := c.target()
	have := c.have
	switch {
	case have == nil:
		if to.base == (Hook{}) { // else packets would meet it
			parts = &p.fresh
		}
		t.newChain(parts[toChains].step(step{action: makeChain, chain: c, content: to}), c.name, to.base)
		have = &found{hash: noRules}
	case have.base == to.base:
	case have.base.moved(to.base):
		m := parts[toChains].step(step{action: makeChain, chain: c, content: to})
		t.flushChain(m, c.name)
		t.delChain(m, c.name)
		t.newChain(m, c.name, to.base)
		have = &found{hash: noRules}
	default:
		t.newChain(parts[toChains].step(step{action: setPolicy, chain: c, content: to}), c.name, to.base)
	}
	if have.hash == to.hash {
		return
	}
	if have.hash != noRules {
		t.flushChain(parts[toRules].step(step{action: emptyChain, chain: c}), c.name)
	}
	if len(to.rules) > 0 {
		t.newRules(parts[toRules].step(step{action: writeRules, chain: c, content: to}), c.name, to)
	}
}

// moved reports whether a chain has to be made again to be hooked as o says: of
// what is in a Hook, the kernel lets only the policy be changed.
func (h Hook) moved(o Hook) bool {
	h.Drop, o.Drop = false, false
	return h != o
}
