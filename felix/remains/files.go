package remains

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/koratnet/korat/bgp/child"
	"github.com/koratnet/korat/felix/conflist"
)

// configuration has our file, and what a writer that was killed left of it.
func (r *Remains) findConfiguration(context.Context) ([]string, error) {
	return filepath.Glob(filepath.Join(r.ConfDir, conflist.Name+"*"))
}

func (r *Remains) removeConfiguration(ctx context.Context) error {
	return removeFiles(r.findConfiguration(ctx))
}

func (r *Remains) findPlugin(context.Context) ([]string, error) {
	whole, err := filepath.Glob(filepath.Join(r.BinDir, conflist.Plugin))
	if err != nil {
		return nil, err
	}
	half, err := filepath.Glob(filepath.Join(r.BinDir, "."+conflist.Plugin+"-*"))
	return append(whole, half...), err
}

func (r *Remains) removePlugin(ctx context.Context) error { return removeFiles(r.findPlugin(ctx)) }

func removeFiles(paths []string, err error) error {
	errs := []error{err}
	for _, p := range paths {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// within finds what is in a directory. The directory itself may be a mount.
func within(dir string) func(context.Context) ([]string, error) {
	return func(context.Context) ([]string, error) { return filepath.Glob(filepath.Join(dir, "*")) }
}

func empty(dir string) func(context.Context) error {
	return func(ctx context.Context) error {
		all, err := within(dir)(ctx)
		errs := []error{err}
		for _, path := range all {
			errs = append(errs, os.RemoveAll(path))
		}
		return errors.Join(errs...)
	}
}

func (r *Remains) findSpeaker(ctx context.Context) ([]string, error) {
	if _, err := child.NewClient(r.RunDir, nil).Sessions(ctx); err != nil {
		return nil, ctx.Err() // no speaker answers
	}
	return []string{child.Socket(r.RunDir)}, nil
}

// speakerWait is how long a speaker may take to end.
const speakerWait = 20 * time.Second

// removeSpeaker has the speaker take back what it announced and say goodbye, which
// one that only ends does not: neighbours would keep this node's routes for a while.
func (r *Remains) removeSpeaker(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, speakerWait)
	defer cancel()
	c := child.NewClient(r.RunDir, nil)
	paths, err := c.Originated(ctx)
	if err != nil {
		return err
	}
	sessions, err := c.Sessions(ctx)
	if err != nil {
		return err
	}
	if err := c.Withdraw(ctx, paths); err != nil {
		return err
	}
	for _, s := range sessions {
		if err := c.Break(ctx, s.Addr, "Korat is being removed from this node"); err != nil {
			return err
		}
	}
	if err := c.Stop(ctx); err != nil {
		return err
	}
	tick := time.NewTicker(speakerWait / 200)
	defer tick.Stop()
	for {
		if there, err := r.findSpeaker(ctx); err != nil || len(there) == 0 {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("the speaker does not end: %w", ctx.Err())
		}
	}
}
