package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/status"
)

// switcher runs the wanted data plane, and while that one is not in force also
// the one that is. Packets pass both then: what either denies is dropped. The old
// one goes when the new one enforces the policy of every endpoint, so there is no
// moment in which neither does; a new one that fails leaves the old one in place.
//
// After a restart it finds in the kernel what an earlier life of the agent had
// there, and goes on in the middle of a switch.
type switcher struct {
	planes Planes

	asked    desired.Backend // at the last choice
	chosen   bool
	wanted   Plane
	why      string
	lead     Plane      // what is in force; its workers hold endpoints closed
	parts    []*part    // of wanted, of lead, and of planes wanted meanwhile, as they began
	leftover []*remains // in the order in which they may go
}

// part is a Part that runs.
type part struct {
	name      string
	phases    [][]*worker
	uninstall func(context.Context) error
	stop      func() // ends what watches, and waits for it
}

// remains is a Part that does not run any more but may be in the kernel.
type remains struct {
	part     string
	remove   func(context.Context) error
	failures int
	retry    time.Time
	err      error
}

// choose begins another plane if d's settings ask for one.
func (l *Loop) choose(ctx context.Context, d desired.Delta) {
	s := &l.switcher
	if s.planes == nil || d.Settings == nil {
		return
	}
	if s.chosen && d.Settings.Backend == s.asked && !tellsAll(d) {
		return
	}
	before := s.wanted
	s.asked = d.Settings.Backend
	s.wanted, s.why = s.planes.Choose(ctx, *d.Settings)
	if !s.chosen {
		s.chosen, s.lead = true, l.inherited(ctx)
	}
	for _, name := range slices.Concat(s.lead.Parts, s.wanted.Parts) {
		if !slices.ContainsFunc(s.parts, func(p *part) bool { return p.name == name }) {
			s.parts = append(s.parts, l.begin(ctx, name))
		}
	}
	if !l.guarded() { // what an earlier life left is no plane, only remains of one
		s.lead = s.wanted
	}
	for _, w := range s.of(s.lead) {
		w.join()
	}
	if before.Name == s.wanted.Name {
		return
	}
	l.log.Info("data plane chosen", "plane", s.wanted.Name, "why", s.why, "in_force", s.lead.Name)
}

// tellsAll reports whether a plane could begin with d: sets that are always there
// are told whole at the beginning, and when the engine tells everything again.
func tellsAll(d desired.Delta) bool {
	c := d.Sets[desired.InsideSet]
	return c != nil && c.Whole
}

// inherited returns what was in force when the agent began: the planes in the
// kernel that are not wanted, as one, or else the wanted one.
func (l *Loop) inherited(ctx context.Context) Plane {
	s := &l.switcher
	present, err := s.planes.Present(ctx)
	if err != nil {
		l.log.Warn("data planes in the kernel are not known", "err", err)
	}
	var others Plane
	for _, p := range present {
		if p.Name != s.wanted.Name {
			others = others.with(p)
		}
	}
	if len(others.Parts) == 0 {
		return s.wanted
	}
	return others
}

// begin makes a part and its workers.
func (l *Loop) begin(ctx context.Context, name string) *part {
	s := &l.switcher
	made, err := s.planes.Make(name)
	if err != nil {
		made = Part{Phases: []Phase{{unmade{name, err, map[string]error{}}}}, Uninstall: func(context.Context) error { return nil }}
	}
	p := &part{name: name, uninstall: made.Uninstall, stop: l.watch(ctx, name, made.Watch)}
	for _, phase := range made.Phases {
		var workers []*worker
		for _, r := range phase {
			workers = append(workers, newWorker(r, l.board, l.log))
		}
		p.phases = append(p.phases, workers)
	}
	// One that was wanted before may still be in the kernel; it is mended now.
	s.leftover = slices.DeleteFunc(s.leftover, func(r *remains) bool { return r.part == name })
	return p
}

// watch runs what watches a part, and returns what ends it.
func (l *Loop) watch(ctx context.Context, part string, watch func(context.Context, func()) error) (stop func()) {
	if watch == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { // ends with stop, which the Loop calls at its own end too
		defer close(done)
		for failures := 0; ctx.Err() == nil; failures++ {
			err := watch(ctx, func() { l.inbox.touch(part) })
			if ctx.Err() != nil {
				return
			}
			l.log.Warn("changes by others are not heard of", "part", part, "err", err)
			l.inbox.touch(part)
			select {
			case <-ctx.Done():
			case <-time.After(backoff(failures)):
			}
		}
	}()
	return func() { cancel(); <-done }
}

