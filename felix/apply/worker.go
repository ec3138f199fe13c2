package apply

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/status"
)

// The rhythm of a reconciler. Retries begin fast, because most failures are
// races that are over at once, and end slow, because the rest wait for a person.
// The read-back finds what no notification told of.
const (
	firstRetry  = 100 * time.Millisecond
	lastRetry   = 30 * time.Second
	fastRetries = 4 // 1.5 s in sum
	resyncEvery = 10 * time.Minute
)

// worker runs one reconciler: it decides when to read back and when to retry.
type worker struct {
	r     Reconciler
	board *status.Board
	log   *slog.Logger

	gated      Gated // nil if r is none; the same for the next four
	checker    Checker
	withholder Withholder
	links      LinkWatcher
	routes     RouteWatcher

	withheld map[string]error
	fresh    bool      // told something since the last run
	read     bool      // Resync has succeeded once
	failures int       // in a row, of retries
	retry    time.Time // zero: nothing to retry
	resync   time.Time // the next read-back for its own sake; zero: now
	check    time.Time // the next look for what others changed; of a Checker

	ran     bool           // last is set
	last    status.Attempt // the outcome of the last run
	joined  bool           // the board knows of it
	unread  bool           // the last Resync failed
	useless time.Time      // since when it fails as a whole; zero: it does not
}

func newWorker(r Reconciler, board *status.Board, log *slog.Logger) *worker {
	w := &worker{r: r, board: board, log: log.With("reconciler", r.Name())}
	w.gated, _ = r.(Gated)
	w.checker, _ = r.(Checker)
	w.withholder, _ = r.(Withholder)
	w.links, _ = r.(LinkWatcher)
	w.routes, _ = r.(RouteWatcher)
	return w
}

// join makes the board know of the worker.
func (w *worker) join() {
	if w.joined {
		return
	}
	w.joined = true
	w.board.Expect(w.r.Name())
	if w.ran {
		w.board.Record(w.last)
	}
}

// leave makes the board forget the worker, which does not run any more.
func (w *worker) leave() {
	if w.joined {
		w.joined = false
		w.board.Forget(w.r.Name())
	}
}

var errNotRun = errors.New("has not run yet")

// pending says why not all that it was told is in the kernel; nil: it is.
func (w *worker) pending() error {
	if !w.ran || w.fresh {
		return errNotRun
	}
	if w.last.Err != nil {
		return w.last.Err
	}
	if w.gated == nil {
		return nil
	}
	closed := w.gated.Closed()
	for _, iface := range slices.Sorted(maps.Keys(closed)) {
		return fmt.Errorf("endpoint %s: %w", iface, closed[iface])
	}
	return nil
}

// hear passes on what came in.
func (w *worker) hear(d desired.Delta, pokes map[Poke]struct{}) {
	if !d.Empty() {
		w.r.Want(d)
		w.fresh = true
	}
	for p := range pokes {
		switch {
		case p.Lost:
			w.resync, w.fresh = time.Time{}, true
		case p.Link != "" && w.links != nil:
			w.links.LinkChanged(p.Link)
			w.hasten()
		case p.Route.IsValid() && w.routes != nil:
			w.routes.RouteChanged(p.Route, p.Protocol)
			w.hasten()
		}
	}
}

// hasten begins the back-off anew, if it has become slow: what changed in the
// kernel may end the failure, but maybe a moment after it was told. An uplink
// comes up before its addresses can be routed to.
func (w *worker) hasten() {
	w.fresh = true
	if w.failures > fastRetries {
		w.failures = 1
		w.retry = time.Now().Add(jitter(firstRetry))
	}
}

func (w *worker) withhold(closed map[string]error) {
	if w.withholder == nil {
		return
	}
	if !sameKeys(closed, w.withheld) {
		w.fresh = true
	}
	w.withheld = closed
	w.withholder.Withhold(closed)
}

// run does what is due. News is tried at once, also while an older failure waits
// for its retry: the endpoint that comes must not pay for the one that is
// broken. The read-back that follows a failure keeps the retry's slower rhythm.
func (w *worker) run(ctx context.Context, complete bool) {
	start := time.Now()
	stale := !start.Before(w.resync) || (!w.retry.IsZero() && !start.Before(w.retry))
	if !stale {
		stale = w.look(ctx, start)
	}
	if !stale && !w.fresh {
		return
	}
	stale = stale || !w.read
	err := w.attempt(ctx, stale)
	if ctx.Err() != nil {
		return // the failure is our own end
	}
	w.fresh = false
	w.settle(err, stale)
	w.ran, w.last = true, status.Attempt{
		Reconciler: w.r.Name(), Took: time.Since(start), Resynced: stale, Err: err, Complete: complete,
	}
	if w.joined {
		w.board.Record(w.last)
	}
}

// look lets a Checker look, if it is time, and reports whether everything has to
// be read back, because it could not.
func (w *worker) look(ctx context.Context, now time.Time) (stale bool) {
	if w.checker == nil || !w.read || now.Before(w.check) {
		return false
	}
	w.check = now.Add(jitter(w.checker.CheckEvery()))
	changed, err := w.checker.Check(ctx)
	if changed {
		w.log.Info("somebody else has changed what is ours")
		w.fresh = true
	}
	return err != nil
}

func (w *worker) attempt(ctx context.Context, stale bool) error {
	if stale {
		w.resync = time.Now().Add(jitter(resyncEvery))
		err := w.r.Resync(ctx)
		if w.unread = err != nil; w.unread {
			return err
		}
		w.read = true
		if w.checker != nil {
			w.check = time.Now().Add(jitter(w.checker.CheckEvery()))
		}
	}
	return w.r.Apply(ctx)
}

// settle sets the next retry and says once what happened.
func (w *worker) settle(err error, stale bool) {
	if err == nil {
		if stale {
			w.retry = time.Time{}
		}
		if w.failures > 0 {
			w.log.Info("applied again", "failures", w.failures)
			w.failures = 0
		}
		return
	}
	if stale || w.retry.IsZero() {
		delay := jitter(backoff(w.failures))
		w.failures++
		w.retry = time.Now().Add(delay)
		w.log.Warn("apply failed", "err", err, "retry_in", delay)
	}
}

func (w *worker) next() time.Time {
	next := w.resync
	if !w.retry.IsZero() && w.retry.Before(next) {
		next = w.retry
	}
	if w.checker != nil && w.read && w.check.Before(next) {
		next = w.check
	}
	return next
}

// backoff returns the wait after so many failures before this one.
func backoff(failures int) time.Duration {
	d := firstRetry
	for ; failures > 0 && d < lastRetry; failures-- {
		d *= 2
	}
	return min(d, lastRetry)
}

// jitter spreads d by a tenth to both sides, so that a thousand nodes which
// began together do not stay together.
func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.9 + 0.2*rand.Float64()))
}

func sameKeys(a, b map[string]error) bool {
	if len(a) != len(b) {
		return false
	}
	for k := range a {
		if _, ok := b[k]; !ok {
			return false
		}
	}
	return true
}
