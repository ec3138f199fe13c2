package apply_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/koratnet/korat/felix/apply"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/status"
	"github.com/koratnet/korat/policy/ir"
)

// world is a node with three planes: old and new, which share the part sets, and
// alien, which has a part of its own.
type world struct {
	journal *journal
	guards  map[string]guard  // by part
	told    map[string]func() // what watchers call, by part
	present []string          // planes in the kernel
	auto    atomic.Value      // string: what Auto is
	unmade  atomic.Value      // failure of Make
	stuck   atomic.Value      // failure of Uninstall
}

var planesByName = map[string][]string{"old": {"sets", "old"}, "new": {"sets", "new"}, "alien": {"alien"}}

func (w *world) Choose(_ context.Context, s desired.Settings) (apply.Plane, string) {
	if s.Backend == desired.Auto {
		name := w.auto.Load().(string)
		return apply.Plane{Name: name, Parts: planesByName[name]}, "found"
	}
	return apply.Plane{Name: string(s.Backend), Parts: planesByName[string(s.Backend)]}, "asked for"
}

func (w *world) Present(context.Context) (all []apply.Plane, err error) {
	for _, name := range []string{"old", "new", "alien"} {
		if slices.Contains(w.present, name) {
			all = append(all, apply.Plane{Name: name, Parts: planesByName[name]})
		}
	}
	return all, nil
}

func (w *world) Make(part string) (apply.Part, error) {
	if err := load(&w.unmade); err != nil {
		return apply.Part{}, err
	}
	p := newPlain(part, w.journal)
	uninstall := func(context.Context) error {
		w.journal.add("%s:uninstall", part)
		return load(&w.stuck)
	}
	if part == "sets" {
		return apply.Part{Phases: []apply.Phase{nil, {p}}, Uninstall: uninstall}, nil
	}
	if w.guards[part].plain == nil { // one that a test made before, so that it can fail it
		w.guards[part] = guard{p}
	}
	watch := func(ctx context.Context, tell func()) error {
		w.journal.add("%s:watch", part)
		w.told[part] = tell
		<-ctx.Done()
		w.journal.add("%s:unwatched", part)
		return nil
	}
	if part != "alien" {
		watch = nil
	}
	return apply.Part{Phases: []apply.Phase{nil, nil, {w.guards[part]}}, Watch: watch, Uninstall: uninstall}, nil
}

// failing makes a part fail from its beginning.
func (w *world) failing(part string) guard {
	g := guard{newPlain(part, w.journal)}
	g.fail.Store(failure{errors.New("no such module")})
	w.guards[part] = g
	return g
}

// runWorld starts a Loop with a link before the planes and a route after them.
func runWorld(t *testing.T, w *world) (rig, *door, chan error) {
	t.Helper()
	w.journal, w.guards, w.told = &journal{}, map[string]guard{}, map[string]func(){}
	route := &door{plain: newPlain("route", w.journal)}
	board := status.New(prometheus.NewRegistry())
	l := apply.New(apply.Config{
		Phases: []apply.Phase{{newPlain("link", w.journal)}, nil, nil, {route}},
		Planes: w, Board: board, Log: slog.New(slog.DiscardHandler),
	})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	t.Cleanup(stop)
	return rig{T: t, Loop: l, journal: w.journal, board: board}, route, done
}

// asking returns all there is to know, and the plane that is asked for.
func asking(plane string) desired.Delta {
	d := endpoint("kor1", 1)
	d.Settings, d.Complete = &desired.Settings{Backend: desired.Backend(plane)}, true
	return d
}

func (r rig) enforcement(want string) {
	r.Helper()
	e := r.board.Enforcement()
	got := e.InForce + " of " + e.Wanted
	if e.Missing != nil {
		got += ", missing " + e.Missing.Error()
	}
	if e.Leftover != nil {
		got += ", leftover " + e.Leftover.Error()
	}
	if got != want {
		r.Errorf("in force is %s, want %s", got, want)
	}
}

