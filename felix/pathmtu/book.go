package pathmtu

import (
	"cmp"
	"maps"
	"slices"
)

// Finding is a peer that packets of the full size do not reach.
type Finding struct {
	Peer
	Outcome Outcome // BlackHole or Narrow
	Passes  int     // the size of the largest packet that does
}

// Summary is what is known of all peers.
type Summary struct {
	Peers      int
	Clear      int       // that packets of the full size reach
	Unanswered int       // that were tried and cannot be judged
	Findings   []Finding // in the order of nodes, addresses and tunnels
	Offloads   []Offload // by tunnel, of those of which something is known
}

// result is what the trials of a peer came to.
type result struct {
	peer    Peer
	outcome Outcome
	passes  int
	twice   bool // a second trial in a row found the same kind of trouble
}

// book has the results of all peers, and says whose turn it is.
type book struct {
	ring    []way // whose turn is next is first
	suspect []way // peers in trouble, likewise: they are tried more often
	peers   map[way]Peer
	results map[way]result
	left    map[way]remains // of the peers behind tunnels
	hauls   map[way]hauls   // likewise
}

func newBook() *book {
	return &book{peers: map[way]Peer{}, results: map[way]result{}, left: map[way]remains{}, hauls: map[way]hauls{}}
}

// follow takes in who the peers are now. One that is new, or is reached through a link
// of another size, is tried before those that were.
func (b *book) follow(peers []Peer) {
	now := make(map[way]Peer, len(peers))
	var fresh []way
	for _, p := range peers {
		now[p.way()] = p
		if b.peers[p.way()] != p {
			fresh = append(fresh, p.way())
			delete(b.results, p.way())
			delete(b.left, p.way())
			delete(b.hauls, p.way())
		}
	}
	old := func(w way) bool { return now[w] != b.peers[w] }
	b.ring = append(fresh, slices.DeleteFunc(b.ring, old)...)
	b.suspect = slices.DeleteFunc(b.suspect, old)
	maps.DeleteFunc(b.results, func(w way, _ result) bool { _, still := now[w]; return !still })
	maps.DeleteFunc(b.left, func(w way, _ remains) bool { _, still := now[w]; return !still })
	maps.DeleteFunc(b.hauls, func(w way, _ hauls) bool { _, still := now[w]; return !still })
	b.peers = now
}

// next returns the peers to try now, at most most of them, and as many suspects as
// others. Their turn comes again when all others had theirs.
func (b *book) next(most int) []Peer {
	var out []Peer
	take := func(from *[]way, n int) {
		n = min(n, len(*from))
		for _, w := range (*from)[:n] {
			if p := b.peers[w]; !slices.Contains(out, p) {
				out = append(out, p)
			}
		}
		*from = slices.Concat((*from)[n:], (*from)[:n])
	}
	take(&b.suspect, most/2)
	take(&b.ring, most-len(out))
	return out
}

// note writes down what a trial of a peer came to, if it still is one. A peer that does
// not answer any more keeps what was found.
func (b *book) note(p Peer, o Outcome, passes int) {
	was := b.results[p.way()]
	if b.peers[p.way()] != p || o == Unanswered && was.outcome != Unanswered {
		return
	}
	trouble := o == BlackHole || o == Narrow
	b.results[p.way()] = result{peer: p, outcome: o, passes: passes, twice: trouble && was.outcome == o}
	b.suspect = slices.DeleteFunc(b.suspect, func(w way) bool { return w == p.way() })
	if trouble {
		b.suspect = append(b.suspect, p.way())
	}
}

// summary says what is known. Trouble counts when it was found twice: once may be a
// moment in which much is lost.
func (b *book) summary() Summary {
	s := Summary{Peers: len(b.peers), Offloads: b.offloads()}
	for _, r := range b.results {
		switch {
		case r.outcome == Clear:
			s.Clear++
		case r.outcome == Unanswered:
			s.Unanswered++
		case r.twice:
			s.Findings = append(s.Findings, Finding{Peer: r.peer, Outcome: r.outcome, Passes: r.passes})
		}
	}
	slices.SortFunc(s.Findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), a.Addr.Compare(b.Addr), cmp.Compare(a.Tunnel, b.Tunnel))
	})
	return s
}
