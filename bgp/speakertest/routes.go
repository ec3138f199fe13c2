package speakertest

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/koratnet/korat/bgp"
)

// idleAfterBreak is how long a broken session is not tried.
const idleAfterBreak = 200 * time.Millisecond

// Break implements reconcile.Speaker.
func (f *Fake) Break(_ context.Context, addr netip.Addr, why string) error {
	f.world.mu.Lock()
	defer f.world.mu.Unlock()
	s, now := f.sessions[addr], time.Now()
	if s == nil || f.closed {
		return nil
	}
	s.why, s.down, s.heard, s.until = why, now.Add(idleAfterBreak), nil, time.Time{}
	time.AfterFunc(idleAfterBreak, f.world.settle)
	f.world.settleLocked(now)
	return nil
}

// Routes implements reconcile.Speaker.
func (f *Fake) Routes(_ context.Context, which bgp.Routes) ([]bgp.Route, error) {
	f.world.mu.Lock()
	defer f.world.mu.Unlock()
	var out []bgp.Route
	add := func(r bgp.Route) {
		if which.Wants(r) {
			out = append(out, r)
		}
	}
	own := map[netip.Prefix]struct{}{}
	for p := range f.paths {
		if _, there := own[p.Prefix]; !there {
			own[p.Prefix] = struct{}{}
			add(bgp.Route{Prefix: p.Prefix, Best: true})
		}
	}
	best := f.best()
	for _, p := range f.cfg.Peers {
		s := f.sessions[p.Addr]
		for _, h := range s.heard {
			r := h.route(p)
			_, ok, why := f.accept(p, h)
			if !ok {
				r.Rejected = why
			}
			r.Best, r.Stale = ok && slices.Contains(best[r.Prefix].NextHops, h.nextHop), !s.up
			add(r)
		}
		if !s.up {
			continue
		}
		for _, h := range f.tells(p) {
			r := h.route(p)
			r.Told = true
			add(r)
		}
		for prefix, why := range f.keepsBack(p) {
			add(bgp.Route{Peer: p.Name, Told: true, Prefix: prefix, Rejected: why})
		}
	}
	slices.SortFunc(out, bgp.Route.Compare)
	return out, nil
}
