package pathmtu

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

const (
	// every is how often some peers are tried, and atOnce how many of them.
	every  = 10 * time.Second
	atOnce = 4
	// wait is how long answers are waited for.
	wait = time.Second
)

// Prober tries the ways to other nodes, over and over.
type Prober struct {
	peers func() []Peer
	tell  func(Offload)
	wire  *wire

	mu   sync.Mutex // guards book
	book *book
}

// New returns a Prober that sends from the network namespace of the calling thread;
// it needs CAP_NET_RAW. Before each round it asks peers who the other nodes are, and
// after it tells of each tunnel of which something is known.
func New(peers func() []Peer, tell func(Offload)) (*Prober, error) {
	w, err := open()
	if err != nil {
		return nil, fmt.Errorf("path MTU: %w", err)
	}
	return &Prober{peers: peers, tell: tell, wire: w, book: newBook()}, nil
}

// Run tries until ctx ends. It runs once, and closes the sockets.
func (p *Prober) Run(ctx context.Context) error {
	var hearing sync.WaitGroup
	for is6 := range p.wire.conns {
		hearing.Go(func() { p.wire.listen(is6) })
	}
	defer hearing.Wait()
	defer p.wire.close()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
			p.round(ctx, wait)
			for _, o := range p.Summary().Offloads {
				p.tell(o)
			}
		}
	}
}

// Summary returns what is known. It is safe for concurrent use.
func (p *Prober) Summary() Summary {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.book.summary()
}

// round tries the peers whose turn it is, side by side.
func (p *Prober) round(ctx context.Context, wait time.Duration) {
	p.mu.Lock()
	p.book.follow(p.peers())
	peers := p.book.next(atOnce)
	p.mu.Unlock()
	trials := make([]*trial, len(peers))
	for i, peer := range peers {
		trials[i] = newTrial(families[peer.Addr.Is6()].small(), peer.MTU)
	}
	for ctx.Err() == nil {
		var open []int
		var pairs []pair
		for i, t := range trials {
			if !t.over {
				open, pairs = append(open, i), append(pairs, pair{peers[i], t.size})
			}
		}
		if len(open) == 0 {
			break
		}
		for i, a := range p.wire.volley(ctx, pairs, wait) {
			trials[open[i]].hear(a)
		}
	}
	behind := slices.DeleteFunc(slices.Clone(peers), func(peer Peer) bool { return !peer.Offloads })
	var left []left
	if len(behind) > 0 {
		left = p.wire.unfinished(ctx, behind, wait)
	}
	p.mu.Lock()
	for i, t := range trials {
		if t.over {
			p.book.note(peers[i], t.outcome, t.passes)
		}
	}
	for i, l := range left {
		p.book.noteLeft(behind[i], l)
	}
	now := time.Now()
	to, due := p.book.trainTo(behind, now)
	p.mu.Unlock()
	if !due {
		return
	}
	trains, _ := haul(ctx, to, wait) // what cannot be sent says nothing of devices
	p.mu.Lock()
	defer p.mu.Unlock()
	p.book.noteTrains(to, trains, now)
}
