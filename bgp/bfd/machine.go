package bfd

import (
	"time"
)

// Timing is what one side asks for. What is in force is agreed with the neighbour.
type Timing struct {
	// Transmit and Receive are the shortest intervals at which we send and want to
	// be sent to, in whole microseconds, at least MinInterval.
	Transmit, Receive time.Duration
	// Multiplier is how many of our packets may be lost in a row before the
	// neighbour gives us up, at least 1.
	Multiplier uint8
}

// DefaultTiming detects a failure in 0.9 s. It has room for a node whose processors
// are all busy: see docs/bgp.md for what shorter times cost.
func DefaultTiming() Timing {
	return Timing{Transmit: 300 * time.Millisecond, Receive: 300 * time.Millisecond, Multiplier: 3}
}

const (
	// MinInterval is the shortest interval that a Timing may ask for.
	MinInterval = 10 * time.Millisecond
	// slow is the shortest interval of packets of a session that is not Up (RFC 5880 section 6.8.3).
	slow = time.Second
	// quickBurst is how many packets in a row may be sent out of turn: Finals and
	// changes of state.
	quickBurst = 8
)

// machine is one session: the variables of RFC 5880 section 6.8.1 and what
// packets and time do to them. It has no clock; now never goes back.
type machine struct {
	jitter func() float64 // in [0, 1)

	want  Timing
	discr uint32
	state State
	diag  Diag
	since time.Time // of state

	remote remote
	// heard is when the last packet was accepted, zero: never, or too long ago.
	heard time.Time

	// tx and rx are the intervals that we tell; heldTx and heldRx those before a
	// Poll Sequence that is not over, else equal to them.
	tx, rx, heldTx, heldRx time.Duration
	polling                bool
	changedInPoll          bool // the Final to come may answer for older values
	sent, next             time.Time
	final                  bool      // a Poll is to be answered
	quick                  time.Time // when the burst of packets out of turn is forgotten

	// begin is when a new session leaves AdminDown.
	begin time.Time
	// farewell is the pace at which a session that is shut tells so, until end.
	farewell time.Duration
	end      time.Time
}

// remote is what the neighbour said last. The zero remote is an unknown one, and
// is asked for nothing (RFC 5880 section 6.8.1: RemoteMinRxInterval is 1 then).
type remote struct {
	discr       uint32
	state       State
	diag        Diag
	tx, rx      time.Duration
	multiplier  uint8
	demand      bool
	independent bool
}

var unknown = remote{state: Down, rx: time.Microsecond}

// newMachine returns a session that says AdminDown once before it begins. The
// neighbour may have one with a predecessor of ours that was killed a moment ago:
// Down would end that as a failure, AdminDown does not (RFC 5882 section 4.2).
func newMachine(t Timing, discr uint32, now time.Time, jitter func() float64) *machine {
	m := &machine{
		jitter: jitter, want: t, discr: discr, state: AdminDown, since: now, remote: unknown, next: now, begin: now.Add(t.Transmit),
	}
	m.told()
	m.heldTx, m.heldRx = m.tx, m.rx
	return m
}

// configure changes what we ask for. A session that is Up goes on, and the
// neighbour is polled.
func (m *machine) configure(t Timing, now time.Time) {
	if m.want == t {
		return
	}
	m.want = t
	m.retime(now)
}

// told sets what we tell of our intervals in this state.
func (m *machine) told() {
	m.tx, m.rx = m.want.Transmit, m.want.Receive
	if m.state != Up {
		m.tx = max(m.tx, slow)
	}
}

// retime takes in that wishes or state changed. Only a session that is Up polls:
// no timer of another is in force on the other side.
func (m *machine) retime(now time.Time) {
	tx, rx := m.tx, m.rx
	m.told()
	switch {
	case m.state != Up:
		m.polling, m.changedInPoll = false, false
		m.heldTx, m.heldRx = m.tx, m.rx
	case m.tx != tx || m.rx != rx:
		m.changedInPoll, m.polling = m.polling, true
		// What the other side may still use: our old sending rate if it was higher,
		// and it may still send as slowly as we said before.
		m.heldTx, m.heldRx = min(m.heldTx, m.tx), max(m.heldRx, m.rx)
	}
	m.next = earliest(m.next, now)
}

// shut takes the session down on purpose. The machine tells the neighbour so until
// over says that it has had the time to hear it.
func (m *machine) shut(now time.Time) {
	m.farewell, m.end, m.begin = m.interval(), now, time.Time{}
	if m.remote.discr != 0 {
		m.end = now.Add(time.Duration(m.want.Multiplier) * m.farewell)
	}
	m.become(AdminDown, AdminDowned, now)
	m.next = now
}

// over reports whether a session that is shut has nothing left to say.
func (m *machine) over(now time.Time) bool {
	return !m.end.IsZero() && !now.Before(m.end) && !m.sent.Before(m.since)
}

// interval is the time between periodic packets, before jitter.
func (m *machine) interval() time.Duration {
	return max(min(m.heldTx, m.tx), m.remote.rx)
}

