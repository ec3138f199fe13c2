package pathmtu

import (
	"net/netip"
	"testing"
)

// path is a way that packets up to a size pass.
type path struct {
	passes   int
	tells    bool // a router says what it does not forward
	silent   bool // nothing is answered at all
	loses    int  // every so manieth pair is lost whole
	sent     int
	withheld int // large answers that are lost at first, though they would pass
}

func (p *path) send(size int) answer {
	p.sent++
	if p.silent || p.loses > 0 && p.sent%p.loses == 0 {
		return answer{}
	}
	switch {
	case size <= p.passes && p.withheld > 0:
		p.withheld--
		return answer{small: true}
	case size <= p.passes:
		return answer{small: true, large: true}
	case p.tells:
		return answer{small: true, told: p.passes}
	}
	return answer{small: true}
}

func TestATrialFindsTheLargestPacketThatPasses(t *testing.T) {
	for what, c := range map[string]struct {
		path    path
		outcome Outcome
		passes  int
		most    int // packets at most, of either size
	}{
		"everything passes":                         {path{passes: 9000}, Clear, 1500, 1},
		"a few large ones are lost by chance":       {path{passes: 9000, withheld: attempts - 1}, Clear, 1500, attempts},
		"larger ones vanish":                        {path{passes: 1400}, BlackHole, 1400, 40},
		"larger ones vanish, and every fourth":      {path{passes: 1400, loses: 4}, BlackHole, 1400, 60},
		"one byte is too many":                      {path{passes: 1499}, BlackHole, 1499, 40},
		"a router says so":                          {path{passes: 1400, tells: true}, Narrow, 1400, 1},
		"nobody answers":                            {path{silent: true}, Unanswered, 0, patience},
		"the smallest that the family knows passes": {path{passes: 68}, BlackHole, 68, 40},
	} {
		t.Run(what, func(t *testing.T) {
			tr := newTrial(44, 1500)
			for !tr.over && c.path.sent <= c.most {
				tr.hear(c.path.send(tr.size))
			}
			if !tr.over || tr.outcome != c.outcome || c.outcome != Unanswered && tr.passes != c.passes {
				t.Errorf("after %d pairs: over %v, outcome %d, %d bytes pass; want %d, %d within %d", c.path.sent, tr.over, tr.outcome, tr.passes, c.outcome, c.passes, c.most)
			}
		})
	}
}

func peer(n int) Peer {
	return Peer{Node: string(rune('a' + n)), Addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(n)}), MTU: 1500}
}

func peers(n int) (out []Peer) {
	for i := range n {
		out = append(out, peer(i))
	}
	return out
}

func TestEveryPeerHasItsTurnAndNewOnesFirst(t *testing.T) {
	b := newBook()
	b.follow(peers(10))
	tried := map[Peer]int{}
	for range 5 {
		next := b.next(4)
		if len(next) != 4 {
			t.Fatalf("%d peers at once, want 4", len(next))
		}
		for _, p := range next {
			tried[p]++
			b.note(p, Clear, p.MTU)
		}
	}
	for _, p := range peers(10) {
		if tried[p] != 2 {
			t.Errorf("%s was tried %d times of 20, want 2", p.Node, tried[p])
		}
	}
	b.follow(peers(11))
	if next := b.next(1); next[0] != peer(10) {
		t.Errorf("%s is tried before the new one", next[0].Node)
	}
	moved := peers(11)
	moved[3].MTU = 9000
	b.follow(moved)
	if next := b.next(1); next[0] != moved[3] {
		t.Errorf("%s is tried before the one whose link has another MTU", next[0].Node)
	}
	if s := b.summary(); s.Peers != 11 || s.Clear != 9 {
		t.Errorf("%+v, want 11 peers of which 9 were found clear", s)
	}
	b.follow(peers(1))
	if next, s := b.next(4), b.summary(); len(next) != 1 || s.Peers != 1 || s.Clear != 1 {
		t.Errorf("next %v, %+v, want the one peer that is left", next, s)
	}
}

func TestTroubleCountsWhenItIsFoundTwiceAndIsTriedMoreOften(t *testing.T) {
	b := newBook()
	b.follow(peers(100))
	bad := peer(7)
	b.note(bad, BlackHole, 1400)
	if s := b.summary(); len(s.Findings) != 0 {
		t.Errorf("found once, it counts already: %+v", s)
	}
	for range 3 {
		found := false
		for _, p := range b.next(4) {
			found = found || p == bad
		}
		if !found {
			t.Error("a suspect waits for its turn among the others")
		}
	}
	b.note(bad, BlackHole, 1400)
	b.note(bad, Unanswered, 0)
	want := Finding{Peer: bad, Outcome: BlackHole, Passes: 1400}
	if s := b.summary(); len(s.Findings) != 1 || s.Findings[0] != want {
		t.Errorf("findings %+v, want %+v", s.Findings, want)
	}
	b.note(bad, Clear, 1500)
	if s := b.summary(); len(s.Findings) != 0 || s.Clear != 1 {
		t.Errorf("mended, and still %+v", s)
	}
	b.note(peer(200), BlackHole, 1400)
	if s := b.summary(); s.Peers != 100 || len(b.results) != 1 {
		t.Errorf("who is no peer any more is in the book: %+v", b.results)
	}
}
