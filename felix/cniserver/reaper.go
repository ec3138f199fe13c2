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

// gather is how long the reaper lets veths come together, also after a failure: who
// attaches a pod while it works waits for it, so that it shall not work often. As a
// rule the runtime removes the pod's namespace before, and the veth with it.
const gather = 5 * time.Second

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
	for {
		select {
		case <-r.work:
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(gather):
		case <-ctx.Done():
			return
		}
		if err := reap(); err != nil {
			log.Warn("interfaces of pods that are gone could not be removed, trying again", "error", err)
			r.wake()
		}
	}
}
