// Package reconcile keeps a BGP speaker as the engine desires it, and carries
// what the speaker learns back to the engine as events. To felix/apply its
// Speaking is a reconciler like those of the kernel, run by a loop of its own,
// because nobody waits for it.
//
//	calc ── desired.Delta ──▶ Speaking ──▶ Speaker ◀── BGP ──▶ neighbours
//	calc ◀── event.Learned ── Listen  ◀─────┘
//
// The package never writes to the kernel and never decides which of two paths
// to a prefix is used beside a local one: calc does.
package reconcile

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/felix/delta"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/event"
)

// Speaker speaks BGP. bgp/gobgp is one, bgp/speakertest has a small world of
// others and the contract that both fulfil. A Speaker holds what it was told
// until its process ends. Its methods may be called at the same time.
type Speaker interface {
	// Configure makes the speaker speak as the Config says, changing only what
	// differs: sessions of peers that did not change stay. After an error the same
	// call tries again what could not be done.
	Configure(context.Context, bgp.Config) error
	// Announce originates paths, before or after there are peers. A peer is told
	// exactly the kinds that it advertises for. Announcing again is no change.
	Announce(context.Context, []bgp.Path) error
	// Withdraw ends the origination of paths; absent ones are no error.
	Withdraw(context.Context, []bgp.Path) error
	// Learned calls fn with all that the neighbours say, then with changes, until
	// ctx ends. Between two calls only the last state of a prefix is kept. Paths of
	// neighbours that restart gracefully stay until their time is over. synced is
	// true from when every peer of the first Configure has told all it knows or has
	// had the restart time to do so.
	Learned(ctx context.Context, fn func(changed []bgp.Learned, synced bool)) error
	// Sessions returns the state of every peer, by address.
	Sessions(context.Context) ([]bgp.Session, error)
	// Routes returns the paths that neighbours told and were told, for people:
	// by prefix, then peer, what was told to us first. Paths that nobody is told
	// and that this node originates have no peer.
	Routes(context.Context, bgp.Routes) ([]bgp.Route, error)
	// Break ends the session with the peer at addr, because the way to it is dead
	// though the session does not know yet: what the peer said is withdrawn now,
	// not kept for a restart (RFC 5882, 4.3). The session is tried again. why is
	// its LastError until then. It is no error when there is no such peer.
	Break(ctx context.Context, addr netip.Addr, why string) error
}

// SpeakCloser is a Speaker in the hands of who ends it.
type SpeakCloser interface {
	Speaker
	// Close ends the speaker so that neighbours keep its paths where graceful
	// restart was agreed.
	Close() error
}

// Lasting is a Speaker that outlives the agent: what it was told may be the words
// of an earlier one. bgp/child makes one of a Speaker.
type Lasting interface {
	Speaker
	// Originated returns the paths that are announced.
	Originated(context.Context) ([]bgp.Path, error)
}

// Speaking is the reconciler of a Speaker (felix/apply.Reconciler).
type Speaking struct {
	speaker Lasting

	paths    *delta.Tracker[bgp.Path, struct{}]
	config   *bgp.Config // nil: not known yet
	said     bool        // the speaker has config
	complete bool
}

// New returns the reconciler of s.
func New(s Lasting) *Speaking {
	paths := delta.New[bgp.Path](func(struct{}, struct{}) bool { return true })
	// Apply does nothing before all that is wanted is known.
	paths.AllowRemoval(func(bgp.Path, struct{}) bool { return true })
	return &Speaking{speaker: s, paths: paths}
}

// Name returns "bgp".
func (s *Speaking) Name() string { return "bgp" }

// Want takes in a change of paths and of the speaker's configuration.
func (s *Speaking) Want(d desired.Delta) {
	for k, p := range d.Paths {
		if p == nil {
			s.paths.Unwant(bgp.Path(k))
		} else {
			s.paths.Want(bgp.Path(k), struct{}{})
		}
	}
	if d.Speaker != nil && (s.config == nil || !s.config.Equal(*d.Speaker)) {
		s.config, s.said = d.Speaker, false
	}
	s.complete = s.complete || d.Complete
}

// Resync reads back what is announced. The next Apply says the configuration once
// more: the speaker may be another one than before.
func (s *Speaking) Resync(ctx context.Context) error {
	s.said = false
	there, err := s.speaker.Originated(ctx)
	if err != nil {
		return fmt.Errorf("read back from bgp speaker: %w", err)
	}
	s.paths.Resync(func(yield func(bgp.Path, struct{}) bool) {
		for _, p := range there {
			if !yield(p, struct{}{}) {
				return
			}
		}
	})
	return nil
}

// Apply tells the speaker what is pending: paths first, so that peers meet them.
// No session begins before the local state is complete and all its paths are
// announced. A neighbour that kept our paths over a restart drops, at our
// End-of-RIB, those that it was not told again (RFC 4724): what we did not know
// yet would be lost.
func (s *Speaking) Apply(ctx context.Context) error {
	if !s.complete {
		return nil
	}
	if err := s.applyPaths(ctx); err != nil {
		return err // and no new sessions: they would end with an End-of-RIB that is not true
	}
	if s.said || s.config == nil {
		return nil
	}
	if err := s.speaker.Configure(ctx, *s.config); err != nil {
		return fmt.Errorf("configure bgp speaker: %w", err)
	}
	s.said = true
	return nil
}

func (s *Speaking) applyPaths(ctx context.Context) error {
	var add, del []bgp.Path
	for p, change := range s.paths.Pending() {
		if change.Op == delta.Remove {
			del = append(del, p)
		} else {
			add = append(add, p)
		}
	}
	if err := say(ctx, s.paths, add, s.speaker.Announce); err != nil {
		return fmt.Errorf("announce: %w", err)
	}
	if err := say(ctx, s.paths, del, s.speaker.Withdraw); err != nil {
		return fmt.Errorf("withdraw: %w", err)
	}
	return nil
}

func say(ctx context.Context, t *delta.Tracker[bgp.Path, struct{}], paths []bgp.Path,
	to func(context.Context, []bgp.Path) error,
) error {
	if len(paths) == 0 {
		return nil
	}
	if err := to(ctx, paths); err != nil {
		return err
	}
	for _, p := range paths {
		t.Done(p)
	}
	return nil
}

// Inbox is where events go: felix/event/mailbox.
type Inbox interface {
	Post(...event.Event)
	Synced(event.Source)
}

// Listen posts what s learns until ctx ends, and event.Neighbours once the neighbours
// have told all they know.
func Listen(ctx context.Context, s Speaker, to Inbox) error {
	told := false
	err := s.Learned(ctx, func(changed []bgp.Learned, synced bool) {
		events := make([]event.Event, 0, len(changed))
		for _, l := range changed {
			name := l.Prefix.String()
			if len(l.NextHops) == 0 {
				events = append(events, event.Gone(event.LearnedKind, name))
			} else {
				events = append(events, event.Set(name, &event.Learned{Learned: l}))
			}
		}
		to.Post(events...)
		if synced && !told {
			told = true
			to.Synced(event.Neighbours)
		}
	})
	if err != nil {
		return fmt.Errorf("listen to bgp speaker: %w", err)
	}
	return nil
}
