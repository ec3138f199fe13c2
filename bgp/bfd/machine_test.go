package bfd

import (
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// wire joins two machines under a clock of its own: packets take delay, and are
// lost where drop says so.
type wire struct {
	now   time.Time
	ends  [2]*machine
	delay time.Duration
	drop  func(from int) bool
	air   []flying
	sent  [2][]sending
}

type flying struct {
	to int
	at time.Time
	Packet
}

type sending struct {
	at time.Time
	Packet
}

func newWire(a, b Timing, seed uint64) *wire {
	r := rand.New(rand.NewPCG(seed, 1))
	w := &wire{now: time.Unix(1000, 0), delay: time.Millisecond, drop: func(int) bool { return false }}
	w.ends = [2]*machine{newMachine(a, 11, w.now, r.Float64), newMachine(b, 22, w.now, r.Float64)}
	return w
}

// run lets d pass.
func (w *wire) run(d time.Duration) {
	end := w.now.Add(d)
	for {
		next := end
		for _, m := range w.ends {
			if !m.over(w.now) {
				next = earliest(next, m.deadline())
			}
		}
		if len(w.air) > 0 {
			next = earliest(next, w.air[0].at)
		}
		w.now = later(w.now, next)
		if !w.now.Before(end) {
			w.now = end
			return
		}
		w.step()
	}
}

func (w *wire) step() {
	for len(w.air) > 0 && !w.air[0].at.After(w.now) {
		f := w.air[0]
		w.air = w.air[1:]
		w.ends[f.to].receive(f.Packet, w.now)
	}
	for i, m := range w.ends {
		if p, ok := m.advance(w.now); ok {
			w.sent[i] = append(w.sent[i], sending{w.now, p})
			if !w.drop(i) {
				w.air = append(w.air, flying{1 - i, w.now.Add(w.delay), p})
			}
		}
	}
}

func (w *wire) states() [2]State { return [2]State{w.ends[0].state, w.ends[1].state} }

func timing(tx, rx int, mult uint8) Timing {
	return Timing{time.Duration(tx) * time.Millisecond, time.Duration(rx) * time.Millisecond, mult}
}

var bothUp = [2]State{Up, Up}

func TestASessionComesUpAndAgreesOnTheSlowerSide(t *testing.T) {
	w := newWire(timing(100, 50, 3), timing(200, 400, 5), 1)
	w.run(3 * time.Second)
	if w.states() != bothUp {
		t.Fatalf("states %v", w.states())
	}
	a, b := w.ends[0], w.ends[1]
	for _, c := range []struct {
		what      string
		got, want time.Duration
	}{
		{"a sends every", a.interval(), 400 * time.Millisecond},
		{"b sends every", b.interval(), 200 * time.Millisecond},
		{"a gives up after", a.detection(), 5 * 200 * time.Millisecond},
		{"b gives up after", b.detection(), 3 * 400 * time.Millisecond},
	} {
		if c.got != c.want {
			t.Errorf("%s %s, want %s", c.what, c.got, c.want)
		}
	}
	if a.polling || b.polling {
		t.Errorf("still polling: %t, %t", a.polling, b.polling)
	}
}

func TestBeforeItIsUpASessionSendsOnceASecond(t *testing.T) {
	w := newWire(timing(50, 50, 3), timing(50, 50, 3), 2)
	w.drop = func(int) bool { return true }
	w.run(20 * time.Second)
	if n := len(w.sent[0]); n < 20 || n > 28 {
		t.Errorf("%d packets in 20 s", n)
	}
	if first := w.sent[0][0]; first.State != AdminDown || first.Yours != 0 {
		t.Errorf("first %+v", first.Packet)
	}
	for _, s := range w.sent[0][1:] {
		if s.DesiredTx != time.Second || s.State != Down || s.Poll || s.Yours != 0 {
			t.Fatalf("sent %+v", s.Packet)
		}
	}
}

func TestASilentNeighbourIsGivenUpAfterTheDetectionTime(t *testing.T) {
	w := newWire(timing(100, 100, 3), timing(100, 100, 3), 3)
	w.run(3 * time.Second)
	w.drop = func(from int) bool { return from == 1 }
	w.air = nil
	heard := w.ends[0].heard
	w.run(time.Second)
	a, b := w.ends[0], w.ends[1]
	if a.state != Down || a.diag != TimeExpired || a.remote.discr != 0 {
		t.Errorf("a is %s (%s), knows %d", a.state, a.diag, a.remote.discr)
	}
	if took := a.since.Sub(heard); took != 300*time.Millisecond {
		t.Errorf("given up after %s, want 300ms", took)
	}
	// The other direction works: b hears that a is down.
	if b.state != Down || b.diag != NeighborDown {
		t.Errorf("b is %s (%s)", b.state, b.diag)
	}
	w.drop = func(int) bool { return false }
	w.run(3 * time.Second)
	if w.states() != bothUp {
		t.Errorf("states after the link is back: %v", w.states())
	}
}

func TestPacketsAreSentWithJitter(t *testing.T) {
	for name, c := range map[string]struct {
		mult     uint8
		from, to time.Duration
	}{
		"up to a quarter earlier":                    {3, 75 * time.Millisecond, 100 * time.Millisecond},
		"with multiplier 1 never at the last moment": {1, 75 * time.Millisecond, 90 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWire(timing(100, 100, c.mult), timing(100, 100, 3), 4)
			w.run(3 * time.Second)
			w.sent[0] = nil
			w.run(60 * time.Second)
			shortest, longest := time.Hour, time.Duration(0)
			for i, s := range w.sent[0][1:] {
				d := s.at.Sub(w.sent[0][i].at)
				shortest, longest = min(shortest, d), max(longest, d)
			}
			if shortest < c.from || longest > c.to || longest-shortest < (c.to-c.from)/2 {
				t.Errorf("intervals from %s to %s, want %s to %s", shortest, longest, c.from, c.to)
			}
		})
	}
}

