package gobgp

import (
	"context"
	"maps"
	"math"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/osrg/gobgp/v4/pkg/apiutil"
	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/koratnet/korat/bgp"
)

// learned is what the neighbours say: per prefix the equally good best paths.
// GoBGP's watcher writes it, the caller of Learned reads what changed.
type learned struct {
	wake chan struct{} // of capacity 1: something is to be read

	mu      sync.Mutex // guards the rest
	paths   map[netip.Prefix][]heardPath
	changed map[netip.Prefix]struct{}
	own     map[netip.Addr]struct{} // our addresses: a next hop among them is ourselves
	first   waiting
}

// pause is between two calls of Learned's function: what comes meanwhile goes along. A
// call for each path would take longer than GoBGP takes to tell the next one.
const pause = 2 * time.Millisecond

// heardPath is one best path. A neighbour has at most one per prefix and id.
type heardPath struct {
	from    netip.Addr
	id      uint32
	nextHop netip.Addr
	stale   bool    // kept over a long restart: used only when there is no other (RFC 9494)
	speed   float32 // link bandwidth, bytes a second; 0: not told
}

func newLearned() *learned {
	return &learned{
		wake:    make(chan struct{}, 1),
		paths:   map[netip.Prefix][]heardPath{},
		changed: map[netip.Prefix]struct{}{},
	}
}

// expect takes in a configuration, before its peers are set.
func (l *learned) expect(c bgp.Config, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.first.expect(c, now)
	l.ring()
}

// setOwn takes in the addresses that we give as next hops.
func (l *learned) setOwn(c bgp.Config) {
	l.mu.Lock()
	defer l.mu.Unlock()
	own := make(map[netip.Addr]struct{}, 2)
	for _, p := range c.Peers {
		for _, addr := range []netip.Addr{p.LocalAddr, p.NextHop4, p.NextHop6} {
			if addr.IsValid() {
				own[addr] = struct{}{}
			}
		}
	}
	if maps.Equal(own, l.own) {
		return
	}
	l.own = own
	l.changeAll() // a change of our address is rare
	l.ring()
}

// ownAddrs returns the addresses that we give as next hops.
func (l *learned) ownAddrs() map[netip.Addr]struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.own // replaced, never changed
}

// toldOn counts the prefixes of families that a reflector tells p: all whose best
// path is not of p.
func (l *learned) toldOn(p applied, f bgp.Families) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for prefix, paths := range l.paths {
		bit := bgp.IPv6
		if prefix.Addr().Is4() {
			bit = bgp.IPv4
		}
		if f&bit != 0 && paths[0].from != p.Addr {
			n++
		}
	}
	return n
}

// update takes in changed best paths, as GoBGP tells them: paths that are best
// now, and withdrawals of paths that are not among the best any more. Where our
// own path is the best, what the neighbours say is withdrawn.
func (l *learned) update(paths []*apiutil.Path) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range paths {
		nlri, ok := p.Nlri.(*packet.IPAddrPrefix)
		if !ok || !p.PeerAddress.IsValid() { // a path of our own has no peer
			continue
		}
		l.set(nlri.Prefix, hear(p), p.Withdrawal)
	}
	l.ring()
}

func (l *learned) set(prefix netip.Prefix, p heardPath, gone bool) {
	l.changed[prefix] = struct{}{}
	rest := slices.DeleteFunc(l.paths[prefix], func(o heardPath) bool { return o.from == p.from && o.id == p.id })
	if !gone {
		rest = append(rest, p)
	}
	if len(rest) == 0 {
		delete(l.paths, prefix)
		return
	}
	l.paths[prefix] = rest
}

// heard says that peer has told all it knows.
func (l *learned) heard(peer netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.first.heard(peer.Unmap())
	l.ring()
}

// settleSoon says that peer will not say when it has told all.
func (l *learned) settleSoon(peer netip.Addr, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.first.settleSoon(peer.Unmap(), now)
	l.ring()
}

// clear withdraws everything.
func (l *learned) clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.changeAll()
	clear(l.paths)
	l.ring()
}

func (l *learned) ring() {
	select {
	case l.wake <- struct{}{}:
	default: // it rings already
	}
}

