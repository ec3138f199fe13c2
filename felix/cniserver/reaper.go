package cniserver

import (
	"context"
	"log/slog"
	"time"
)

// reaper removes retired veths, many at a time: the kernel holds up everybody
// who changes interfaces while it removes one, and no longer for a hundred.
type reaper struct {
	work chan struct{} // holds one token while there may be a retired veth
}

// gather is how long the reaper lets veths come together: who attaches a pod while
// it works waits for it. As a rule the runtime removes the pod's namespace before,
// and the veth with it.
const gather = time.Second

// newReaper returns a reaper that begins with what an earlier life left.
func newReaper() reaper {
	r := reaper{work: make(chan struct{}, 1)}
	r.wake()
	return r
}

func (r reaper) wake() {
	select {
	case r.work <- struct{}{}:
	default: // it is awake
	}
}

// run reaps until ctx ends. What is left then is reaped in the next life, or
// goes with its pod's namespace.
func (r reaper) run(ctx context.Context, reap func() error, log *slog.Logger) {
	wait := gather
	for {
		select {
		case <-r.work:
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
		wait = gather
		if err := reap(); err != nil {
			log.Warn("interfaces of pods that are gone could not be removed, trying again", "error", err)
			wait = 5 * gather
			r.wake()
		}
	}
}