func TestAChangeOfTimingIsInForceAfterItsFinal(t *testing.T) {
	for name, c := range map[string]struct {
		to               Timing
		interval, detect time.Duration // of a, while the Poll is not answered
	}{
		"slower": {timing(1000, 1000, 3), 100 * time.Millisecond, 3 * time.Second},
		"faster": {timing(50, 50, 3), 100 * time.Millisecond, 300 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWire(timing(100, 100, 3), timing(20, 100, 3), 5)
			w.run(3 * time.Second)
			a, b := w.ends[0], w.ends[1]
			w.drop = func(from int) bool { return from == 0 }
			a.configure(c.to, w.now)
			w.run(60 * time.Millisecond)
			if !a.polling || a.interval() != c.interval || a.detection() != c.detect {
				t.Errorf("before the Final: polling %t, sends every %s, gives up after %s", a.polling, a.interval(), a.detection())
			}
			w.drop = func(int) bool { return false }
			w.run(5 * time.Second)
			if a.polling || w.states() != bothUp {
				t.Errorf("polling %t, states %v", a.polling, w.states())
			}
			if want := 3 * max(c.to.Receive, 20*time.Millisecond); a.detection() != want {
				t.Errorf("gives up after %s, want %s", a.detection(), want)
			}
			if want := 3 * max(c.to.Transmit, 100*time.Millisecond); b.detection() != want {
				t.Errorf("is given up after %s, want %s", b.detection(), want)
			}
		})
	}
}

func TestAPollIsAnsweredAtOnceWithFinalAlone(t *testing.T) {
	w := newWire(timing(1000, 1000, 3), timing(1000, 1000, 3), 6)
	w.run(5 * time.Second)
	a := w.ends[0]
	a.configure(timing(500, 500, 3), w.now) // so that a would poll too
	a.receive(Packet{State: Up, Poll: true, Multiplier: 3, Mine: 22, Yours: 11, DesiredTx: time.Second, RequiredRx: time.Second}, w.now)
	p, ok := a.advance(w.now)
	if !ok || !p.Final || p.Poll {
		t.Errorf("answer %+v, %t", p, ok)
	}
	if p, ok := a.advance(a.deadline()); !ok || p.Final || !p.Poll {
		t.Errorf("then %+v, %t", p, ok)
	}
}

func TestANeighbourThatPollsWithoutEndIsAnsweredAtABoundedRate(t *testing.T) {
	w := newWire(timing(300, 300, 3), timing(300, 300, 3), 7)
	w.run(5 * time.Second)
	a, answers := w.ends[0], 0
	for range 100_000 { // in ten seconds
		w.now = w.now.Add(100 * time.Microsecond)
		a.receive(Packet{State: Up, Poll: true, Multiplier: 3, Mine: 22, Yours: 11, DesiredTx: time.Second, RequiredRx: time.Second}, w.now)
		if _, ok := a.advance(w.now); ok {
			answers++
		}
	}
	if answers > 60 {
		t.Errorf("%d packets in 10 s", answers)
	}
	a, answers = w.ends[1], 0
	for i := range 100_000 {
		w.now = w.now.Add(100 * time.Microsecond)
		s := []State{Down, Init, Up}[i%3]
		a.receive(Packet{State: s, Multiplier: 3, Mine: 11, Yours: 22, DesiredTx: time.Second, RequiredRx: time.Second}, w.now)
		if _, ok := a.advance(w.now); ok {
			answers++
		}
	}
	if answers > 80 {
		t.Errorf("%d packets in 10 s to one that changes its state with each", answers)
	}
}

func TestASessionThatIsShutSaysSo(t *testing.T) {
	w := newWire(timing(100, 100, 3), timing(100, 100, 3), 8)
	w.run(3 * time.Second)
	a, b := w.ends[0], w.ends[1]
	w.sent[0] = nil
	a.shut(w.now)
	w.run(290 * time.Millisecond)
	if n := len(w.sent[0]); n < 3 {
		t.Errorf("said so %d times, want the multiplier", n)
	}
	if b.state != Down || b.diag != NeighborDown || b.remote.state != AdminDown {
		t.Errorf("the neighbour is %s (%s), of us it knows %s", b.state, b.diag, b.remote.state)
	}
	if w.run(50 * time.Millisecond); !a.over(w.now) {
		t.Error("not over after the detection time")
	}
}

