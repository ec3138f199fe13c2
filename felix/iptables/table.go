package iptables

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// table keeps our chains of one table as wanted, and our jumps in its built-in chains.
type table struct {
	name  string
	tool  *tool
	hooks []hook

	want   map[string]chain
	groups map[string][]string // names of the chains that are replaced together
	drops  map[string]int      // chains in want that drop for a reason, by tag

	have    content
	known   bool                // have is what the kernel holds
	dirty   map[string]struct{} // chains that differ between want and have
	refused map[string]error    // dirty chains that the kernel did not take; not tried again before the next read
	// inherited are the chains that an earlier life of the agent left. Until all is
	// known they are better than what we would write, and stay.
	inherited map[string]struct{}
	left      map[string]hooked // likewise our rules in built-in chains
	writes    int               // transactions that the kernel took
}

func newTable(name string, t *tool) *table {
	return &table{
		name: name, tool: t, want: map[string]chain{}, groups: map[string][]string{}, drops: map[string]int{},
		dirty: map[string]struct{}{}, refused: map[string]error{}, inherited: map[string]struct{}{}, left: map[string]hooked{},
	}
}

func (t *table) set(c chain) {
	old, ok := t.want[c.name]
	if ok && slices.Equal(old.hashes, c.hashes) {
		return
	}
	t.want[c.name] = c
	t.hold(c)
	t.letGo(old)
	delete(t.refused, c.name)
	t.compare(c.name)
}

func (t *table) unset(name string) {
	old := t.want[name]
	delete(t.want, name)
	t.letGo(old)
	delete(t.refused, name)
	t.compare(name)
}

// hook sets our rules in built-in chains.
func (t *table) hook(hooks []hook) {
	before := t.hooks
	t.hooks = hooks
	for _, h := range hooks {
		t.hold(h.chain)
	}
	for _, h := range before {
		t.letGo(h.chain)
	}
}

// hold makes the chains that drop for the reasons which c has.
func (t *table) hold(c chain) {
	for _, tag := range c.tags() {
		if t.drops[tag]++; t.drops[tag] == 1 {
			t.set(dropFor(tag))
		}
	}
}

// letGo forgets the chains that drop for reasons which only c had.
func (t *table) letGo(c chain) {
	for _, tag := range c.tags() {
		if t.drops[tag]--; t.drops[tag] == 0 {
			delete(t.drops, tag)
			t.unset(dropChain(tag))
		}
	}
}

// replace sets chains and unsets those that the group had before.
func (t *table) replace(group string, chains []chain) {
	names := make([]string, len(chains))
	for i, c := range chains {
		names[i] = c.name
		t.set(c)
	}
	for _, name := range t.groups[group] {
		if !slices.Contains(names, name) {
			t.unset(name)
		}
	}
	t.groups[group] = names
}

func (t *table) compare(name string) {
	want, wanted := t.want[name]
	have, there := t.have.chains[name]
	if wanted == there && slices.Equal(want.hashes, have) {
		delete(t.dirty, name)
	} else {
		t.dirty[name] = struct{}{}
	}
}

// read takes in what the kernel holds.
func (t *table) read() error {
	t.known = false
	r, err := t.tool.read(t.name)
	if err != nil {
		return fmt.Errorf("table %s: %w", t.name, err)
	}
	t.take(r.tables[t.name])
	clear(t.refused)
	return nil
}

func (t *table) take(c content) {
	t.have, t.known = c, true
	clear(t.dirty)
	for name := range t.want {
		t.compare(name)
	}
	for name := range t.have.chains {
		t.compare(name)
	}
}

// inherit makes the chains that are there stay until release. The tries are made
// of what is there and of what is known.
func (t *table) inherit() {
	for name := range t.have.chains {
		if !trieName.MatchString(name) {
			t.inherited[name] = struct{}{}
		}
	}
	maps.Copy(t.left, t.have.hooks)
}

func (t *table) release() {
	clear(t.inherited)
	clear(t.left)
}

