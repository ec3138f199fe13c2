package bfd

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Key is what tells sessions of a node apart.
type Key struct {
	// Peer is the neighbour's address, a link-local one with its interface as zone.
	Peer netip.Addr
	// Local is our address, the zero Addr: the kernel's choice.
	Local netip.Addr
	// Multihop: the neighbour is not on the link.
	Multihop bool
}

// Session is a session that this node is to have.
type Session struct {
	Key
	Timing
	// MinTTL is the least time to live of packets of a multihop session, 0: any.
	// On the link it is 255.
	MinTTL uint8
}

// Status is how a session is.
type Status struct {
	Session
	State, RemoteState State
	// Diag is why State is what it is, RemoteDiag what the neighbour says of its side.
	Diag, RemoteDiag Diag
	Since            time.Time
	// Interval is what lies between our packets, before jitter, and Detection how
	// long the neighbour may be silent: both as agreed. Detection is 0 while the
	// neighbour is not known.
	Interval, Detection time.Duration
	// Independent: the neighbour's BFD goes on when its control plane restarts, so
	// that a failure is one of its forwarding (RFC 5882 section 4.3).
	Independent bool
}

// Change tells that a session has another state.
type Change struct {
	Status
	// Lost: the session was Up and failed, since the last Change of it, even if it
	// is Up again. A session that the neighbour took down on purpose did not fail.
	Lost bool
}

// farewell is how long Close waits at most.
const farewell = time.Second

// Config is what a System needs from its process.
type Config struct {
	Log *slog.Logger // life events at Info; nil: nobody is told
	// Changed is told each change of state, one call after another, on a goroutine
	// of the System. While it works, changes of one session coalesce. It must not
	// call Close. May be nil.
	Changed func(Change)
}

// System is the BFD of this node (RFC 5880 calls a node so). Its methods may be
// called by several goroutines.
type System struct {
	log     *slog.Logger
	changed func(Change)
	wake    chan struct{} // a deadline came nearer, or the System closes
	news    chan struct{} // there are pending changes
	running sync.WaitGroup

	mu      sync.Mutex // guards the rest. Readers answer under it: an owner's mailbox would be full of a flood
	closing time.Time  // when the last farewell is said, zero: not asked to close
	byKey   map[Key]*entry
	byDiscr map[uint32]*entry
	timers  timers
	ports   map[port]*receiver
	zones   map[uint32]string // names of the links of link-local sessions, by index
	pending []Key             // sessions whose change is not told, oldest first
	untold  map[Key]Change
}

// entry is a session with its timer and its socket to send from.
type entry struct {
	*machine
	Session
	at    time.Time // in timers
	index int       // in timers
	out   sender
}

// New returns a System without sessions.
func New(c Config) *System {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Changed == nil {
		c.Changed = func(Change) {}
	}
	s := &System{
		log: c.Log, changed: c.Changed, wake: make(chan struct{}, 1), news: make(chan struct{}, 1),
		byKey: map[Key]*entry{}, byDiscr: map[uint32]*entry{}, ports: map[port]*receiver{}, zones: map[uint32]string{}, untold: map[Key]Change{},
	}
	s.running.Go(s.keepTime)
	s.running.Go(s.tell)
	return s
}

// Set makes the sessions those of the list, which has each Key once. Sessions that
// are in both lists go on, also with another Timing. One that is not any more is
// taken down with AdminDown. The error is of sessions that cannot be, such as
// those on a port that is in use; the others are.
func (s *System) Set(_ context.Context, sessions []Session) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closing.IsZero() {
		return errors.New("bfd: closed")
	}
	now := time.Now()
	var errs []error
	wanted := map[Key]bool{}
	clear(s.zones)
	for _, w := range sessions {
		if err := w.check(); err != nil {
			errs = append(errs, err)
			continue
		}
		if err := s.listen(w.port()); err != nil {
			errs = append(errs, err)
			continue
		}
		wanted[w.Key] = true
		s.set(w, now)
	}
	for key, e := range s.byKey {
		if !wanted[key] {
			s.shut(e, now)
		}
	}
	s.closePorts()
	return errors.Join(errs...)
}

func (w Session) check() error {
	t := w.Timing
	switch {
	case !w.Peer.IsValid():
		return errors.New("bfd: a session without the neighbour's address")
	case w.Local.IsValid() && w.Local.Is4() != w.Peer.Is4():
		return fmt.Errorf("bfd session with %s: our address %s is of another family", w.Peer, w.Local)
	case t.Multiplier == 0, t.Transmit < MinInterval, t.Receive < MinInterval, max(t.Transmit, t.Receive) > time.Hour:
		return fmt.Errorf("bfd session with %s: timing %+v is out of range", w.Peer, t)
	}
	return nil
}

