package apply_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/koratnet/korat/felix/apply"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/status"
)

// journal is what happened, in order.
type journal struct {
	mu    sync.Mutex // guards lines
	lines []string
}

func (j *journal) add(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, fmt.Sprintf(format, args...))
}

// take returns what happened since the last call.
func (j *journal) take() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := strings.Join(j.lines, " ")
	j.lines = nil
	return s
}

// failure is an error that may be nil, for atomic.Value.
type failure struct{ error }

func load(v *atomic.Value) error {
	f, _ := v.Load().(failure)
	return f.error
}

// plain keeps endpoints in a small world: a map of what is "in the kernel".
type plain struct {
	name    string
	journal *journal
	slow    time.Duration
	fail    atomic.Value // failure of Apply
	unread  atomic.Value // failure of Resync
	want    map[string]uint64
	applied map[string]uint64
}

func newPlain(name string, j *journal) *plain {
	return &plain{name: name, journal: j, want: map[string]uint64{}, applied: map[string]uint64{}}
}

func (p *plain) Name() string { return p.name }

func (p *plain) Want(d desired.Delta) {
	for iface, ep := range d.Endpoints {
		if ep == nil {
			delete(p.want, iface)
		} else {
			p.want[iface] = ep.Generation
		}
	}
}

func (p *plain) Resync(context.Context) error {
	p.journal.add("%s:resync", p.name)
	return load(&p.unread)
}

func (p *plain) Apply(context.Context) error {
	time.Sleep(p.slow) // on the test's clock
	p.journal.add("%s:apply", p.name)
	if err := load(&p.fail); err != nil {
		return err
	}
	for iface, generation := range p.want {
		p.applied[iface] = generation
	}
	return nil
}

func (p *plain) LinkChanged(name string) { p.journal.add("%s:link=%s", p.name, name) }
func (p *plain) RouteChanged(prefix netip.Prefix, protocol uint8) {
	p.journal.add("%s:route=%s,%d", p.name, prefix, protocol)
}

// guard is a Gated plain.
type guard struct{ *plain }

func (g guard) Closed() map[string]error {
	closed := map[string]error{}
	for iface, generation := range g.want {
		if g.applied[iface] != generation {
			closed[iface] = errors.New(g.name + ": not applied")
		}
	}
	return closed
}

// door is a Withholder.
type door struct {
	*plain
	withheld map[string]error
}

func (d *door) Withhold(closed map[string]error) { d.withheld = closed }

func (d *door) Apply(ctx context.Context) error {
	for iface := range d.withheld {
		d.journal.add("%s:withholds=%s", d.name, iface)
	}
	return d.plain.Apply(ctx)
}

type rig struct {
	*testing.T
	*apply.Loop
	journal *journal
	board   *status.Board
}

// run starts a Loop in the synctest bubble of the test.
func run(t *testing.T, j *journal, phases ...apply.Phase) rig {
	t.Helper()
	board := status.New(prometheus.NewRegistry())
	l := apply.New(apply.Config{Phases: phases, Board: board, Log: slog.New(slog.DiscardHandler)})
	done := make(chan error, 1)
	ctx, stop := context.WithCancel(t.Context())
	go func() { done <- l.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return rig{T: t, Loop: l, journal: j, board: board}
}

// expect checks what happened up to the moment that everything waits.
func (r rig) expect(want string) {
	r.Helper()
	synctest.Wait()
	if got := r.journal.take(); got != want {
		r.Errorf("\n got %s\nwant %s", got, want)
	}
}

func endpoint(iface string, generation uint64) desired.Delta {
	return desired.Delta{Endpoints: map[string]*desired.Endpoint{iface: {Interface: iface, Generation: generation}}}
}

func TestNothingHappensBeforeTheFirstDelta(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		l := run(t, j, apply.Phase{newPlain("a", j)})
		l.Poke(apply.Poke{Lost: true})
		time.Sleep(time.Hour)
		l.expect("")
		l.Want(desired.Delta{Complete: true})
		l.expect("a:resync a:apply")
	})
}

