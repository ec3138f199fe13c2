package apply

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/status"
)

// Config is what a Loop needs. All fields but Planes are required.
type Config struct {
	Phases []Phase
	Planes Planes // nil: none but what is in Phases
	Board  *status.Board
	Log    *slog.Logger
}

// Loop runs reconcilers. Want and Poke may be called by any goroutine; Run is
// the goroutine that owns the reconcilers.
type Loop struct {
	inbox    *inbox
	phases   [][]*worker
	switcher switcher
	board    *status.Board
	log      *slog.Logger

	// Of Run's goroutine:
	endpoints map[string]uint64 // wanted generation by host interface
	gated     bool              // a reconciler is Gated, so this loop reports endpoints
	complete  bool
}

// New returns a Loop over reconcilers that have not been used yet.
func New(cfg Config) *Loop {
	l := &Loop{
		inbox: newInbox(), board: cfg.Board, log: cfg.Log, endpoints: map[string]uint64{},
		switcher: switcher{planes: cfg.Planes}, gated: cfg.Planes != nil,
	}
	for _, phase := range cfg.Phases {
		var workers []*worker
		for _, r := range phase {
			w := newWorker(r, cfg.Board, cfg.Log)
			w.join()
			l.gated = l.gated || w.gated != nil
			workers = append(workers, w)
		}
		l.phases = append(l.phases, workers)
	}
	return l
}

// Want takes in a change of what is desired. It never waits for the kernel;
// changes that come while the Loop is busy are merged. d's maps must not be
// changed afterwards, but other Loops may get the same d.
func (l *Loop) Want(d desired.Delta) { l.inbox.want(d) }

// Poke says that something of the kernel changed behind our back.
func (l *Loop) Poke(p Poke) { l.inbox.poke(p) }

// Run applies until ctx ends. It touches nothing before the first Delta came. It
// returns an error that wraps ErrNothingApplied when the data plane fails as a
// whole for GiveUpAfter.
func (l *Loop) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	defer l.switcher.end()
	for started := false; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-l.inbox.wake:
		case <-timer.C:
		}
		d, told, pokes := l.inbox.take()
		if started = started || !d.Empty(); !started {
			continue
		}
		l.pass(ctx, d, pokes)
		if l.gated && ctx.Err() == nil {
			l.board.SetApplied(told)
		}
		if err := l.lost(); err != nil && ctx.Err() == nil {
			return err
		}
		timer.Reset(time.Until(l.next()))
	}
}

// pass lets every reconciler that has something to do work once, in order.
func (l *Loop) pass(ctx context.Context, d desired.Delta, pokes map[Poke]struct{}) {
	l.note(d)
	if _, lost := pokes[Poke{Lost: true}]; lost {
		l.log.Warn("what is there may have changed unseen, reading everything again")
	}
	l.choose(ctx, d)
	l.hearOthers()
	closed := l.unguarded()
	for i, fixed := range l.phases {
		phase := slices.Concat(fixed, l.switcher.at(i))
		var wg sync.WaitGroup
		for _, w := range phase {
			w.hear(d, pokes)
			w.withhold(closed)
			wg.Go(func() { w.run(ctx, l.complete) })
		}
		wg.Wait()
		closed = l.close(phase, closed)
	}
	l.settle(ctx)
	if l.gated && ctx.Err() == nil {
		l.report(closed)
	}
}

func (l *Loop) note(d desired.Delta) {
	l.complete = l.complete || d.Complete
	for iface, ep := range d.Endpoints {
		if ep == nil {
			delete(l.endpoints, iface)
		} else {
			l.endpoints[iface] = ep.Generation
		}
	}
}

// close returns closed with what phase holds closed as well. The first reason
// is kept: it is the cause of the later ones. The map that the reconcilers of
// this phase hold is not changed.
func (l *Loop) close(phase []*worker, closed map[string]error) map[string]error {
	all := maps.Clone(closed)
	for _, w := range phase {
		if w.gated == nil || !w.joined { // a plane that is not in force yet keeps nobody waiting
			continue
		}
		for iface, err := range w.gated.Closed() {
			if _, already := all[iface]; !already {
				all[iface] = err
			}
		}
	}
	return all
}

// report walks all endpoints of the node, a few hundred at most.
func (l *Loop) report(closed map[string]error) {
	all := make(map[string]status.Endpoint, len(l.endpoints))
	for iface, generation := range l.endpoints {
		all[iface] = status.Endpoint{Generation: generation, Closed: closed[iface]}
	}
	l.board.SetEndpoints(all)
}

// next is when the first reconciler wants to run without having been told to.
func (l *Loop) next() time.Time {
	first := l.switcher.next()
	for i, fixed := range l.phases {
		for _, w := range slices.Concat(fixed, l.switcher.at(i)) {
			if t := w.next(); first.IsZero() || t.Before(first) {
				first = t
			}
		}
	}
	return first
}