// frozen reports whether a chain stays as an earlier life of the agent left it:
// if nobody else has changed it since. The chains of an endpoint do while they
// are of the same attachment, which their first rule tells.
func (t *table) frozen(name string) bool {
	if _, ok := t.inherited[name]; !ok {
		return false
	}
	have, there := t.have.chains[name]
	if !there || slices.Contains(have, "") {
		return false
	}
	switch {
	case strings.HasPrefix(name, fromPrefix), strings.HasPrefix(name, toPrefix):
		want, wanted := t.want[name]
		return !wanted || len(have) > 0 && have[0] == want.hashes[0]
	case strings.HasPrefix(name, ingressPrefix), strings.HasPrefix(name, egressPrefix):
		return true
	}
	return len(have) > 0
}

// hooked reports whether our jumps are where they belong, each once, and, in a
// sweep, nowhere else.
func (t *table) hooked(sweep bool) bool {
	for builtin, want := range t.hooksByChain(sweep) {
		have := t.have.hooks[builtin]
		var hashes []string
		for _, h := range want {
			hashes = append(hashes, h.chain.hashes...)
			if h.first && !h.heads(have.head) {
				return false
			}
		}
		if !slices.Equal(slices.Sorted(slices.Values(hashes)), slices.Sorted(slices.Values(have.hashes))) {
			return false
		}
	}
	return true
}

// hooksByChain returns the jumps that built-in chains shall have: in a sweep none
// is for chains in which we want none and had some. Those that are as an earlier
// life of the agent left them stay so, and are no part of it.
func (t *table) hooksByChain(sweep bool) map[string][]hook {
	by := map[string][]hook{}
	if sweep {
		for builtin := range t.have.hooks {
			by[builtin] = nil
		}
	}
	for _, h := range t.hooks {
		if left, ok := t.left[h.builtin]; !ok || !left.equal(t.have.hooks[h.builtin]) {
			by[h.builtin] = append(by[h.builtin], h)
		}
	}
	return by
}

// maxRounds bounds how often apply fights another program for the head of a
// built-in chain before it leaves that to the next retry.
const maxRounds = 3

// apply makes the kernel hold what is wanted, all but what is frozen; in a sweep
// it removes what is ours and not wanted. It writes nothing where nothing differs.
func (t *table) apply(ctx context.Context, sweep bool) error {
	for range maxRounds {
		if !t.known {
			if err := t.read(); err != nil {
				return err
			}
		}
		p := t.pending(sweep)
		if p.empty() {
			return t.refusals()
		}
		if err := t.push(ctx, p); err != nil {
			t.known = false
			return fmt.Errorf("table %s: %w", t.name, err)
		}
		if err := t.check(); err != nil {
			return err
		}
	}
	if t.known {
		return t.refusals()
	}
	return fmt.Errorf("table %s: another program keeps putting rules before our jumps", t.name)
}

func (t *table) refusals() error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(t.refused)) {
		errs = append(errs, fmt.Errorf("table %s: chain %s: %w", t.name, name, t.refused[name]))
	}
	return errors.Join(errs...)
}

// pending says what is to be done.
func (t *table) pending(sweep bool) plan {
	p := plan{hooks: !t.hooked(sweep), sweep: sweep}
	for name := range t.dirty {
		c, wanted := t.want[name]
		switch {
		case t.refused[name] != nil || t.frozen(name):
		case wanted:
			p.set(c)
		case sweep:
			p.drop = append(p.drop, name)
		}
	}
	slices.Sort(p.drop)
	return p
}

// settled reports whether there is nothing to be done.
func (t *table) settled(sweep bool) bool {
	p := t.pending(sweep)
	return t.known && p.empty()
}

// check looks whether our jumps are still first, now that we have written: another
// program may have put its own there since we read. If so, the table is read
// again. Where that would take a program's start, it is left to Firewall.Check.
func (t *table) check() error {
	if t.tool.flavour == Legacy {
		return nil
	}
	for builtin, hooks := range t.hooksByChain(false) {
		for _, h := range hooks {
			if !h.first {
				continue
			}
			head, err := t.tool.head(t.name, builtin)
			if err != nil {
				return fmt.Errorf("table %s: %w", t.name, err)
			}
			if !h.heads(head) {
				t.known = false
			}
		}
	}
	return nil
}
