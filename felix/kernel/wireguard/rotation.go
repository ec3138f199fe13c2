package wireguard

import (
	"bytes"
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/koratnet/korat/felix/desired"
)

const (
	// liveFor is how long a handshake allows to send. Ends greet each other in time
	// before, whether or not there is anything to send.
	liveFor = 180 * time.Second
	// quiet is how many bytes greetings and handshakes may come to between two looks,
	// and what carries packets exceeds.
	quiet = 512
)

// Rotation decides by the clock when which of a node's two keys is renewed, where it has
// two. It acts on nothing, and reads no clock.
//
//	turn    │  even: packets take the first ends   │  odd: packets take the second   │
//	key     │           second renewed ▲           │           first renewed ▲       │
//
// A key is renewed in the middle of the turn of the other one, so that all nodes have
// heard of it and have proved it when its own comes, and clocks may differ. Nodes need
// no other agreement: each receives through both ends at any time.
type Rotation struct {
	period   time.Duration
	begun    time.Time                       // since when it looks with this period
	received map[desired.EncryptedEnd]uint64 // bytes, when it looked last
}

// Turn is what a Rotation sees.
type Turn struct {
	Odd  bool                              // it is the turn of the second ends
	Live map[desired.EncryptedEnd]struct{} // other nodes' ends that packets reach
	// Renew: the key whose turn it is not is to be renewed now.
	Renew bool
	// Held are the ends of nodes that would lose packets by that, so that it waits for
	// them. Sorted. A node that is gone is not among them.
	Held []desired.EncryptedEnd
}

// Rests is the end, of those of IPv4, whose turn it is not: it has the key that is renewed.
func (t *Turn) Rests() desired.TunnelKind {
	if t.Odd {
		return desired.WireGuard4
	}
	return desired.WireGuard4Odd
}

// Look says what is to be done at the time now; with a period of 0 keys take no turns.
// seen is what the tunnels tell, wanted the other nodes' ends, and since when the key was
// made whose turn it is not is asked of the ring.
func (r *Rotation) Look(now time.Time, period time.Duration, seen map[desired.TunnelKind]Status, wanted map[desired.EncryptedEnd]desired.EncryptedPeer, ring *Ring) Turn {
	if r.period != period {
		*r = Rotation{period: period, begun: now}
	}
	if period == 0 {
		return Turn{Live: live(now, seen)}
	}
	number := now.UnixNano() / int64(period)
	start := time.Unix(0, number*int64(period))
	t := Turn{Odd: number%2 == 1, Live: live(now, seen)}
	busy := r.busy(seen)

	_, since := ring.Key(t.Rests())
	done := !since.Before(start) && !since.After(now)
	early, late := now.Before(start.Add(period/2)), !now.Before(start.Add(period/4*3))
	if done || early || late || now.Sub(r.begun) < period/4 {
		return t
	}
	t.Held = t.held(wanted, busy)
	t.Renew = len(t.Held) == 0
	return t
}

// live returns the ends with a handshake that is not too old. Keys that change begin
// without one.
func live(now time.Time, seen map[desired.TunnelKind]Status) map[desired.EncryptedEnd]struct{} {
	ends := map[desired.EncryptedEnd]struct{}{}
	for kind, s := range seen {
		for key, p := range s.Peers {
			if !p.Handshake.IsZero() && now.Sub(p.Handshake) < liveFor {
				ends[desired.EncryptedEnd{Kind: kind, Key: key}] = struct{}{}
			}
		}
	}
	return ends
}

// busy returns the ends from which more has come since the look before than there is
// to come where no packets are sent.
func (r *Rotation) busy(seen map[desired.TunnelKind]Status) map[desired.EncryptedEnd]bool {
	ends, received := map[desired.EncryptedEnd]bool{}, map[desired.EncryptedEnd]uint64{}
	for kind, s := range seen {
		for key, p := range s.Peers {
			end := desired.EncryptedEnd{Kind: kind, Key: key}
			before, known := r.received[end]
			received[end], ends[end] = p.Received, known && p.Received > before+quiet
		}
	}
	r.received = received
	return ends
}

// held returns the ends whose turn it is not, and that packets take all the same: this
// node's, because nothing else reaches the other node, or the other's, because its agent
// is away, or it has no other end.
func (t *Turn) held(wanted map[desired.EncryptedEnd]desired.EncryptedPeer, busy map[desired.EncryptedEnd]bool) (ends []desired.EncryptedEnd) {
	reached := map[netip.Addr]bool{}
	for end, p := range wanted {
		if _, works := t.Live[end]; works && end.Kind.Odd() == t.Odd {
			reached[p.Endpoint.Addr()] = true
		}
	}
	for end, p := range wanted {
		_, works := t.Live[end]
		if works && end.Kind.Odd() != t.Odd && (!p.Idle || busy[end] || !reached[p.Endpoint.Addr()]) {
			ends = append(ends, end)
		}
	}
	slices.SortFunc(ends, func(a, b desired.EncryptedEnd) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), bytes.Compare(a.Key[:], b.Key[:]))
	})
	return ends
}