func TestNoEndpointOpensBeforeAPlaneIsChosen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _, _ := runWorld(t, &world{})
		l.Want(endpoint("kor1", 1))
		l.expect("link:resync link:apply route:resync route:withholds=kor1 route:apply")
		l.Want(asking("old"))
		l.expect("link:apply sets:resync sets:apply old:resync old:apply route:apply")
		l.enforcement("old of old")
	})
}

func TestThePlanesOverlapWhileOneTakesOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _, _ := runWorld(t, &world{})
		l.Want(asking("old"))
		l.expect("link:resync link:apply sets:resync sets:apply old:resync old:apply route:resync route:apply")
		l.Want(asking("alien"))
		synctest.Wait()
		got := l.journal.take()
		for _, part := range []string{"old:apply", "alien:resync alien:apply"} { // in any order
			if !strings.Contains(got, part) {
				t.Errorf("%q does not contain %q", got, part)
			}
		}
		if !strings.HasSuffix(got, "route:apply old:uninstall sets:uninstall") {
			t.Errorf("%q does not end with the removal of the old plane, its rules first", got)
		}
		l.enforcement("alien of alien")
		l.Want(endpoint("kor2", 1))
		l.expect("link:apply alien:apply route:apply")
	})
}

func TestAutoIsAskedAgainWhenAllIsToldAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{}
		w.auto.Store("old")
		l, _, _ := runWorld(t, w)
		l.Want(asking(string(desired.Auto)))
		synctest.Wait()
		w.auto.Store("alien")
		l.Want(asking(string(desired.Auto))) // a part of what there is: no plane could begin with it
		synctest.Wait()
		l.enforcement("old of old")
		d := asking(string(desired.Auto))
		d.Sets = map[ir.SetID]*desired.SetChange{desired.InsideSet: {Kind: ir.Nets, Whole: true}}
		l.Want(d)
		synctest.Wait()
		l.enforcement("alien of alien")
	})
}

func TestAPartThatBothNeedStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _, _ := runWorld(t, &world{})
		l.Want(asking("old"))
		synctest.Wait()
		l.Want(asking("new"))
		synctest.Wait()
		l.journal.take()
		l.Want(endpoint("kor2", 1))
		l.expect("link:apply sets:apply new:apply route:apply")
	})
}

func TestAPlaneThatFailsLeavesTheOtherInPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{}
		l, _, _ := runWorld(t, w)
		l.Want(asking("old"))
		synctest.Wait()
		g := w.failing("alien")
		l.Want(asking("alien"))
		time.Sleep(time.Hour)
		l.enforcement("old of alien, missing alien: no such module")
		if err := l.board.Ready(); err != nil {
			t.Errorf("the plane in force works, but the node is not ready: %v", err)
		}
		l.Want(endpoint("kor2", 1)) // nobody waits for the plane that does not come
		synctest.Wait()
		if err := l.board.WaitEndpoint(t.Context(), "kor2", 1); err != nil {
			t.Error(err)
		}
		if strings.Contains(l.journal.take(), "uninstall") {
			t.Error("something was uninstalled")
		}
		g.fail.Store(failure{nil})
		time.Sleep(time.Minute)
		l.enforcement("alien of alien")
		if names := l.board.Snapshot().Reconcilers; len(names) != 3 || names[0].Reconciler != "alien" || !names[0].Synced {
			t.Errorf("the board knows %v", names)
		}
	})
}

func TestASwitchThatIsTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{}
		l, _, _ := runWorld(t, w)
		l.Want(asking("old"))
		synctest.Wait()
		w.failing("alien")
		l.Want(asking("alien"))
		synctest.Wait()
		l.journal.take()
		l.Want(asking("old"))
		synctest.Wait()
		if got := l.journal.take(); !strings.HasSuffix(got, " alien:uninstall") || strings.Contains(got, "old:uninstall") {
			t.Errorf("happened: %s", got)
		}
		l.enforcement("old of old")
	})
}

func TestARestartInTheMiddleOfASwitchGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{present: []string{"old", "alien"}}
		l, _, _ := runWorld(t, w)
		g := w.failing("alien")
		l.Want(asking("alien"))
		synctest.Wait()
		l.enforcement("old of alien, missing alien: no such module")
		if err := l.board.WaitEndpoint(t.Context(), "kor1", 1); err != nil {
			t.Errorf("the old plane goes on: %v", err)
		}
		g.fail.Store(failure{nil})
		time.Sleep(time.Minute)
		l.enforcement("alien of alien")
		if got := l.journal.take(); !strings.Contains(got, "old:uninstall sets:uninstall") {
			t.Errorf("happened: %s", got)
		}
	})
}

func TestWhatCannotBeRemovedIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{present: []string{"old"}}
		w.stuck.Store(failure{errors.New("busy")})
		l, _, _ := runWorld(t, w)
		l.Want(asking("alien"))
		synctest.Wait()
		l.enforcement("alien of alien, leftover old: busy")
		l.journal.take()
		time.Sleep(time.Second)
		synctest.Wait()
		if got := l.journal.take(); strings.Contains(got, "sets") || strings.Contains(got, "old:apply") || !strings.Contains(got, "old:uninstall") {
			t.Errorf("happened: %s", got)
		}
		w.stuck.Store(failure{nil})
		time.Sleep(time.Minute)
		l.enforcement("alien of alien")
	})
}

func TestAPartHearsOfOthersUntilItGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{}
		l, _, _ := runWorld(t, w)
		l.Want(asking("alien"))
		synctest.Wait()
		l.journal.take()
		w.told["alien"]()
		l.expect("alien:apply")
		l.Want(asking("old"))
		synctest.Wait()
		if got := l.journal.take(); !strings.HasSuffix(got, "alien:unwatched alien:uninstall") {
			t.Errorf("happened: %s", got)
		}
	})
}

func TestAPlaneThatCannotBeMadeIsMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{}
		l, _, _ := runWorld(t, w)
		l.Want(asking("old"))
		synctest.Wait()
		w.unmade.Store(failure{errors.New("no sockets")})
		l.Want(asking("alien"))
		synctest.Wait()
		l.enforcement("old of alien, missing alien: no sockets")
	})
}

func TestWithoutAPlaneThatCanBeMadeEverythingIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{}
		w.unmade.Store(failure{errors.New("no sockets")})
		l, route, done := runWorld(t, w)
		l.Want(asking("alien"))
		if err := <-done; !errors.Is(err, apply.ErrNothingApplied) {
			t.Errorf("ended with %v", err)
		}
		if err := route.withheld["kor1"]; err == nil || err.Error() != "no sockets" {
			t.Errorf("kor1 is withheld because %v", err)
		}
	})
}

func TestALoopWhosePlaneDoesNothingForLongEnds(t *testing.T) {
	for name, c := range map[string]struct {
		fail func(guard)
		ends bool
	}{
		"everything is refused":  {func(g guard) { g.fail.Store(failure{errors.New("refused")}) }, true},
		"nothing can be read":    {func(g guard) { g.unread.Store(failure{errors.New("no table")}) }, true},
		"all is well":            {func(guard) {}, false},
		"one endpoint is closed": {func(g guard) { g.applied["kor1"], g.want["kor2"] = 1, 2; g.fail.Store(failure{errors.New("a rule")}) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &world{}
				l, _, done := runWorld(t, w)
				g := guard{newPlain("old", w.journal)}
				w.guards["old"] = g
				c.fail(g)
				l.Want(asking("old"))
				if name == "one endpoint is closed" {
					l.Want(endpoint("kor2", 2))
				}
				time.Sleep(apply.GiveUpAfter - time.Second)
				synctest.Wait()
				select {
				case err := <-done:
					t.Fatalf("ended too early: %v", err)
				default:
				}
				if err := l.board.Ready(); (err != nil) != (name != "all is well") {
					t.Errorf("ready: %v", err)
				}
				time.Sleep(40 * time.Second) // the slowest retry
				synctest.Wait()
				select {
				case err := <-done:
					if !c.ends || !errors.Is(err, apply.ErrNothingApplied) {
						t.Errorf("ended: %v", err)
					}
				default:
					if c.ends {
						t.Error("did not end")
					}
				}
			})
		})
	}
}
