package agent

import (
	"context"
	"log/slog"
	"time"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/felix/kernel/wireguard"
)

// rotationLook is the longest time between two looks at whose turn it is.
const rotationLook = 15 * time.Second

// rotation renews this node's keys in turns, as settings say, and tells which tunnels are
// proved to work, where it matters.
type rotation struct {
	ring      *wireguard.Ring
	encrypted *wireguard.Reconciler
	left      func(time.Time) (wireguard.Left, error) // what the agent before has left
	tunnels   *tunnels
	post      func(...event.Event)
	log       *slog.Logger

	turns wireguard.Rotation
	held  bool   // so it was told
	why   string // what the node itself sends stays in clear, as it was told
}

// begin posts whose turn it was when the agent was here last, and what was proved then,
// before the engine says anything.
func (r *rotation) begin() {
	left := r.lookBefore()
	r.post(event.Set("", &event.Turn{Odd: left.Odd, Live: left.Live, Hosts: left.Hosts}))
}

// lookBefore looks while the engine has not said anything: the API server may be behind
// a tunnel that does not work any more.
func (r *rotation) lookBefore() wireguard.Left {
	left, err := r.left(time.Now())
	if err != nil {
		r.log.Warn("what is left of tunnels that encrypt is not known", "error", err)
	}
	return left
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
		switch period, hosts, ends := r.tunnels.rotation(); {
		case !r.tunnels.hasBegun():
			r.lookBefore()
		case period > 0:
			wait = max(time.Second, min(wait, period/20))
			r.look(time.Now(), period, hosts, ends)
		case hosts:
			r.look(time.Now(), 0, hosts, ends)
		}
		next.Reset(wait)
	}
}

func (r *rotation) look(now time.Time, period time.Duration, hosts bool, ends map[desired.EncryptedEnd]desired.EncryptedPeer) {
	seen, err := r.encrypted.Status()
	if err != nil { // what is not to be seen is not reached
		r.log.Warn("not all tunnels that encrypt can be looked at", "error", err)
	}
	t := r.turns.Look(now, period, seen, ends, r.ring)
	r.post(event.Set("", &event.Turn{Odd: t.Odd, Live: t.Live, Hosts: hosts && r.mayEncrypt(seen)}))
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

// mayEncrypt reports whether what the node itself sends may be encrypted, and tells what
// speaks against it.
func (r *rotation) mayEncrypt(seen map[desired.TunnelKind]wireguard.Status) bool {
	why := r.tunnels.against(seen)
	if why != r.why {
		if r.why = why; why != "" {
			r.log.Warn("what the node itself sends stays in clear", "reason", why)
		}
	}
	return why == ""
}
