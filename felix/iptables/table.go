package iptables

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// table keeps our chains of one table as wanted, and our jumps in its built-in chains.
type table struct {
	name  string
	tool  *tool
	hooks []hook

	want    map[string]chain
	have    content
	known   bool                // have is what the kernel holds
	dirty   map[string]struct{} // chains that differ between want and have
	refused map[string]error    // dirty chains that the kernel did not take; not tried again before the next read
}

func newTable(name string, t *tool, hooks []hook, chains []chain) *table {
	tb := &table{
		name: name, tool: t, hooks: hooks,
		want: map[string]chain{}, dirty: map[string]struct{}{}, refused: map[string]error{},
	}
	for _, c := range chains {
		tb.set(c)
	}
	return tb
}

func (t *table) set(c chain) {
	if old, ok := t.want[c.name]; ok && slices.Equal(old.hashes, c.hashes) {
		return
	}
	t.want[c.name] = c
	delete(t.refused, c.name)
	t.compare(c.name)
}

func (t *table) unset(name string) {
	delete(t.want, name)
	delete(t.refused, name)
	t.compare(name)
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
func (t *table) read(ctx context.Context) error {
	t.known = false
	out, err := t.tool.save(ctx, t.name)
	if err != nil {
		return fmt.Errorf("table %s: %w", t.name, err)
	}
	t.have, t.known = parseSave(out), true
	clear(t.refused)
	clear(t.dirty)
	for name := range t.want {
		t.compare(name)
	}
	for name := range t.have.chains {
		t.compare(name)
	}
	return nil
}

// hooked reports whether our jumps are where they belong, each once, and nowhere else.
func (t *table) hooked() bool {
	for builtin, want := range t.hooksByChain() {
		have := t.have.hooks[builtin]
		var hashes []string
		for _, h := range want {
			hashes = append(hashes, h.chain.hashes[0])
			if h.first && have.first != h.chain.hashes[0] {
				return false
			}
		}
		if !slices.Equal(slices.Sorted(slices.Values(hashes)), slices.Sorted(slices.Values(have.hash))) {
			return false
		}
	}
	return true
}

// hooksByChain returns the jumps that every built-in chain shall have: none is
// for chains in which another version of ours left some.
func (t *table) hooksByChain() map[string][]hook {
	by := map[string][]hook{}
	for builtin := range t.have.hooks {
		by[builtin] = nil
	}
	for _, h := range t.hooks {
		by[h.builtin] = append(by[h.builtin], h)
	}
	return by
}

// scope says what apply may touch.
type scope struct {
	sweep bool              // chains of ours that nobody wants may go
	leave func(string) bool // these chains stay as they are for now
}

// maxRounds bounds how often apply fights another program for the head of a
// built-in chain before it leaves that to the next retry.
const maxRounds = 3

// apply makes the kernel hold what is wanted. It writes nothing when it does.
func (t *table) apply(ctx context.Context, s scope) error {
	for range maxRounds {
		if !t.known {
			if err := t.read(ctx); err != nil {
				return err
			}
		}
		p := t.pending(s)
		if p.empty() {
			return t.refusals()
		}
		if err := t.push(ctx, p); err != nil {
			t.known = false
			return fmt.Errorf("table %s: %w", t.name, err)
		}
		if err := t.check(ctx); err != nil {
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
func (t *table) pending(s scope) plan {
	p := plan{hooks: !t.hooked()}
	for name := range t.dirty {
		c, wanted := t.want[name]
		switch {
		case t.refused[name] != nil || s.leave(name):
		case wanted:
			p.set(c)
		case s.sweep:
			p.drop = append(p.drop, name)
		}
	}
	slices.Sort(p.drop)
	return p
}

// check looks whether our jumps are still first, now that we have written:
// another program may have put its own there meanwhile, or may have written
// back a table that it had read before. If so, the table is read again.
func (t *table) check(ctx context.Context) error {
	for _, h := range t.hooks {
		if !h.first {
			continue
		}
		out, err := t.tool.head(ctx, t.name, h.builtin)
		if err != nil {
			return fmt.Errorf("table %s: look at the head of %s: %w", t.name, h.builtin, err)
		}
		if ruleHash(string(out)) != h.chain.hashes[0] {
			t.known = false
		}
	}
	return nil
}