func TestASessionThatNobodyAnsweredIsOverAtOnce(t *testing.T) {
	w := newWire(timing(100, 100, 3), timing(100, 100, 3), 9)
	a := w.ends[0]
	a.shut(w.now)
	if p, ok := a.advance(w.now); !ok || p.State != AdminDown || p.Diag != AdminDowned || !a.over(w.now) {
		t.Errorf("%+v, %t, over %t", p, ok, a.over(w.now))
	}
}

func TestADemandingNeighbourIsSentNothingButAnswers(t *testing.T) {
	w := newWire(timing(100, 100, 3), timing(100, 100, 3), 10)
	w.run(3 * time.Second)
	a := w.ends[0]
	demand := Packet{State: Up, Demand: true, Multiplier: 3, Mine: 22, Yours: 11, DesiredTx: 100 * time.Millisecond, RequiredRx: time.Second}
	a.receive(demand, w.now)
	for range 10 {
		w.now = w.now.Add(250 * time.Millisecond)
		a.receive(demand, w.now)
		if p, ok := a.advance(w.now); ok {
			t.Fatalf("sent %+v", p)
		}
	}
	demand.Poll = true
	a.receive(demand, w.now)
	if p, ok := a.advance(w.now); !ok || !p.Final {
		t.Errorf("answer to a Poll: %+v, %t", p, ok)
	}
	if a.state != Up {
		t.Errorf("state %s", a.state)
	}
}

func TestANeighbourThatWasKilledAndIsBackDidNotFail(t *testing.T) {
	w := newWire(timing(100, 100, 3), timing(100, 100, 3), 11)
	w.run(3 * time.Second)
	w.ends[1] = newMachine(timing(100, 100, 3), 33, w.now, func() float64 { return 0 })
	w.run(50 * time.Millisecond)
	if a := w.ends[0]; a.state != Down || a.diag != NeighborDown || a.remote.state != AdminDown || a.remote.discr != 33 {
		t.Errorf("a is %s (%s) with %d that is %s", a.state, a.diag, a.remote.discr, a.remote.state)
	}
	w.run(4 * time.Second)
	if w.states() != bothUp || w.ends[0].remote.discr != 33 {
		t.Errorf("states %v, a knows %d", w.states(), w.ends[0].remote.discr)
	}
}

// Whatever is lost and changed: a link that works again brings both up, with what
// both asked for last.
func TestAfterAnyHistoryALinkThatWorksBringsBothUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		timings := rapid.Custom(func(t *rapid.T) Timing {
			ms := rapid.IntRange(10, 2000)
			return timing(ms.Draw(t, "tx"), ms.Draw(t, "rx"), rapid.Uint8Range(2, 10).Draw(t, "mult"))
		})
		w := newWire(timings.Draw(t, "a"), timings.Draw(t, "b"), rapid.Uint64().Draw(t, "seed"))
		loss := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "loss"), 2))
		for range rapid.IntRange(0, 12).Draw(t, "steps") {
			end := rapid.IntRange(0, 1).Draw(t, "end")
			switch rapid.IntRange(0, 2).Draw(t, "what") {
			case 0:
				w.ends[end].configure(timings.Draw(t, "change"), w.now)
			case 1:
				w.ends[end] = newMachine(timings.Draw(t, "new"), uint32(loss.Uint64()|1), w.now, loss.Float64)
			case 2:
				rate := [2]float64{rapid.Float64Range(0, 1).Draw(t, "loss of a"), rapid.Float64Range(0, 1).Draw(t, "loss of b")}
				w.drop = func(from int) bool { return loss.Float64() < rate[from] }
			}
			w.run(time.Duration(rapid.IntRange(0, 5000).Draw(t, "ms")) * time.Millisecond)
		}
		w.drop = func(int) bool { return false }
		w.run(40 * time.Second)
		if w.states() != bothUp {
			t.Fatalf("states %v: %+v %+v", w.states(), w.ends[0], w.ends[1])
		}
		for i, m := range w.ends {
			o := w.ends[1-i]
			if want := max(m.want.Transmit, o.want.Receive); m.interval() != want || m.polling {
				t.Fatalf("sends every %s, want %s (polling %t)", m.interval(), want, m.polling)
			}
			if want := time.Duration(o.want.Multiplier) * max(m.want.Receive, o.want.Transmit); m.detection() != want {
				t.Fatalf("gives up after %s, want %s", m.detection(), want)
			}
		}
		since := [2]time.Time{w.ends[0].since, w.ends[1].since}
		w.run(60 * time.Second)
		if got := [2]time.Time{w.ends[0].since, w.ends[1].since}; got != since {
			t.Fatalf("states changed on a link that works")
		}
	})
}
