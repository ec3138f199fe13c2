// Package speakertest helps to test with BGP speakers: a World of fakes that
// exchange paths in memory, and the Contract that they and real speakers fulfil.
package speakertest

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/koratnet/korat/bgp"
)

// World is a network in which every speaker reaches every other. Sessions come
// up at once when both ends are configured for each other.
type World struct {
	mu       sync.Mutex // guards all that its speakers hold
	speakers []*Fake
}

// Fake is a speaker in a World. It fulfils the Contract.
type Fake struct {
	world *World

	cfg      bgp.Config
	begun    bool
	closed   bool
	deadline time.Time // of the first round
	waiting  map[netip.Addr]struct{}
	paths    map[bgp.Path]struct{}
	sessions map[netip.Addr]*fakeSession

	told    map[netip.Prefix]bgp.Learned // as last given to the caller of Learned
	changed chan struct{}                // of capacity 1
}

type fakeSession struct {
	with  ends // of the session, or of the last one
	up    bool
	since time.Time
	heard map[netip.Prefix]heard
	until time.Time // heard is kept until then though the session is down
	down  time.Time // it was broken and is not tried before
	why   string    // it was broken; empty when it is up
}

// ends is what a session is between. When it changes the session begins anew.
type ends struct {
	neighbour     *Fake
	local, remote netip.Addr
	asn, peerASN  uint32
}

// Speaker adds a silent speaker to w.
func (w *World) Speaker() *Fake {
	w.mu.Lock()
	defer w.mu.Unlock()
	f := &Fake{
		world:   w,
		waiting: map[netip.Addr]struct{}{}, paths: map[bgp.Path]struct{}{},
		sessions: map[netip.Addr]*fakeSession{}, told: map[netip.Prefix]bgp.Learned{},
		changed: make(chan struct{}, 1),
	}
	w.speakers = append(w.speakers, f)
	return f
}

// Originated implements reconcile.Lasting.
func (f *Fake) Originated(context.Context) ([]bgp.Path, error) {
	f.world.mu.Lock()
	defer f.world.mu.Unlock()
	return slices.Collect(maps.Keys(f.paths)), nil
}

// Configure implements reconcile.Speaker.
func (f *Fake) Configure(_ context.Context, c bgp.Config) error {
	f.world.mu.Lock()
	defer f.world.mu.Unlock()
	now := time.Now()
	if !f.begun {
		f.begun, f.deadline = true, now.Add(c.RestartTime)
		for _, p := range c.Peers {
			f.waiting[p.Addr] = struct{}{}
		}
		time.AfterFunc(c.RestartTime, f.world.settle)
	}
	f.cfg = c
	f.cfg.Peers = slices.Clone(c.Peers)
	for addr := range f.sessions {
		if f.peer(addr) == nil {
			delete(f.sessions, addr)
			delete(f.waiting, addr)
		}
	}
	for _, p := range c.Peers {
		if f.sessions[p.Addr] == nil {
			f.sessions[p.Addr] = &fakeSession{since: now}
		}
	}
	f.world.settleLocked(now)
	return nil
}

// Announce implements reconcile.Speaker.
func (f *Fake) Announce(_ context.Context, paths []bgp.Path) error {
	f.world.mu.Lock()
	defer f.world.mu.Unlock()
	for _, p := range paths {
		f.paths[p] = struct{}{}
	}
	f.world.settleLocked(time.Now())
	return nil
}

// Withdraw implements reconcile.Speaker.
func (f *Fake) Withdraw(_ context.Context, paths []bgp.Path) error {
	f.world.mu.Lock()
	defer f.world.mu.Unlock()
	for _, p := range paths {
		delete(f.paths, p)
	}
	f.world.settleLocked(time.Now())
	return nil
}

// Close ends f as if its process ended: neighbours that do graceful restart
// keep what it said.
func (f *Fake) Close() error {
	f.world.mu.Lock()
	defer f.world.mu.Unlock()
	f.closed = true
	f.world.settleLocked(time.Now())
	return nil
}

// Learned implements reconcile.Speaker.
func (f *Fake) Learned(ctx context.Context, fn func([]bgp.Learned, bool)) error {
	f.world.mu.Lock()
	clear(f.told)
	f.world.mu.Unlock()
	f.ring()
	was := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-f.changed:
		}
		batch, synced := f.take()
		if len(batch) > 0 || synced != was {
			fn(batch, synced)
			was = synced
		}
	}
}

