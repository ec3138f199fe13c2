package iptables

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// plan is what one write to the kernel shall change, all at once.
type plan struct {
	make  map[string]chain
	drop  []string // sorted
	hooks bool     // put our jumps in place
	sweep bool     // and take them from where they are not wanted
}

func (p *plan) set(c chain) {
	if p.make == nil {
		p.make = map[string]chain{}
	}
	p.make[c.name] = c
}

func (p *plan) empty() bool { return len(p.make) == 0 && len(p.drop) == 0 && !p.hooks }

// refusal is the kernel's or the parser's complaint about a script: nothing of
// it was done.
type refusal struct {
	chains []string // whose lines were named
	err    error
}

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

// push writes p. A chain of an endpoint or a policy that is refused is replaced
// by a closed one, so that the others can go on; a chain that cannot be deleted,
// because a rule of somebody else leads to it, is emptied. Both are remembered in
// t.refused.
func (t *table) push(ctx context.Context, p plan) error {
	for {
		err := t.write(ctx, p)
		var r *refusal
		if !errors.As(err, &r) {
			return err
		}
		if t.exclude(&p, r) {
			continue
		}
		// The complaint named no chain. Look for it by halves, dependents last, and
		// write what remains.
		var suspects []chain
		for _, name := range slices.Sorted(maps.Keys(p.make)) {
			if closable.MatchString(name) {
				suspects = append(suspects, p.make[name])
				delete(p.make, name)
			}
		}
		if len(suspects) == 0 {
			return err
		}
		if err := t.isolate(ctx, suspects); err != nil {
			return err
		}
		if p.empty() {
			return nil
		}
	}
}

// exclude takes the chains that r names out of p and reports whether that changed p.
func (t *table) exclude(p *plan, r *refusal) bool {
	changed := false
	for _, name := range r.chains {
		if i, found := slices.BinarySearch(p.drop, name); found {
			p.drop = slices.Delete(p.drop, i, i+1)
			p.set(newChain(name, nil)) // emptied, it holds no other chain in use
		} else if _, there := p.make[name]; there && closable.MatchString(name) && t.refused[name] == nil {
			p.make[name] = closedChain(name, "refused by the kernel")
		} else {
			continue
		}
		t.refused[name] = r.err
		changed = true
	}
	return changed
}

// isolate writes chains, those that cannot be written as closed ones.
func (t *table) isolate(ctx context.Context, chains []chain) error {
	var p plan
	for _, c := range chains {
		p.set(c)
	}
	err := t.write(ctx, p)
	var r *refusal
	if !errors.As(err, &r) {
		return err
	}
	if len(chains) == 1 {
		name := chains[0].name
		t.refused[name] = r.err
		p.set(closedChain(name, "refused by the kernel"))
		return t.write(ctx, p)
	}
	half := len(chains) / 2
	if err := t.isolate(ctx, chains[:half]); err != nil {
		return err
	}
	return t.isolate(ctx, chains[half:])
}

// write hands p to the kernel in one transaction and, if that was taken, notes
// the outcome.
func (t *table) write(ctx context.Context, p plan) error {
	chains := t.complete(p)
	s := newScript(t.name)
	for _, c := range chains {
		s.declare(c.name)
	}
	for _, name := range p.drop {
		s.declare(name)
	}
	for _, c := range chains {
		s.fill(c)
	}
	if p.hooks {
		if err := t.writeHooks(ctx, s, p.sweep); err != nil {
			return err
		}
	}
	for _, name := range p.drop {
		s.line(name, "-X "+name)
	}
	s.line("", "COMMIT")
	if err := t.tool.restore(ctx, s.Bytes()); err != nil {
		var failed *runError
		if errors.As(err, &failed) {
			if names, lines := s.blame(failed.stderr); lines {
				return &refusal{names, err}
			}
		}
		return err
	}
	t.writes++
	t.wrote(p, chains)
	return nil
}

// complete returns the chains of p in order, and closed ones for those that they
// lead to and that are neither in p nor in the kernel.
func (t *table) complete(p plan) []chain {
	all := maps.Clone(p.make)
	for _, c := range p.make {
		for _, name := range jumps(c) {
			_, there := t.have.chains[name]
			_, coming := all[name]
			if !there && !coming {
				all[name] = closedChain(name, "not there yet")
			}
		}
	}
	chains := make([]chain, 0, len(all))
	for _, name := range slices.Sorted(maps.Keys(all)) {
		chains = append(chains, all[name])
	}
	return chains
}

// writeHooks puts our jumps where they belong, and removes those that are there,
// whoever of us has put them there. They are removed by what they say: their
// place may have changed since they were read.
func (t *table) writeHooks(ctx context.Context, s *script, sweep bool) error {
	by := t.hooksByChain(sweep)
	for _, builtin := range slices.Sorted(maps.Keys(by)) {
		old, err := t.ours(ctx, builtin, by[builtin])
		if err != nil {
			return err
		}
		for _, body := range old {
			s.line("", "-D "+builtin+" "+body)
		}
		for _, h := range by[builtin] {
			for i := range h.chain.rules {
				if h.first {
					s.line("", fmt.Sprintf("-I %s %d %s", builtin, i+1, h.chain.body(i)))
				} else {
					s.line("", "-A "+builtin+" "+h.chain.body(i))
				}
			}
		}
	}
	return nil
}

// ours returns our rules in a built-in chain as they stand behind its name. Those
// of other versions have to be asked for, which fails where others have put rules
// into the chain that iptables has no words for.
func (t *table) ours(ctx context.Context, builtin string, known []hook) ([]string, error) {
	var bodies []string
	for _, hash := range t.have.hooks[builtin].hashes {
		body := ""
		for _, h := range known {
			if i := slices.Index(h.chain.hashes, hash); i >= 0 {
				body = h.chain.body(i)
			}
		}
		if body == "" {
			return t.tool.printed(ctx, t.name, builtin)
		}
		bodies = append(bodies, body)
	}
	return bodies, nil
}

func (t *table) wrote(p plan, chains []chain) {
	for _, c := range chains {
		t.have.chains[c.name] = c.hashes
		t.compare(c.name)
	}
	for _, name := range p.drop {
		delete(t.have.chains, name)
		t.compare(name)
	}
	if !p.hooks {
		return
	}
	for builtin, hooks := range t.hooksByChain(p.sweep) {
		h := hooked{}
		for _, want := range hooks {
			h.hashes = append(h.hashes, want.chain.hashes...)
			if want.first {
				h.head = want.chain.hashes
			}
		}
		if len(hooks) == 0 {
			delete(t.have.hooks, builtin)
		} else {
			t.have.hooks[builtin] = h
		}
	}
}
