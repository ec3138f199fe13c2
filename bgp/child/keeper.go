package child

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/detached"
)

const (
	// startTime is how long a speaker may take until it answers.
	startTime = 10 * time.Second
	// pollEvery is how often it is asked meanwhile.
	pollEvery = 20 * time.Millisecond
	// A speaker that ends sooner than steady after its start is started again
	// later, from firstPause up to lastPause.
	steady     = time.Minute
	firstPause = 100 * time.Millisecond
	lastPause  = 10 * time.Second
)

// Keeper sees to it that a speaker of this version runs.
type Keeper struct {
	RunDir  string
	Version string
	// Command is the name and the arguments with which this very program becomes a
	// speaker; nil: somebody else starts one, and versions are theirs to match. The
	// process lives on when this one ends.
	Command []string
	Client  *Client
	Log     *slog.Logger
}

// Run keeps the speaker until ctx ends. The speaker does not end with it.
func (k *Keeper) Run(ctx context.Context) error {
	pause := firstPause
	for ctx.Err() == nil {
		began := time.Now()
		err := k.once(ctx)
		if ctx.Err() != nil {
			break
		}
		if time.Since(began) > steady {
			pause = firstPause
		}
		k.Log.Warn("the bgp speaker went away; routes stay meanwhile", "error", err, "again", pause)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, lastPause)
	}
	return context.Cause(ctx)
}

// once finds a speaker, or starts one, and returns when it has ended.
func (k *Keeper) once(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	end, version, err := k.Client.live(ctx)
	if err == nil && version != k.Version && k.Command != nil {
		k.Log.Info("replacing the bgp speaker", "of", version, "by", k.Version)
		if err := k.Client.Stop(ctx); err != nil {
			k.Log.Warn("the bgp speaker of another version does not stop", "error", err)
		}
		_, _ = io.Copy(io.Discard, end)
		end.Close()
		err = errors.New("replaced")
	}
	if err != nil {
		if end, err = k.start(ctx, cancel); err != nil {
			return err
		}
	}
	defer end.Close()
	_, err = io.Copy(io.Discard, end)
	return err
}

// start starts a speaker and returns when it answers. It cancels ctx when the
// speaker does not, or has ended.
func (k *Keeper) start(ctx context.Context, cancel context.CancelCauseFunc) (end io.ReadCloser, err error) {
	timer := time.AfterFunc(startTime, func() { cancel(errors.New("the bgp speaker does not answer")) })
	defer timer.Stop()
	if k.Command != nil {
		if err := k.spawn(cancel); err != nil {
			return nil, err
		}
	}
	for {
		if end, version, err := k.Client.live(ctx); err == nil {
			k.Log.Info("bgp speaker found", "version", version)
			return end, nil
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(pollEvery):
		}
	}
}

// spawn starts the process as nobody, with the one capability that it needs.
func (k *Keeper) spawn(ended context.CancelCauseFunc) error {
	if err := detached.Directory(dirOf(k.RunDir), uid); err != nil {
		return fmt.Errorf("directory of the speaker: %w", err)
	}
	cmd, err := detached.Process{Args: k.Command, UID: uid, Caps: []uintptr{unix.CAP_NET_BIND_SERVICE}}.Start()
	if err != nil {
		return fmt.Errorf("start the bgp speaker: %w", err)
	}
	go func() { // reaps it, if the agent lives that long
		err := cmd.Wait()
		ended(fmt.Errorf("the bgp speaker ended: %w", errors.Join(err, errEnded)))
	}()
	return nil
}

var errEnded = errors.New("it is to run for as long as the node does")
