// Package guarded puts a BFD session beside the BGP sessions that ask for one, and
// ends a BGP session whose path failed (RFC 5882). It is used in the process that
// speaks BGP, around bgp/gobgp:
//
//	bgp/child.Server ──▶ guarded.Speaker ──▶ bgp/gobgp
//	                          │    ▲
//	                     sessions  failures
//	                          ▼    │
//	                        bgp/bfd
//
// BFD ends BGP sessions and never hinders one: a session comes up also while BFD is
// down, as with neighbours that have none yet.
package guarded

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/bgp/bfd"
	"github.com/koratnet/korat/bgp/reconcile"
)

// Inner is the speaker that is guarded.
type Inner interface {
	reconcile.SpeakCloser
	// Established reports whether the session with the peer at addr is up. It is
	// asked when every millisecond counts, and waits for nothing.
	Established(addr netip.Addr) bool
	// Unnumbered returns the addresses of those unnumbered peers that were found on
	// their links, by Peer.Name.
	Unnumbered() map[string]netip.Addr
}

// breakTime is how long the speaker may take to end one session.
const breakTime = 10 * time.Second

// lookEvery is how often the speaker is asked for the addresses of unnumbered
// neighbours.
const lookEvery = time.Second

// Speaker is an Inner whose sessions are guarded.
type Speaker struct {
	Inner
	log    *slog.Logger
	system *bfd.System
	stop   context.CancelFunc
	looks  sync.WaitGroup

	mu    sync.Mutex // guards peers, and that sessions are set in the order in which they were found
	peers []bgp.Peer // that ask for BFD
}

// New guards inner, which belongs to the Speaker from now on. It begins to listen
// on the ports of BFD when a peer asks for it.
func New(inner Inner, log *slog.Logger) *Speaker {
	ctx, stop := context.WithCancel(context.Background())
	s := &Speaker{Inner: inner, log: log, stop: stop}
	s.system = bfd.New(bfd.Config{Log: log, Changed: func(c bfd.Change) { s.changed(ctx, c) }})
	s.looks.Go(func() { s.look(ctx) })
	return s
}

// Configure configures the inner speaker, and makes the BFD sessions those of the
// peers that ask for one. Sessions of peers that did not change go on.
func (s *Speaker) Configure(ctx context.Context, c bgp.Config) error {
	err := s.Inner.Configure(ctx, c)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.peers = nil
	if c.ASN != 0 {
		for _, p := range c.Peers {
			if p.BFD.Enabled {
				s.peers = append(s.peers, p)
			}
		}
	}
	return errors.Join(err, s.set(ctx))
}

// Sessions returns what the inner speaker says, with the state of BFD.
func (s *Speaker) Sessions(ctx context.Context) ([]bgp.Session, error) {
	out, err := s.Inner.Sessions(ctx)
	if err != nil {
		return nil, err
	}
	states := map[netip.Addr]bfd.State{}
	for _, st := range s.system.States() {
		states[st.Peer] = st.State
	}
	for i := range out {
		if st, ok := states[out[i].Addr]; ok {
			out[i].BFD = st.String()
		}
	}
	return out, nil
}

// Close ends the inner speaker, and then tells the neighbours by BFD that we end on
// purpose. In this order: BIRD ends a BGP session for it all the same, but not one
// that restarts gracefully. It takes at most a second longer than the inner one.
func (s *Speaker) Close() error {
	s.stop()
	s.looks.Wait()
	return errors.Join(s.Inner.Close(), s.system.Close())
}

// set makes the BFD sessions. The caller holds mu.
func (s *Speaker) set(ctx context.Context) error {
	addrs := s.Unnumbered()
	var sessions []bfd.Session
	for _, p := range s.peers {
		if p.Interface != "" {
			p.Addr = addrs[p.Name]
		}
		if p.Addr.IsValid() {
			sessions = append(sessions, session(p))
		}
	}
	return s.system.Set(ctx, sessions)
}

// session is the BFD session that p asks for.
func session(p bgp.Peer) bfd.Session {
	t := bfd.DefaultTiming()
	return bfd.Session{
		Key: bfd.Key{Peer: p.Addr, Local: p.LocalAddr, Multihop: p.BFD.Multihop},
		Timing: bfd.Timing{
			Transmit: cmp.Or(p.BFD.Transmit, t.Transmit), Receive: cmp.Or(p.BFD.Receive, t.Receive),
			Multiplier: cmp.Or(p.BFD.Multiplier, t.Multiplier),
		},
		MinTTL: p.BFD.MinTTL,
	}
}

func (s *Speaker) haveUnnumbered() bool {
	for _, p := range s.peers {
		if p.Interface != "" {
			return true
		}
	}
	return false
}

// look follows the addresses of unnumbered neighbours: a router may be another one
// tomorrow.
func (s *Speaker) look(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s.mu.Lock()
		if s.haveUnnumbered() {
			if err := s.set(ctx); err != nil && ctx.Err() == nil {
				s.log.Warn("bfd beside unnumbered neighbours", "error", err)
			}
		}
		s.mu.Unlock()
	}
}

// changed ends the BGP session beside a BFD session that failed.
func (s *Speaker) changed(ctx context.Context, c bfd.Change) {
	if !c.Lost {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, breakTime)
	defer cancel()
	// Where the session ended before BFD noticed anything, the neighbour's connection
	// was closed by its kernel: its control plane restarts, and takes along a BFD that
	// is not independent of it. Graceful restart then goes on (RFC 5882 section 4.3.2).
	// A neighbour that vanishes closes nothing, and BFD notices first.
	if !c.Independent && !s.Established(c.Peer) {
		s.log.Info("bfd failed while the neighbour restarts: its routes are kept", "peer", c.Peer)
		return
	}
	if err := s.Break(ctx, c.Peer, "BFD: "+c.Diag.String()); err != nil && ctx.Err() == nil {
		s.log.Error("session of a neighbour that failed", "peer", c.Peer, "error", err)
	}
}
