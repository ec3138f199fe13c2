package agent

import (
	"context"
	"log/slog"
	"maps"
	"time"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/felix/kernel/wireguard"
)

// rotationLook is the longest time between two looks at whose turn it is.
const rotationLook = 15 * time.Second

// rotation renews this node's keys in turns, as settings say.
type rotation struct {
	ring      *wireguard.Ring
	encrypted *wireguard.Reconciler
	tunnels   *tunnels
	post      func(...event.Event)
	log       *slog.Logger

	turns wireguard.Rotation
	held  bool // so it was told
}

// begin posts whose turn it was when the agent was here last, before the engine says
// anything: what is proved to be reached is known once the tunnels are looked at.
func (r *rotation) begin() {
	odd, err := r.encrypted.Odd()
	if err != nil {
		r.log.Warn("it is not known which keys packets take", "error", err)
	}
	r.post(event.Set("", &event.Turn{Odd: odd}))
}

// run looks whose turn it is until ctx ends.
func (r *rotation) run(ctx context.Context) error {
	next := time.NewTimer(0)
	defer next.Stop()
	for {
		select {
		case <-next.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		wait := rotationLook
		if period, ends := r.tunnels.rotation(); period > 0 {
			wait = max(time.Second, min(wait, period/20))
			r.look(time.Now(), period, ends)
		}
		next.Reset(wait)
	}
}

func (r *rotation) look(now time.Time, period time.Duration, ends map[desired.EncryptedEnd]desired.EncryptedPeer) {
	seen, err := r.encrypted.Status()
	if err != nil { // what is not to be seen is not reached
		r.log.Warn("not all tunnels that encrypt can be looked at", "error", err)
	}
	t := r.turns.Look(now, period, seen, ends, r.ring)
	r.post(event.Set("", &event.Turn{Odd: t.Odd, Live: t.Live}))
	if held := len(t.Held) > 0; held != r.held {
		if r.held = held; held {
			r.log.Warn("a key is not renewed while nodes send by it alone", "interface", t.Held[0].Kind.Device(), "nodes", len(t.Held), "public_key", t.Held[0].Key)
		}
	}
	if !t.Renew {
		return
	}
	kind := t.Rests()
	if err := r.ring.Renew(kind); err != nil {
		r.log.Error("a key cannot be renewed", "interface", kind.Device(), "error", err)
		return
	}
	r.log.Info("key renewed", "interface", kind.Device())
	tellKeys(r.ring, r.post)
}

// rotation returns how often keys take turns, 0 for never, and the ends of other nodes.
func (t *tunnels) rotation() (period time.Duration, ends map[desired.EncryptedEnd]desired.EncryptedPeer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.period == 0 {
		return 0, nil
	}
	return t.period, maps.Clone(t.ends)
}