func (s *System) set(w Session, now time.Time) {
	e := s.byKey[w.Key]
	if e == nil {
		e = &entry{machine: newMachine(w.Timing, s.discriminator(), now, rand.Float64), Session: w}
		e.out = sender{session: w.Key}
		s.byKey[w.Key], s.byDiscr[e.discr] = e, e
		heap.Push(&s.timers, e)
	}
	e.Session = w
	e.configure(w.Timing, now)
	s.run(e, now)
}

// shut begins the end of a session: it has no Key any more, but its discriminator
// until the neighbour had the time to hear of it.
func (s *System) shut(e *entry, now time.Time) {
	delete(s.byKey, e.Key)
	e.machine.shut(now)
	s.run(e, now)
}

func (s *System) forget(e *entry) {
	delete(s.byDiscr, e.discr)
	heap.Remove(&s.timers, e.index)
	e.out.close()
}

// discriminator returns one that no session has.
func (s *System) discriminator() uint32 {
	for {
		if d := rand.Uint32(); d != 0 && s.byDiscr[d] == nil {
			return d
		}
	}
}

// run lets e do what is due, and sets its timer.
func (s *System) run(e *entry, now time.Time) {
	before := e.state
	if p, ok := e.advance(now); ok {
		if err := e.out.send(p.Append(make([]byte, 0, packetSize))); err != nil {
			s.log.Debug("bfd packet not sent", "peer", e.Peer, "error", err)
		}
	}
	if e.out.link != 0 {
		s.zones[e.out.link] = e.Peer.Zone()
	}
	if e.state != before {
		s.note(e, before)
	}
	if e.over(now) {
		s.forget(e)
		return
	}
	e.at = e.deadline()
	heap.Fix(&s.timers, e.index)
	if e.index == 0 {
		poke(s.wake)
	}
}

// receive takes in a packet that came to one of our ports.
func (s *System) receive(a arrival, now time.Time) {
	if !a.port.multihop && a.ttl != 255 {
		return
	}
	p, err := Parse(a.data)
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.find(a, p.Yours)
	if e == nil || a.ttl < e.MinTTL {
		return
	}
	before := e.state
	e.machine.receive(p, now)
	if e.state != before {
		s.note(e, before)
	}
	s.run(e, now)
}

// find returns the session that a packet belongs to. The neighbour's address must
// fit also when the packet names our discriminator.
func (s *System) find(a arrival, discr uint32) *entry {
	if discr != 0 {
		e := s.byDiscr[discr]
		if e == nil || e.Key != s.key(a, e.Local) || e.Local.IsValid() && e.Local.WithZone("") != a.to {
			return nil
		}
		return e
	}
	for _, local := range [...]netip.Addr{a.to, a.to.WithZone(s.zones[a.link]), {}} {
		if e := s.byKey[s.key(a, local)]; e != nil {
			return e
		}
	}
	return nil
}

// key is that of the session that a packet to local is of.
func (s *System) key(a arrival, local netip.Addr) Key {
	return Key{Peer: a.from.WithZone(s.zones[a.link]), Local: local, Multihop: a.port.multihop}
}

// note puts a change of state where tell finds it.
func (s *System) note(e *entry, before State) {
	failed := e.state == Down && (e.diag == TimeExpired || e.remote.state != AdminDown)
	c := Change{Status: e.status(), Lost: before == Up && failed}
	old, there := s.untold[e.Key]
	if !there {
		s.pending = append(s.pending, e.Key)
	}
	c.Lost = c.Lost || old.Lost
	s.untold[e.Key] = c
	poke(s.news)
}

func (e *entry) status() Status {
	return Status{
		Session: e.Session, State: e.state, RemoteState: e.remote.state, Diag: e.diag, RemoteDiag: e.remote.diag, Since: e.since,
		Interval: e.interval(), Detection: e.detection(), Independent: e.remote.independent,
	}
}

// States returns how the sessions of the last Set are, by neighbour.
func (s *System) States() []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Status, 0, len(s.byKey))
	for _, e := range s.byKey {
		out = append(out, e.status())
	}
	slices.SortFunc(out, func(a, b Status) int {
		return cmp.Or(a.Peer.Compare(b.Peer), a.Local.Compare(b.Local))
	})
	return out
}

// Close takes all sessions down with AdminDown, waits until the neighbours had the
// time to hear of it, at most a second, and returns.
func (s *System) Close() error {
	if err := s.Set(context.Background(), nil); err != nil {
		return err
	}
	s.mu.Lock()
	s.closing = time.Now().Add(farewell)
	s.mu.Unlock()
	poke(s.wake)
	poke(s.news)
	s.running.Wait()
	return nil
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
