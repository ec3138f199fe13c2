package gobgp

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
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

// sessionUp makes sure that a peer whose session came up at that time is told
// all. GoBGP says that a session is up, and tells what there is, before it counts
// the session among those that changes are told to: what changes in between is
// lost. So all is told once more, where something may have been lost; the copy of
// GoBGP that Korat's programs are built with loses nothing.
//
// When the first session after a restart comes up GoBGP would tell nothing before
// the deferral is over: a restart before that would find the neighbour without
// our paths, and those that do not speak RFC 8538 drop what was not told again
// between two restarts (RFC 4724, 4.2). GoBGP suppresses what changes until then
// and tells all paths once more; what is withdrawn meanwhile waits.
func (s *Speaker) sessionUp(ctx context.Context, addr netip.Addr, at time.Time) {
	s.withPeer(ctx, addr, "tell all paths", func(p applied) error {
		if !p.restarting && (countsFirst(s.srv) || !s.cfg.ClusterID.IsValid() && s.changed.Before(at.Add(-countedWithin))) {
			return nil
		}
		if !s.counted(ctx, addr) {
			if time.Since(at) < countedWithin {
				work := s.chores
				time.AfterFunc(countedPoll, func() {
					work.add(func(ctx context.Context) { s.sessionUp(ctx, addr, at) })
				})
			}
			return nil // else it is down again, and there will be another
		}
		if p.restarting {
			p.restarting = false
			s.peers[addr] = p
			s.withdrawFrom(time.Now().Add(deferral + deferralSlack))
		}
		return errors.Join(s.srv.ResetPeer(ctx, &api.ResetPeerRequest{
			Address: addr.String(), Soft: true, Direction: api.ResetPeerRequest_DIRECTION_OUT,
		}), s.withdrawAgain(at.Add(-countedWithin)))
	})
}

// countsFirst reports whether GoBGP is the copy that hack/gobgp.sh makes, in which a
// session counts before it is told what there is.
func countsFirst(srv any) bool {
	_, yes := srv.(interface{ CountsFirst() })
	return yes
}

const (
	countedWithin = 2 * time.Second
	countedPoll   = 5 * time.Millisecond
)

// counted reports whether changes are told to the peer. s.mu is held.
func (s *Speaker) counted(ctx context.Context, addr netip.Addr) bool {
	up := false
	err := s.srv.ListPeer(ctx, &api.ListPeerRequest{Address: addr.String()}, func(p *api.Peer) {
		up = up || p.GetState().GetSessionState() == api.PeerState_SESSION_STATE_ESTABLISHED
	})
	return up && err == nil
}

// withdrawAgain withdraws what was withdrawn since then, and announced again
// for a moment: GoBGP tells nobody of what it does not have. s.mu is held.
func (s *Speaker) withdrawAgain(since time.Time) error {
	paths := map[netip.Prefix]said{}
	for prefix, w := range s.withdrawn {
		_, there := s.paths[prefix]
		_, held := s.held[prefix]
		if !there && !held && w.at.After(since) {
			paths[prefix] = w.as
		}
	}
	if len(paths) == 0 {
		return nil
	}
	return errors.Join(addPaths(s.srv, paths, s.prefs(paths)), deletePaths(s.srv, slices.Collect(maps.Keys(paths))))
}

// withdrawal is a path that was ours until a moment ago.
type withdrawal struct {
	as said
	at time.Time
}

// note remembers what changes, for sessions that are coming up. s.mu is held.
func (s *Speaker) note(gone []netip.Prefix) {
	s.changed = time.Now()
	maps.DeleteFunc(s.withdrawn, func(_ netip.Prefix, w withdrawal) bool { return s.changed.Sub(w.at) > 2*countedWithin })
	for _, prefix := range gone {
		s.withdrawn[prefix] = withdrawal{s.paths[prefix], s.changed}
	}
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