// hearOthers makes the reconcilers of parts look again that somebody changed.
func (l *Loop) hearOthers() {
	touched := l.inbox.touched()
	for _, p := range l.switcher.parts {
		if _, ok := touched[p.name]; ok {
			for _, w := range slices.Concat(p.phases...) {
				w.hasten()
			}
		}
	}
}

// end ends what runs beside the Loop.
func (s *switcher) end() {
	for _, p := range s.parts {
		p.stop()
	}
}

// at returns the workers of phase i of all parts.
func (s *switcher) at(i int) []*worker {
	var all []*worker
	for _, p := range s.parts {
		if i < len(p.phases) {
			all = append(all, p.phases[i]...)
		}
	}
	return all
}

// of returns all workers of a plane.
func (s *switcher) of(p Plane) []*worker {
	var all []*worker
	for _, part := range s.parts {
		if slices.Contains(p.Parts, part.name) {
			all = append(all, slices.Concat(part.phases...)...)
		}
	}
	return all
}

var errNoPlane = errors.New("no data plane enforces policy yet")

// guarded reports whether the plane in force holds endpoints closed.
func (l *Loop) guarded() bool {
	s := &l.switcher
	return slices.ContainsFunc(s.of(s.lead), func(w *worker) bool { return w.gated != nil })
}

// unguarded returns the endpoints, closed, if no plane would hold them closed.
func (l *Loop) unguarded() map[string]error {
	s := &l.switcher
	closed := map[string]error{}
	if s.planes == nil || l.guarded() {
		return closed
	}
	for iface := range l.endpoints {
		closed[iface] = errNoPlane
	}
	return closed
}

// settle lets the wanted plane take over when it is in force, removes what is not
// wanted any more, and says on the board how things stand.
func (l *Loop) settle(ctx context.Context) {
	s := &l.switcher
	if s.planes == nil || !s.chosen || ctx.Err() != nil {
		return
	}
	missing := l.missing()
	if missing == nil {
		l.takeOver()
	}
	l.removeLeftovers(ctx)
	e := status.Enforcement{InForce: s.lead.Name, Wanted: s.wanted.Name, Why: s.why, Missing: missing}
	for _, r := range s.leftover {
		if r.err != nil {
			e.Leftover = fmt.Errorf("%s: %w", r.part, r.err)
			break
		}
	}
	l.board.SetEnforcement(e)
}

// missing says why the wanted plane is not in force, nil when it is: each of its
// reconcilers has made everything so, and holds no endpoint closed.
func (l *Loop) missing() error {
	if !l.complete {
		return errors.New("not everything is known yet")
	}
	for _, w := range l.switcher.of(l.switcher.wanted) {
		if err := w.pending(); err != nil {
			return fmt.Errorf("%s: %w", w.r.Name(), err)
		}
	}
	return nil
}

// takeOver makes the wanted plane the one in force, and ends all others, those
// that began last first: they need what began before them.
func (l *Loop) takeOver() {
	s := &l.switcher
	var stay []*part
	for _, p := range slices.Backward(s.parts) {
		if slices.Contains(s.wanted.Parts, p.name) {
			stay = slices.Insert(stay, 0, p)
			continue
		}
		for _, w := range slices.Concat(p.phases...) {
			w.leave()
		}
		s.leftover = append(s.leftover, &remains{part: p.name, remove: p.uninstall})
		p.stop()
		l.log.Info("data plane is replaced", "part", p.name, "by", s.wanted.Name)
	}
	s.lead, s.parts = s.wanted, stay
	for _, w := range s.of(s.lead) {
		w.join()
	}
}

// removeLeftovers removes what does not run any more. What fails is tried again
// later, and what it may refer to waits for it.
func (l *Loop) removeLeftovers(ctx context.Context) {
	s := &l.switcher
	for len(s.leftover) > 0 && ctx.Err() == nil {
		r := s.leftover[0]
		if time.Now().Before(r.retry) {
			return
		}
		if r.err = r.remove(ctx); r.err != nil {
			delay := jitter(backoff(r.failures))
			r.failures++
			r.retry = time.Now().Add(delay)
			l.log.Warn("data plane is not removed", "part", r.part, "err", r.err, "retry_in", delay)
			return
		}
		l.log.Info("data plane is removed", "part", r.part)
		s.leftover = s.leftover[1:]
	}
}

// next is when the switcher wants to run, zero if it does not.
func (s *switcher) next() time.Time {
	if len(s.leftover) == 0 {
		return time.Time{}
	}
	return s.leftover[0].retry
}