// Sessions implements reconcile.Speaker.
func (f *Fake) Sessions(context.Context) ([]bgp.Session, error) {
	f.world.mu.Lock()
	defer f.world.mu.Unlock()
	var out []bgp.Session
	for _, p := range f.cfg.Peers {
		s := f.sessions[p.Addr]
		one := bgp.Session{Peer: p.Name, Addr: p.Addr, ASN: p.ASN, State: "Active", Since: s.since, LastError: s.why}
		if s.up {
			one.Established, one.State = true, "Established"
			one.Received, one.Advertised, one.Accepted = len(s.heard), len(f.tells(p)), len(f.accepts(p))
		}
		out = append(out, one)
	}
	slices.SortFunc(out, func(a, b bgp.Session) int { return a.Addr.Compare(b.Addr) })
	return out, nil
}

// settle lets the world come to rest after time has passed.
func (w *World) settle() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.settleLocked(time.Now())
}

func (w *World) settleLocked(now time.Time) {
	for range 1 + w.reflectors() { // what one tells on another may tell on
		for _, f := range w.speakers {
			if f.closed {
				continue
			}
			for _, p := range f.cfg.Peers {
				f.hear(p, now)
			}
			f.ring()
		}
	}
}

// reflectors counts those that tell on what they hear.
func (w *World) reflectors() int {
	n := 0
	for _, f := range w.speakers {
		if f.cfg.ClusterID.IsValid() {
			n++
		}
	}
	return n
}

// hear brings the session with p up to date.
func (f *Fake) hear(p bgp.Peer, now time.Time) {
	s := f.sessions[p.Addr]
	g, q := f.neighbour(p)
	with := ends{g, p.LocalAddr, p.Addr, f.cfg.ASN, p.ASN}
	up := g != nil && !now.Before(s.down) && !now.Before(g.sessions[q.Addr].down)
	if up != s.up || up && with != s.with {
		lost := s.up && !up
		// A neighbour that closed did so without a word.
		if lost && s.with.neighbour.closed && f.cfg.RestartTime > 0 && s.with.neighbour.cfg.RestartTime > 0 {
			keep := s.with.neighbour.cfg.RestartTime
			s.until = now.Add(keep)
			time.AfterFunc(keep, f.world.settle)
		}
		s.up, s.since = up, now
		if up {
			s.why = ""
		}
	}
	switch {
	case up:
		s.with, s.until = with, time.Time{}
		s.heard = g.tells(q)
		delete(f.waiting, p.Addr)
	case !now.Before(s.until):
		s.heard = nil
	}
}

// neighbour returns the speaker that p is, and us as it knows us; nil when there
// can be no session.
func (f *Fake) neighbour(p bgp.Peer) (*Fake, bgp.Peer) {
	for _, g := range f.world.speakers {
		if g == f || g.closed || g.cfg.ASN != p.ASN {
			continue
		}
		q := g.peer(p.LocalAddr)
		if q == nil || q.LocalAddr != p.Addr || q.ASN != f.cfg.ASN {
			continue
		}
		if !p.Passive && p.Port == g.cfg.ListenPort || !q.Passive && q.Port == f.cfg.ListenPort {
			return g, *q
		}
	}
	return nil, bgp.Peer{}
}

func (f *Fake) peer(addr netip.Addr) *bgp.Peer {
	for i := range f.cfg.Peers {
		if f.cfg.Peers[i].Addr == addr {
			return &f.cfg.Peers[i]
		}
	}
	return nil
}

// take returns what has changed since the last take.
func (f *Fake) take() ([]bgp.Learned, bool) {
	f.world.mu.Lock()
	defer f.world.mu.Unlock()
	now := f.best()
	var batch []bgp.Learned
	for prefix, l := range now {
		if t, ok := f.told[prefix]; !ok || !slices.Equal(t.NextHops, l.NextHops) {
			batch = append(batch, l)
		}
	}
	for prefix := range f.told {
		if _, ok := now[prefix]; !ok {
			batch = append(batch, bgp.Learned{Prefix: prefix})
		}
	}
	f.told = now
	return batch, f.begun && (len(f.waiting) == 0 || !time.Now().Before(f.deadline))
}

func outside(f *Fake, p bgp.Peer) int {
	if p.ASN != f.cfg.ASN {
		return 1
	}
	return 0
}

func (f *Fake) ring() {
	select {
	case f.changed <- struct{}{}:
	default: // it rings already
	}
}