func TestPhasesRunInOrderAndTheirMembersTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		slow, quick, last := newPlain("slow", j), newPlain("quick", j), newPlain("last", j)
		slow.slow, quick.slow = 2*time.Second, time.Second
		l := run(t, j, apply.Phase{slow, quick}, apply.Phase{last})
		l.Want(endpoint("kor1", 1))
		synctest.Wait()
		j.take() // the first read-backs, in any order
		time.Sleep(3 * time.Second)
		l.expect("quick:apply slow:apply last:resync last:apply")
	})
}

func TestDeltasThatComeWhileBusyAreMerged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		a := newPlain("a", j)
		a.slow = time.Second
		l, other := run(t, j, apply.Phase{a}), run(t, &journal{}, apply.Phase{newPlain("b", &journal{})})
		first, second := endpoint("kor1", 1), endpoint("kor1", 2)
		for _, d := range []desired.Delta{first, second, endpoint("kor2", 1), endpoint("kor1", 3)} {
			l.Want(d)
			other.Want(d)
			synctest.Wait()
		}
		time.Sleep(10 * time.Second)
		l.expect("a:resync a:apply a:apply")
		if a.applied["kor1"] != 3 || a.applied["kor2"] != 1 {
			t.Errorf("applied %v", a.applied)
		}
		if len(first.Endpoints) != 1 || first.Endpoints["kor1"].Generation != 1 || second.Endpoints["kor1"].Generation != 2 {
			t.Error("a delta was changed after it was handed over")
		}
	})
}

func TestTheGateWithholdsWhatIsNotEnforced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		g, d := guard{newPlain("programs", j)}, &door{plain: newPlain("route", j)}
		l := run(t, j, apply.Phase{g}, apply.Phase{d})
		g.fail.Store(failure{errors.New("lock held")})
		l.Want(endpoint("kor1", 7))
		l.expect("programs:resync programs:apply route:resync route:withholds=kor1 route:apply")

		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		err := l.board.WaitEndpoint(ctx, "kor1", 7)
		if err == nil || !strings.Contains(err.Error(), "programs: not applied") || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("WaitEndpoint of a closed endpoint: %v", err)
		}

		g.fail.Store(failure{nil})
		time.Sleep(time.Second)
		// The gate opened, so the route is tried though nothing told it anything.
		l.expect("programs:resync programs:apply route:apply")
		if err := l.board.WaitEndpoint(t.Context(), "kor1", 7); err != nil {
			t.Errorf("WaitEndpoint of an applied endpoint: %v", err)
		}
	})
}

func TestRetriesBackOffFromATenthToThirtySeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		a := newPlain("a", j)
		a.fail.Store(failure{errors.New("no")})
		l := run(t, j, apply.Phase{a})
		l.Want(endpoint("kor1", 1))
		l.expect("a:resync a:apply")
		wait := 100 * time.Millisecond
		for range 12 {
			began := time.Now()
			for len(j.take()) == 0 {
				time.Sleep(time.Millisecond)
				synctest.Wait()
			}
			took := time.Since(began)
			if slack := time.Millisecond; took < wait*9/10-slack || took > wait*11/10+slack {
				t.Errorf("waited %v, not %v ± 10 %%", took, wait)
			}
			wait = min(2*wait, 30*time.Second)
		}
	})
}

func TestNewsIsTriedDuringBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		a, b := newPlain("a", j), newPlain("b", j)
		a.fail.Store(failure{errors.New("no")})
		l := run(t, j, apply.Phase{a}, apply.Phase{b})
		l.Want(endpoint("kor1", 1))
		time.Sleep(10 * time.Second)
		synctest.Wait()
		j.take()
		l.Want(endpoint("kor2", 1))
		l.expect("a:apply b:apply") // no read-back: that keeps the slow rhythm
		a.fail.Store(failure{nil})
		l.Want(endpoint("kor3", 1))
		l.expect("a:apply b:apply")
		time.Sleep(30 * time.Second)
		l.expect("a:resync a:apply") // what failed is read back once more all the same
		time.Sleep(8 * time.Minute)
		l.expect("")
	})
}

func TestAPokeHastensTheRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		a := newPlain("a", j)
		a.fail.Store(failure{errors.New("network is unreachable")})
		l := run(t, j, apply.Phase{a})
		l.Want(endpoint("kor1", 1))
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		j.take()
		l.Poke(apply.Poke{Link: "eth0"})
		l.expect("a:link=eth0 a:apply")
		time.Sleep(time.Second)
		l.expect("a:resync a:apply a:resync a:apply a:resync a:apply")
	})
}

func TestAReadBackEveryTenMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		l := run(t, j, apply.Phase{newPlain("a", j)})
		l.Want(endpoint("kor1", 1))
		l.expect("a:resync a:apply")
		time.Sleep(9*time.Minute - time.Second)
		l.expect("")
		time.Sleep(2*time.Minute + time.Second)
		l.expect("a:resync a:apply")
	})
}

func TestApplyWaitsForAReadBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		a := newPlain("a", j)
		a.unread.Store(failure{errors.New("dump failed")})
		l := run(t, j, apply.Phase{a})
		l.Want(endpoint("kor1", 1))
		l.expect("a:resync")
		l.Want(endpoint("kor2", 1))
		l.expect("a:resync")
		a.unread.Store(failure{nil})
		time.Sleep(time.Second)
		l.expect("a:resync a:apply")
	})
}

func TestPokesReachTheOneThatCares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		a := newPlain("a", j)
		l := run(t, j, apply.Phase{a}, apply.Phase{deaf{newPlain("b", j)}})
		l.Want(endpoint("kor1", 1))
		l.expect("a:resync a:apply b:resync b:apply")
		l.Poke(apply.Poke{Link: "eth0"})
		l.expect("a:link=eth0 a:apply")
		l.Poke(apply.Poke{Route: netip.MustParsePrefix("10.0.0.0/26"), Protocol: 4})
		l.expect("a:route=10.0.0.0/26,4 a:apply")
		l.Poke(apply.Poke{Lost: true})
		l.expect("a:resync a:apply b:resync b:apply")
	})
}

// deaf hides the optional methods of a Reconciler.
type deaf struct{ apply.Reconciler }

func TestReadyTellsWhoIsFailing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		a, b := newPlain("a", j), newPlain("b", j)
		l := run(t, j, apply.Phase{a, b})
		says := func(want string) {
			t.Helper()
			synctest.Wait()
			if err := l.board.Ready(); (err == nil) != (want == "") || (err != nil && err.Error() != want) {
				t.Errorf("Ready: %v, want %q", err, want)
			}
		}
		says("a: not in sync yet: has not run yet\nb: not in sync yet: has not run yet")
		l.Want(endpoint("kor1", 1))
		says("a: not in sync yet\nb: not in sync yet")
		a.fail.Store(failure{errors.New("no space")})
		l.Want(desired.Delta{Complete: true})
		says("a: not in sync yet: no space")
		a.fail.Store(failure{nil})
		time.Sleep(time.Second)
		says("")
		b.fail.Store(failure{errors.New("no lock")})
		l.Want(endpoint("kor2", 1))
		says("")
		time.Sleep(status.FailAfter)
		says("b: failing for 1m0s: no lock")
		names := func(s status.Snapshot) (names []string) {
			for _, c := range s.Reconcilers {
				names = append(names, fmt.Sprintln(c.Reconciler, c.Synced, c.Err))
			}
			return names
		}
		if got := names(l.board.Snapshot()); !slices.Equal(got, []string{"a true <nil>\n", "b true no lock\n"}) {
			t.Errorf("Snapshot: %v", got)
		}
	})
}
