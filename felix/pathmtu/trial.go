package pathmtu

import (
	"net/netip"

	"github.com/koratnet/korat/felix/desired"
)

// Peer is an address of another node.
type Peer struct {
	Node string
	Addr netip.Addr
	// MTU of the interface through which the kernel sends to it.
	MTU int
	// Tunnel is the interface to send through; empty: that to which routes lead.
	Tunnel string
	// Offloads: the tunnel's packets leave the kernel unfinished, and it is to be
	// tried whether they arrive.
	Offloads bool
	// MAC of the other end of a tunnel of VXLAN: trains are sent to it.
	MAC desired.MAC
}

// way tells peers apart: one address can be reached through tunnels and beside them.
type way struct {
	addr   netip.Addr
	tunnel string
}

func (p Peer) way() way { return way{p.Addr, p.Tunnel} }

// Outcome is what came of a trial.
type Outcome uint8

// The outcomes.
const (
	Unanswered Outcome = iota // the small packet is not answered either, or not reliably
	Clear                     // packets of the full size pass
	BlackHole                 // larger packets vanish
	Narrow                    // larger packets are refused by a router that says so
)

// attempts is how often the large packet may be lost while the small one is
// answered until its size is taken for too large, and patience how often nothing is
// answered until the trial is given up.
const (
	attempts = 3
	patience = 3
)

// answer is what came back of one pair of packets.
type answer struct {
	small, large bool
	// told is the MTU that a router names; 0: none did.
	told int
}

// trial looks for the largest packet that reaches a peer: pairs of a small and a large
// one are sent, and the answers say which size is next.
type trial struct {
	most    int // the size that should pass
	size    int // of the large packet that is sent next
	passes  int // the largest that is known to pass
	fails   int // the smallest that is known not to
	lost    int // of size, in a row
	silent  int // pairs, in a row
	told    bool
	outcome Outcome
	over    bool
}

// newTrial begins with the size that should pass; least is that of the small packet.
func newTrial(least, most int) *trial {
	return &trial{most: most, size: most, passes: least, fails: most + 1}
}

// hear takes in what came of a pair. Afterwards over says whether all is known.
func (t *trial) hear(a answer) {
	switch {
	case a.large:
		t.passes, t.lost, t.silent = max(t.passes, t.size), 0, 0
	case a.told > 0 && a.told < t.size: // no need to look further: this is what the router forwards
		t.told = true
		t.passes, t.fails, t.lost = a.told, a.told+1, 0
	case a.small:
		if t.lost, t.silent = t.lost+1, 0; t.lost < attempts {
			return
		}
		t.fails, t.lost = t.size, 0
	default:
		if t.silent++; t.silent == patience {
			t.outcome, t.over = Unanswered, true
		}
		return
	}
	if t.passes+1 < t.fails {
		t.size = (t.passes + t.fails) / 2
		return
	}
	t.over = true
	switch {
	case t.passes >= t.most:
		t.outcome = Clear
	case t.told:
		t.outcome = Narrow
	default:
		t.outcome = BlackHole
	}
}
