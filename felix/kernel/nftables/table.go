package nftables

import (
	"errors"
	"fmt"
	"maps"

	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/kernel/nlsock"
)

// Table keeps one table of nf_tables as desired. It is used by one goroutine at
// a time, Watch aside.
type Table struct {
	family Family
	name   string
	conn   *nlsock.Conn
	ears   *ears

	there   bool // the table is in the kernel
	dormant bool // and somebody has switched it off
	known   bool // what is there was read, and nothing said since that it is wrong
	removal bool // what is not wanted may be removed
	// generation of the kernel's rules as of which we know what is there.
	generation uint32
	mine       uint32 // transactions of ours, for unheard

	chains map[string]*chain // wanted, there or both
	sets   map[string]*set   // and maps, which share their names
	// What may have to be written: the rest is never looked at.
	dirtyChains map[*chain]struct{}
	dirtySets   map[*set]struct{}

	refused map[Object]error
	shut    *content        // of chains that are closed
	doubts  int             // how often in this Apply a refusal was answered by reading
	firsts  int             // how often only the first of many was believed
	scratch nlsock.Messages // for encoding a chain that is probably known
	stats   Stats
}

// Stats count what was sent to the kernel, for tests and benchmarks.
type Stats struct {
	Transactions int // committed or refused
	Messages     int // in them, begin and end not counted
	Bytes        int
}

// Open returns the Table of a family and name in the network namespace of the
// calling thread. Nothing is read or written yet.
func Open(family Family, name string) (*Table, error) {
	conn, err := nlsock.Open(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("nftables: %w", err)
	}
	listener, err := nlsock.Listen(unix.NETLINK_NETFILTER, conn.Port(), unix.NFNLGRP_NFTABLES)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("nftables: %w", err)
	}
	t := &Table{
		family: family, name: name, conn: conn,
		ears:   &ears{listener: listener, family: family, table: name},
		chains: map[string]*chain{}, sets: map[string]*set{},
		dirtyChains: map[*chain]struct{}{}, dirtySets: map[*set]struct{}{},
		refused: map[Object]error{},
	}
	t.shut, _ = encode(Hook{}, closed, nil, &t.scratch)
	return t, nil
}

// Close closes the sockets. The table stays as it is. Watch must have ended.
func (t *Table) Close() error { return errors.Join(t.conn.Close(), t.ears.listener.Close()) }

// AllowRemoval says that all that is wanted has been told: from now on Apply
// removes the chains, sets, maps and elements of maps that are not wanted.
// (Members of a wanted set, and rules of a wanted chain, are always made equal.)
func (t *Table) AllowRemoval() {
	if t.removal {
		return
	}
	t.removal = true
	for _, c := range t.chains {
		t.markChain(c)
	}
	for _, s := range t.sets {
		t.markSet(s)
	}
}

// WantChain makes c a chain of the table, in place of the one that had its name.
// c is not used after the call. A chain that is wanted already costs encoding and
// a hash. Chains that its rules jump to must be wanted too when Apply is called,
// and sets likewise.
func (t *Table) WantChain(c Chain) {
	one := t.chain(c.Name)
	if one.want(c, t.shut, &t.scratch) {
		delete(t.refused, Object{Kind: AChain, Name: c.Name})
		if err := one.wanted.err; err != nil {
			t.refused[Object{Kind: AChain, Name: c.Name}] = err
		}
		t.markChain(one)
	}
}

// UnwantChain makes the chain unwanted.
func (t *Table) UnwantChain(name string) {
	if one := t.chains[name]; one != nil && one.wanted != nil {
		delete(t.refused, Object{Kind: AChain, Name: name})
		one.unwant()
		t.markChain(one)
	}
}

// WantSet makes s a set of the table. A set that had its name keeps its wanted
// members, if its keys are made the same way.
func (t *Table) WantSet(s Set) {
	t.wantSet(ASet, s.Name, setHeader(s.Key, s.Interval))
}

// WantMap makes m a map of the table. A map that had its name keeps its wanted
// elements, if its keys are made the same way.
func (t *Table) WantMap(m Map) {
	t.wantSet(AMap, m.Name, mapHeader(m.Key))
}

// UnwantSet makes the set, and what is in it, unwanted.
func (t *Table) UnwantSet(name string) { t.unwantSet(name) }

// UnwantMap makes the map, and what is in it, unwanted.
func (t *Table) UnwantMap(name string) { t.unwantSet(name) }

