package gobgp

import (
	"net/netip"
	"time"

	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/koratnet/korat/bgp"
)

const (
	// waitWithoutRestart is how long the first neighbours may take when graceful
	// restart is off and there is no restart time to go by.
	waitWithoutRestart = 30 * time.Second
	// settle is how long a neighbour that is up may take when it does not do
	// graceful restart: it may never say that it is done.
	settle = 5 * time.Second
)

// waiting is the first round of hearing the neighbours. It begins with the first
// configuration, and is over when each neighbour has told all it knows, was
// removed, or has had its time. It has no clock: times come from the caller.
type waiting struct {
	begun, done bool
	until       map[netip.Addr]time.Time // by neighbour that has not told all yet
}

func (w *waiting) expect(c bgp.Config, now time.Time) {
	if w.done {
		return
	}
	deadline := now.Add(waitWithoutRestart)
	if c.RestartTime > 0 {
		deadline = now.Add(c.RestartTime)
	}
	until := make(map[netip.Addr]time.Time, len(c.Peers))
	if c.ASN != 0 {
		for _, p := range c.Peers {
			if t, ok := w.until[waitedFor(p)]; ok {
				until[waitedFor(p)] = t
			} else if !w.begun {
				// One that came later is not waited for: what it knows was not learned
				// before the restart.
				until[waitedFor(p)] = deadline
			}
		}
	}
	w.begun, w.until = true, until
}

// waitedFor stands for a peer: its address, or any router on its link.
func waitedFor(p bgp.Peer) netip.Addr {
	if p.Interface != "" {
		return netip.IPv6LinkLocalAllRouters().WithZone(p.Interface)
	}
	return p.Addr
}

// known returns what the peer at addr is waited for as.
func (w *waiting) known(addr netip.Addr) netip.Addr {
	if _, ok := w.until[addr]; !ok && addr.Zone() != "" {
		return netip.IPv6LinkLocalAllRouters().WithZone(addr.Zone())
	}
	return addr
}

func (w *waiting) heard(peer netip.Addr) { delete(w.until, w.known(peer)) }

func (w *waiting) settleSoon(peer netip.Addr, now time.Time) {
	peer = w.known(peer)
	if t, ok := w.until[peer]; ok && now.Add(settle).Before(t) {
		w.until[peer] = now.Add(settle)
	}
}

// over reports whether the first round is over at now, and else when to ask
// again at the latest; that is zero while nothing but news can end it.
func (w *waiting) over(now time.Time) (bool, time.Time) {
	if w.done || !w.begun {
		return w.done, time.Time{}
	}
	var next time.Time
	for _, t := range w.until {
		if t.After(now) && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	w.done = next.IsZero()
	return w.done, next
}

// restartable reports whether a neighbour with these capabilities will say
// End-of-RIB.
func restartable(caps []packet.ParameterCapabilityInterface) bool {
	for _, c := range caps {
		if _, ok := c.(*packet.CapGracefulRestart); ok {
			return true
		}
	}
	return false
}
