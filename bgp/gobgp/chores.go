package gobgp

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/osrg/gobgp/v4/api"
)

// chores is what a server's events ask to be done to it. They are done one after
// another, by a goroutine of their own: an event must not wait for the Speaker,
// which may be waiting for what comes after the event.
type chores struct {
	wake chan struct{} // of capacity 1

	mu   sync.Mutex // guards list
	list []func(context.Context)
}

func newChores() *chores { return &chores{wake: make(chan struct{}, 1)} }

func (c *chores) add(f func(context.Context)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = append(c.list, f)
	select {
	case c.wake <- struct{}{}:
	default: // it will look
	}
}

func (c *chores) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
		}
		c.mu.Lock()
		list := c.list
		c.list = nil
		c.mu.Unlock()
		for _, f := range list {
			f(ctx)
		}
	}
}

// withPeer does f to the peer at addr, if it is still there and of this server.
func (s *Speaker) withPeer(ctx context.Context, addr netip.Addr, doing string, f func(applied) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.peers[addr]
	if !ok || s.srv == nil || ctx.Err() != nil {
		return
	}
	if err := f(p); err != nil {
		s.log.Warn(doing, "peer", p.Name, "error", err)
	}
}

// tellAtOnce tells a peer all our paths when the first session after a restart
// comes up. GoBGP would wait for the deferral: a restart before that is over
// would find the neighbour without them, and those that do not speak RFC 8538
// drop what was not told again between two restarts (RFC 4724, 4.2).
//
// GoBGP suppresses what changes until then and tells all paths once more; what is
// withdrawn meanwhile would be forgotten. It waits.
func (s *Speaker) tellAtOnce(ctx context.Context, addr netip.Addr) {
	s.withPeer(ctx, addr, "tell all paths after a restart", func(p applied) error {
		if !p.restarting {
			return nil
		}
		p.restarting = false
		s.peers[addr] = p
		s.withdrawFrom(time.Now().Add(deferral + deferralSlack))
		return s.srv.ResetPeer(ctx, &api.ResetPeerRequest{
			Address: addr.String(), Soft: true, Direction: api.ResetPeerRequest_DIRECTION_OUT,
		})
	})
}

const deferralSlack = 500 * time.Millisecond

// withdrawFrom holds withdrawals back until then. s.mu is held.
func (s *Speaker) withdrawFrom(then time.Time) {
	if !then.After(s.quietUntil) {
		return
	}
	s.quietUntil = then
	work := s.chores
	time.AfterFunc(time.Until(then), func() { work.add(s.withdrawHeld) })
}

// withdrawHeld withdraws what was held back, if the time has come.
func (s *Speaker) withdrawHeld(context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.srv == nil || time.Now().Before(s.quietUntil) {
		return
	}
	var gone []netip.Prefix
	for prefix := range s.held {
		gone = append(gone, prefix)
	}
	clear(s.held)
	if err := deletePaths(s.srv, gone); err != nil {
		s.log.Warn("withdraw after a restart", "error", err)
	}
}

// hold takes those prefixes out of gone that are withdrawn later. s.mu is held.
func (s *Speaker) hold(gone []netip.Prefix) []netip.Prefix {
	if !time.Now().Before(s.quietUntil) {
		return gone
	}
	for _, p := range gone {
		s.held[p] = struct{}{}
	}
	return nil
}

// tooManyPause is how long a peer that said too much is left alone.
const tooManyPause = time.Minute

// tooMany ends the session with a peer that announces more than it may, forgets
// what it said, and tries again later. GoBGP by itself would keep its paths for
// the restart time and never try again.
func (s *Speaker) tooMany(ctx context.Context, addr netip.Addr) {
	s.withPeer(ctx, addr, "pause a peer that announced too much", func(p applied) error {
		if err := s.removePeer(ctx, p); err != nil {
			return err
		}
		why := fmt.Sprintf("too many prefixes: more than %d; tried again after %s", p.MaxPrefixes, tooManyPause)
		if err := s.addPeer(ctx, p, pausedPeer); err != nil {
			return err
		}
		s.sessions.broken(addr, why)
		srv, work := s.srv, s.chores
		time.AfterFunc(tooManyPause, func() {
			work.add(func(ctx context.Context) {
				s.withPeer(ctx, addr, "try a peer again", func(applied) error {
					return srv.EnablePeer(ctx, &api.EnablePeerRequest{Address: addr.String()})
				})
			})
		})
		return nil
	})
}

// ownAS ends the session of an unnumbered peer that is of our own AS.
func (s *Speaker) ownAS(ctx context.Context, addr netip.Addr) {
	s.withPeer(ctx, addr, "end a session with our own AS", func(p applied) error {
		if err := s.srv.DisablePeer(ctx, &api.DisablePeerRequest{Address: addr.String()}); err != nil {
			return err
		}
		s.sessions.broken(addr, fmt.Sprintf("AS mismatch: the router on %s is of our own AS", p.Interface))
		return nil
	})
}