func (l *learned) run(ctx context.Context, fn func([]bgp.Learned, bool)) error {
	l.mu.Lock()
	l.changeAll()
	l.mu.Unlock()
	timer := time.NewTimer(0)
	defer timer.Stop()
	told := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.wake:
		case <-timer.C:
		}
		batch, synced, next := l.take(time.Now())
		if len(batch) > 0 || synced && !told {
			fn(batch, synced)
			told = synced
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(pause):
			}
		}
		timer.Stop()
		if !next.IsZero() {
			timer.Reset(time.Until(next))
		}
	}
}

// changeAll marks everything as to be read. l.mu is held.
func (l *learned) changeAll() {
	for prefix := range l.paths {
		l.changed[prefix] = struct{}{}
	}
}

// take returns what changed since the last time, whether the first round is
// over, and when to look again if it is not.
func (l *learned) take(now time.Time) ([]bgp.Learned, bool, time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	batch := make([]bgp.Learned, 0, len(l.changed))
	for prefix := range l.changed {
		batch = append(batch, l.at(prefix))
	}
	clear(l.changed)
	synced, next := l.first.over(now)
	return batch, synced, next
}

// hear reads of a path what we need.
func hear(p *apiutil.Path) heardPath {
	out := heardPath{from: p.PeerAddress.Unmap(), id: p.RemoteID, nextHop: nextHop(p.Attrs)}
	if out.nextHop.IsLinkLocalUnicast() {
		out.nextHop = out.nextHop.WithZone(out.from.Zone()) // it is on the link of who said it
	}
	for _, a := range p.Attrs {
		switch a := a.(type) {
		case *packet.PathAttributeCommunities:
			out.stale = slices.Contains(a.Value, uint32(packet.COMMUNITY_LLGR_STALE))
		case *packet.PathAttributeExtendedCommunities:
			for _, c := range a.Value {
				if l, ok := c.(*packet.LinkBandwidthExtended); ok {
					out.speed = l.Bandwidth
				}
			}
		}
	}
	return out
}

func (l *learned) at(prefix netip.Prefix) bgp.Learned {
	out := bgp.Learned{Prefix: prefix}
	usable := slices.DeleteFunc(slices.Clone(l.paths[prefix]), func(p heardPath) bool {
		_, self := l.own[p.nextHop]
		// A link-local next hop is of use only with its link.
		return self || !p.nextHop.IsValid() || p.nextHop.IsLinkLocalUnicast() && p.nextHop.Zone() == ""
	})
	if slices.ContainsFunc(usable, func(p heardPath) bool { return !p.stale }) {
		usable = slices.DeleteFunc(usable, func(p heardPath) bool { return p.stale })
	}
	slices.SortFunc(usable, func(a, b heardPath) int { return a.nextHop.Compare(b.nextHop) })
	usable = slices.CompactFunc(usable, func(a, b heardPath) bool { return a.nextHop == b.nextHop })
	speeds := make([]float32, 0, len(usable))
	for _, p := range usable {
		out.NextHops = append(out.NextHops, p.nextHop)
		speeds = append(speeds, p.speed)
	}
	out.Weights = weights(speeds)
	return out
}

// weights are 1 to 255, in the proportion of speeds; nil where they are equal, or
// one is not known.
func weights(speeds []float32) []uint8 {
	if len(speeds) < 2 || !(slices.Min(speeds) > 0) || slices.Min(speeds) == slices.Max(speeds) || math.IsInf(float64(slices.Max(speeds)), 0) {
		return nil
	}
	const most = 255
	out := make([]uint8, 0, len(speeds))
	all := 0 // their greatest common divisor
	for _, s := range speeds {
		w := max(1, int(math.Round(float64(s)/float64(slices.Max(speeds))*most)))
		out = append(out, uint8(w))
		for a, b := all, w; ; a, b = b, a%b {
			if b == 0 {
				all = a
				break
			}
		}
	}
	for i := range out {
		out[i] /= uint8(all)
	}
	return out
}

func nextHop(attrs []packet.PathAttributeInterface) netip.Addr {
	for _, a := range attrs {
		switch a := a.(type) {
		case *packet.PathAttributeNextHop:
			return a.Value.Unmap()
		case *packet.PathAttributeMpReachNLRI:
			if !a.Nexthop.IsValid() || a.Nexthop.IsUnspecified() {
				return a.LinkLocalNexthop
			}
			return a.Nexthop.Unmap()
		}
	}
	return netip.Addr{}
}
