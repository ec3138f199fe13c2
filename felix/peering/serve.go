package peering

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/felix/ask"
	"github.com/koratnet/korat/felix/desired"
)

// askWithin bounds one question to the speaker.
const askWithin = 30 * time.Second

// maxClients is how many may ask at the same time: a listing of all routes holds
// them in memory.
const maxClients = 4

// Speaker is what is asked about neighbours and routes: a reconcile.Speaker.
type Speaker interface {
	Sessions(context.Context) ([]bgp.Session, error)
	Routes(context.Context, bgp.Routes) ([]bgp.Route, error)
}

// Desk answers. Its methods may be called by any goroutine.
type Desk struct {
	node    string
	speaker Speaker

	mu     sync.Mutex // guards the rest
	closed []bgp.Session
	pools  []netip.Prefix
	routes map[netip.Prefix]*desired.Route
}

// NewDesk returns a Desk about the speaker of a node.
func NewDesk(node string, speaker Speaker) *Desk {
	return &Desk{node: node, speaker: speaker, routes: map[netip.Prefix]*desired.Route{}}
}

// Note takes in what the engine computed.
func (d *Desk) Note(delta desired.Delta) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if delta.Closed != nil {
		d.closed = *delta.Closed
	}
	if delta.Pools != nil {
		d.pools = *delta.Pools
	}
	for p, r := range delta.Routes {
		if r == nil {
			delete(d.routes, p)
		} else {
			d.routes[p] = r
		}
	}
}

// Serve answers on the socket in the run directory until ctx ends.
func (d *Desk) Serve(ctx context.Context, runDir string) error {
	if err := ask.Serve(ctx, SocketIn(runDir), maxClients, d.handler()); err != nil {
		return fmt.Errorf("socket of bgp: %w", err)
	}
	return nil
}

func (d *Desk) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{what}", func(w http.ResponseWriter, req *http.Request) {
		q, err := questionOf(req)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		ctx, cancel := context.WithTimeout(req.Context(), askWithin)
		defer cancel()
		lines, err := d.answer(ctx, q)
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", ask.ContentType)
		for out := json.NewEncoder(w); len(lines) > 0; lines = lines[1:] {
			if out.Encode(lines[0]) != nil {
				return // who asked has gone
			}
		}
	})
	return mux
}

func questionOf(req *http.Request) (Question, error) {
	q := Question{What: req.PathValue("what"), Peer: req.URL.Query().Get("peer")}
	if text := req.URL.Query().Get("prefix"); text != "" {
		var err error
		if q.Prefix, err = netip.ParsePrefix(text); err != nil {
			return q, fmt.Errorf("prefix is %q, expected one such as 10.244.0.0/16", text)
		}
		q.Prefix = q.Prefix.Masked()
	}
	switch {
	case q.What == Explain && !q.Prefix.IsValid():
		return q, errors.New("no prefix is named")
	case q.What != Peers && q.What != Routes && q.What != Explain:
		return q, fmt.Errorf("%q is asked, expected %s, %s or %s", q.What, Peers, Routes, Explain)
	}
	return q, nil
}

func (d *Desk) answer(ctx context.Context, q Question) (lines []Line, err error) {
	switch q.What {
	case Peers:
		sessions, err := d.speaker.Sessions(ctx)
		if err != nil {
			return nil, err
		}
		for _, s := range slices.Concat(sessions, d.shut()) {
			lines = append(lines, Line{Node: d.node, Session: sessionOf(s)})
		}
		return lines, nil
	case Explain:
		lines = d.entries(q.Prefix)
	}
	routes, err := d.speaker.Routes(ctx, bgp.Routes{Peer: q.Peer, Prefix: d.scope(q)})
	if err != nil {
		return nil, err
	}
	for _, r := range routes {
		if q.What == Routes || related(r.Prefix, q.Prefix) {
			lines = append(lines, Line{Node: d.node, Route: routeOf(r)})
		}
	}
	return lines, nil
}

func (d *Desk) shut() []bgp.Session {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.closed
}

// scope returns the prefix that the speaker is asked about. What contains a prefix
// is not inside of it: it is inside of the same pool, or anywhere.
func (d *Desk) scope(q Question) netip.Prefix {
	if q.What == Routes {
		return q.Prefix
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range d.pools {
		if p.Bits() <= q.Prefix.Bits() && p.Contains(q.Prefix.Addr()) {
			return p
		}
	}
	return netip.Prefix{}
}

// entries returns what the kernel is to do with a prefix, the widest first.
func (d *Desk) entries(about netip.Prefix) (lines []Line) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range slices.SortedFunc(maps.Keys(d.routes), netip.Prefix.Compare) {
		if related(p, about) {
			lines = append(lines, Line{Node: d.node, Entry: entryOf(d.routes[p])})
		}
	}
	return lines
}

// related reports whether one prefix contains the other.
func related(a, b netip.Prefix) bool { return a.Overlaps(b) }
