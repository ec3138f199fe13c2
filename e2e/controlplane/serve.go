package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
)

func serveCommand(ctx context.Context, args []string) error {
	c, err := parseConfig(args)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	err = serve(ctx, c, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if ctx.Err() != nil {
		return nil // told to end: a start that this broke off is no error
	}
	return err
}

// serve runs the control plane until ctx ends, or a part of it does, which is an
// error. The file dir/ready holds the URL of the API server, from when the
// cluster is usable until the end.
//
//	this process:  etcd ◀──unix socket── kube-apiserver ◀──┬── clients
//	children:      kube-controller-manager ────────────────┤
//	               kube-scheduler ─────────────────────────┘
//
// All parts are told to end at once, then etcd writes what it has. That is not
// upstream's graceful end, which waits up to a minute for clients that watch.
func serve(ctx context.Context, c config, log *slog.Logger) error {
	start := time.Now()
	reached := func(what string) {
		log.Info(what, "after", time.Since(start).Round(time.Millisecond))
	}
	ready := filepath.Join(c.dir, "ready")
	if err := prepare(c, ready); err != nil {
		return err
	}
	etcd, err := startEtcd(ctx, c.dir)
	if err != nil {
		return err
	}
	defer etcd.stop()
	reached("etcd serves")

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return etcd.wait(ctx) })
	g.Go(func() error { return runAPIServer(ctx, apiserverFlags(c, etcd.url)) })
	g.Go(func() error { <-ctx.Done(); return removeFile(ready) })

	// Errors from here on go through the group, which ends the other parts.
	if err := startRest(ctx, c, g, reached); err != nil {
		g.Go(func() error { return err })
		return g.Wait()
	}
	if err := os.WriteFile(ready, []byte(c.url()+"\n"), 0o644); err != nil {
		g.Go(func() error { return err })
	}
	return g.Wait()
}

// prepare makes all files that must be there before the first part starts.
func prepare(c config, ready string) error {
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return err
	}
	if err := removeFile(ready); err != nil {
		return err
	}
	if err := c.writeIdentities(); err != nil {
		return fmt.Errorf("identities: %w", err)
	}
	return nil
}

// startRest waits for the API server, starts the children and waits for what they
// have to do before the cluster is usable.
func startRest(ctx context.Context, c config, g *errgroup.Group, reached func(string)) error {
	client, err := adminClient(c)
	if err != nil {
		return err
	}
	if err := waitServing(ctx, client); err != nil {
		return err
	}
	reached("kube-apiserver serves")
	for _, start := range []func(context.Context, config) (*exec.Cmd, error){startControllerManager, startScheduler} {
		cmd, err := start(ctx, c)
		if err != nil {
			return err
		}
		g.Go(func() error { return waitChild(ctx, cmd) })
	}
	if err := waitUsable(ctx, client); err != nil {
		return err
	}
	reached("ready")
	return nil
}

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
