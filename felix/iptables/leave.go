package iptables

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Uninstall removes all that is ours, in both flavours, from one table after
// another, each in one transaction. It is for when something else is in force:
// from then on nothing here judges packets.
func (f *Firewall) Uninstall(ctx context.Context) error {
	if err := f.choose(ctx); err != nil {
		return err
	}
	f.read = false
	return errors.Join(f.evict(ctx, f.tool.flavour), f.evict(ctx, f.tool.flavour.other()))
}

// evict removes all that is ours in one flavour. The check of sources goes last.
func (f *Firewall) evict(ctx context.Context, flavour Flavour) error {
	t := tool{family: f.cfg.Family, flavour: flavour}
	var names []string
	for _, known := range slices.Backward(f.tables()) {
		names = append(names, known.name)
	}
	r, err := t.read(names...)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil // the kernel does not have this flavour
	}
	if err != nil {
		return fmt.Errorf("look for our rules in %s: %w", flavour, err)
	}
	var errs []error
	for _, name := range names {
		left := newTable(name, &t)
		left.take(r.tables[name])
		if err := left.apply(ctx, true); err != nil {
			errs = append(errs, fmt.Errorf("remove our rules from %s: %w", flavour, err))
		}
	}
	return errors.Join(errs...)
}

// CheckEvery is how often Check looks: others' edits are undone within 10 seconds.
func (*Firewall) CheckEvery() time.Duration { return 5 * time.Second }

// Check looks whether others have changed our rules or put theirs before our
// jumps, and reports whether Apply has something to mend. Of nf_tables it asks
// first whether anything has changed at all.
func (f *Firewall) Check(context.Context) (bool, error) {
	if !f.read {
		return true, nil
	}
	if f.tool.flavour == NFT {
		now, err := f.tool.generation()
		if err != nil || now == f.generation {
			return false, err
		}
	}
	if err := f.readAll(); err != nil {
		return false, err
	}
	return !f.settled(), nil
}
