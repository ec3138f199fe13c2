package gobgp

import (
	"net/netip"
	"testing"
	"time"

	"github.com/koratnet/korat/bgp"
)

func TestFirstRound(t *testing.T) {
	a, b, c := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.3")
	start := time.Unix(1000, 0)
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	config := func(peers ...netip.Addr) bgp.Config {
		out := bgp.Config{ASN: 1, RestartTime: 120 * time.Second}
		for _, p := range peers {
			out.Peers = append(out.Peers, bgp.Peer{Addr: p})
		}
		return out
	}
	for name, tc := range map[string]struct {
		do    func(*waiting)
		open  int // seconds after the start when it is not over
		over  int // and when it is; 0 never
		again int // when to ask again, told at open; 0 never
	}{
		"nothing is known yet": {do: func(*waiting) {}, open: 1000},
		"no peers":             {do: func(w *waiting) { w.expect(config(), at(0)) }, open: -1, over: 1},
		"no BGP":               {do: func(w *waiting) { w.expect(bgp.Config{}, at(0)) }, open: -1, over: 1},
		"all silent":           {do: func(w *waiting) { w.expect(config(a, b), at(0)) }, open: 119, over: 120, again: 120},
		"one silent": {do: func(w *waiting) {
			w.expect(config(a, b), at(0))
			w.heard(a)
		}, open: 119, over: 120, again: 120},
		"all heard": {do: func(w *waiting) {
			w.expect(config(a, b), at(0))
			w.heard(a)
			w.heard(b)
		}, open: -1, over: 1},
		"the silent one is removed": {do: func(w *waiting) {
			w.expect(config(a, b), at(0))
			w.heard(a)
			w.expect(config(a), at(1))
		}, open: -1, over: 1},
		"a later one is not waited for": {do: func(w *waiting) {
			w.expect(config(a), at(0))
			w.expect(config(a, c), at(1))
			w.heard(a)
		}, open: -1, over: 1},
		"one never says that it is done": {do: func(w *waiting) {
			w.expect(config(a, b), at(0))
			w.heard(b)
			w.settleSoon(a, at(10))
		}, open: 14, over: 15, again: 15},
		"no graceful restart": {do: func(w *waiting) {
			w.expect(bgp.Config{ASN: 1, Peers: []bgp.Peer{{Addr: a}}}, at(0))
		}, open: 29, over: 30, again: 30},
	} {
		t.Run(name, func(t *testing.T) {
			var w waiting
			tc.do(&w)
			if tc.open >= 0 {
				over, next := w.over(at(tc.open))
				var again time.Time
				if tc.again > 0 {
					again = at(tc.again)
				}
				if over || !next.Equal(again) {
					t.Errorf("after %d s: over %t, next %s; want not over, next %s", tc.open, over, next, again)
				}
			}
			if tc.over > 0 {
				if over, _ := w.over(at(tc.over)); !over {
					t.Errorf("after %d s: not over", tc.over)
				}
			}
		})
	}
}