// SetMembers makes all the members of a wanted set, whatever it had.
func (t *Table) SetMembers(set string, all ...Key) {
	s := t.member(set)
	s.replace(all)
	t.markSet(s)
}

// WantMembers adds members to a wanted set.
func (t *Table) WantMembers(set string, add ...Key) {
	s := t.member(set)
	for _, k := range add {
		s.want(k, "")
	}
	t.markSet(s)
}

// UnwantMembers takes members out of a wanted set.
func (t *Table) UnwantMembers(set string, del ...Key) {
	s := t.member(set)
	for _, k := range del {
		s.unwant(k)
	}
	t.markSet(s)
}

// WantVerdict makes v what a wanted map says about k.
func (t *Table) WantVerdict(m string, k Key, v Verdict) {
	s := t.member(m)
	s.want(k, v)
	t.markSet(s)
}

// UnwantVerdict makes a wanted map say nothing about k.
func (t *Table) UnwantVerdict(m string, k Key) {
	s := t.member(m)
	s.unwant(k)
	t.markSet(s)
}

// Refused returns what the kernel did not take, with the reason: since the last
// Resync, as long as it is wanted unchanged. A chain is closed by its Fallback
// then; a set, a map, a member or an element is not there, and chains that refer
// to a refused set or map are refused too.
func (t *Table) Refused() map[Object]error { return maps.Clone(t.refused) }

// Stats returns what was sent since Open.
func (t *Table) Stats() Stats { return t.stats }

// refusal returns what Apply reports about what was refused: for each reason, one
// object and how many there are.
func (t *Table) refusal() error {
	first, count := map[string]Object{}, map[string]int{}
	for o, err := range t.refused {
		text := err.Error()
		if have, ok := first[text]; !ok || o.less(have) {
			first[text] = o
		}
		count[text]++
	}
	var errs []error
	for text, o := range first {
		err := fmt.Errorf("%s: %w", o, t.refused[o])
		if count[text] > 1 {
			err = fmt.Errorf("%w (and %d more)", err, count[text]-1)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (t *Table) chain(name string) *chain {
	one := t.chains[name]
	if one == nil {
		one = &chain{name: name}
		t.chains[name] = one
	}
	return one
}

func (t *Table) set(name string) *set {
	s := t.sets[name]
	if s == nil {
		s = &set{name: name, kind: ASet, table: t}
		s.forget()
		t.sets[name] = s
	}
	return s
}

// member returns a set or map that is wanted.
func (t *Table) member(name string) *set {
	s := t.sets[name]
	if s == nil || s.wanted == nil {
		panic("bug: members of a set that is not wanted: " + name)
	}
	return s
}

func (t *Table) wantSet(kind Kind, name string, h header) {
	s := t.set(name)
	if s.wanted == nil || *s.wanted != h {
		delete(t.refused, Object{Kind: s.kind, Name: name})
		s.begin(kind, h)
		t.markSet(s)
	}
}

func (t *Table) unwantSet(name string) {
	s := t.sets[name]
	if s == nil || s.wanted == nil {
		return
	}
	for o := range t.refused {
		if o.Kind == s.kind && o.Name == name {
			delete(t.refused, o)
		}
	}
	s.end()
	t.markSet(s)
}

// markChain keeps book of whether c has to be written.
func (t *Table) markChain(c *chain) {
	switch {
	case c.wanted == nil && c.have == nil:
		delete(t.chains, c.name)
		delete(t.dirtyChains, c)
	case c.settled(t.removal):
		delete(t.dirtyChains, c)
	default:
		t.dirtyChains[c] = struct{}{}
	}
}

// markSet is markChain for sets and maps.
func (t *Table) markSet(s *set) {
	switch {
	case s.wanted == nil && s.have == nil:
		delete(t.sets, s.name)
		delete(t.dirtySets, s)
	case s.settled(t.removal):
		delete(t.dirtySets, s)
	default:
		t.dirtySets[s] = struct{}{}
	}
}

// less orders objects for messages.
func (o Object) less(p Object) bool {
	if o.Kind != p.Kind {
		return o.Kind < p.Kind
	}
	if o.Name != p.Name {
		return o.Name < p.Name
	}
	return o.Key < p.Key
}

// String names o as a message does.
func (o Object) String() string {
	s := [...]string{"object", "chain", "set", "map"}[o.Kind] + " " + o.Name
	if o.Key != "" {
		s += " element " + o.Key.String()
	}
	return s
}