// detection is how long the neighbour may be silent, 0 before it was heard.
func (m *machine) detection() time.Duration {
	return time.Duration(m.remote.multiplier) * max(m.heldRx, m.rx, m.remote.tx)
}

// periodic reports whether packets are sent at intervals.
func (m *machine) periodic() bool {
	if !m.end.IsZero() && m.sent.Before(m.since) {
		return true // one farewell is for everybody
	}
	demanded := m.remote.demand && m.state == Up && m.remote.state == Up && !m.polling
	return m.remote.rx > 0 && !demanded
}

// deadline is when advance has something to do, zero: never.
func (m *machine) deadline() time.Time {
	at := earliest(m.end, m.begin)
	if m.final || m.periodic() {
		at = earliest(at, m.next)
	}
	if !m.heard.IsZero() {
		at = earliest(at, m.heard.Add(m.detection()))
	}
	return at
}

// silent reports whether the neighbour has said nothing for the detection time.
func (m *machine) silent(now time.Time) bool {
	return !m.heard.IsZero() && !now.Before(m.heard.Add(m.detection()))
}

func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// advance does what is due at now. It returns a packet to be sent, if ok.
func (m *machine) advance(now time.Time) (p Packet, ok bool) {
	if m.silent(now) {
		m.expire(now)
	}
	if !m.begin.IsZero() && !now.Before(m.begin) {
		m.begin = time.Time{}
		m.become(Down, NoDiag, now)
	}
	if now.Before(m.next) || !m.final && !m.periodic() {
		return Packet{}, false
	}
	p = m.packet()
	m.sent, m.final = now, false
	m.next = now.Add(m.jittered())
	return p, true
}

// expire forgets a neighbour that was silent for the detection time.
func (m *machine) expire(now time.Time) {
	m.heard, m.remote = time.Time{}, unknown
	if m.state == Init || m.state == Up {
		m.become(Down, TimeExpired, now)
	}
}

// receive takes in a packet that was sent to this session.
func (m *machine) receive(p Packet, now time.Time) {
	before := m.interval()
	m.heard = now
	m.remote = remote{
		discr: p.Mine, state: p.State, diag: p.Diag, tx: p.DesiredTx, rx: p.RequiredRx, multiplier: p.Multiplier,
		demand: p.Demand, independent: p.Independent,
	}
	if p.Final && m.polling {
		m.polled()
	}
	if after := m.interval(); after < before {
		m.next = earliest(m.next, m.sent.Add(after)) // agreed to be faster, from now on
	}
	if m.state == AdminDown {
		return
	}
	switch state := p.State; {
	case state == AdminDown && m.state != Down:
		m.become(Down, NeighborDown, now)
	case m.state == Down && state == Down:
		m.become(Init, NoDiag, now)
	case m.state == Down && state == Init, m.state == Init && (state == Init || state == Up):
		m.become(Up, NoDiag, now)
	case m.state == Up && state == Down:
		m.become(Down, NeighborDown, now)
	}
	if p.Poll && m.outOfTurn(now) {
		m.final = true
		m.next = now
	}
}

// polled ends a Poll Sequence, unless its Final may answer for values before the
// last change.
func (m *machine) polled() {
	if m.changedInPoll {
		m.changedInPoll = false
		return
	}
	m.polling = false
	m.heldTx, m.heldRx = m.tx, m.rx
}

// become changes the state and tells the neighbour at once.
func (m *machine) become(s State, d Diag, now time.Time) {
	m.state, m.since = s, now
	if s != Init { // which keeps why the session was down
		m.diag = d
	}
	next := m.next
	m.retime(now)
	if !m.outOfTurn(now) {
		m.next = next
	}
}

// outOfTurn reports whether a packet may be sent before its time, and counts it.
// A neighbour that makes us answer each of its packets gets a burst, then one a
// receive interval.
func (m *machine) outOfTurn(now time.Time) bool {
	m.quick = later(m.quick, now)
	if m.quick.Sub(now) >= quickBurst*m.rx {
		return false
	}
	m.quick = m.quick.Add(m.rx)
	return true
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// packet is what is to be sent now.
func (m *machine) packet() Packet {
	return Packet{
		State: m.state, Diag: m.diag, Poll: m.polling && !m.final, Final: m.final, Multiplier: m.want.Multiplier,
		Mine: m.discr, Yours: m.remote.discr, DesiredTx: m.tx, RequiredRx: m.rx,
	}
}

// jittered is the time to the next packet: up to a quarter less than agreed, so
// that systems do not fall into step. With a multiplier of 1 it is at most 90 %,
// as the next packet must be there in time.
func (m *machine) jittered() time.Duration {
	pace := m.interval()
	if !m.end.IsZero() {
		pace = m.farewell
	}
	from, to := 0.75, 1.0
	if m.want.Multiplier == 1 {
		to = 0.9
	}
	return time.Duration(float64(pace) * (from + (to-from)*m.jitter()))
}
