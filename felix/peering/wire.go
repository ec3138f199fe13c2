// Package peering answers questions about BGP on a node: who its neighbours are,
// what they say and are told, and what became of a prefix. The agent serves it on a
// socket in its run directory; koratctl asks there, or has agents ask for it.
//
// The answer is objects in JSON, one a line. Fields may be added later, none is
// renamed.
package peering

import (
	"context"
	"io"
	"net/netip"
	"net/url"
	"path/filepath"
	"time"

	"github.com/koratnet/korat/felix/ask"
)

// Socket is the name of the socket in the agent's run directory. It is for root
// alone.
const Socket = "bgp.sock"

// What can be asked.
const (
	Peers   = "peers"
	Routes  = "routes"
	Explain = "explain"
)

// Question is what somebody wants to know.
type Question struct {
	What string // Peers, Routes or Explain
	Peer string // of Routes: of this one alone, such as "bgppeer/tor-a"; empty: of all
	// Prefix: of Routes, those inside of it, invalid: all. Of Explain, those that
	// contain it or lie in it.
	Prefix netip.Prefix
}

// Line is one line of the answer: one field beside Node is set.
type Line struct {
	Node    string   `json:"node"`
	Session *Session `json:"session,omitempty"`
	Route   *Route   `json:"route,omitempty"`
	Entry   *Entry   `json:"entry,omitempty"`
}

// Session is a session that is wanted.
type Session struct {
	Peer       string     `json:"peer"` // bgppeer/NAME or nodenetwork/NAME
	Address    string     `json:"address,omitempty"`
	AS         uint32     `json:"as,omitempty"`
	State      string     `json:"state"`
	Since      *time.Time `json:"since,omitempty"`
	Received   int        `json:"received"`
	Accepted   int        `json:"accepted"`
	Advertised int        `json:"advertised"`
	BFD        string     `json:"bfd,omitempty"`
	Error      string     `json:"error,omitempty"` // why it last went down, or cannot be
}

// Route is a route as a neighbour says it or is told it.
type Route struct {
	Peer            string   `json:"peer,omitempty"` // empty: this node originates it
	Told            bool     `json:"told,omitempty"` // to the peer; else the peer says it
	Prefix          string   `json:"prefix"`
	NextHop         string   `json:"nextHop,omitempty"`
	ASPath          []uint32 `json:"asPath,omitempty"`
	Communities     []string `json:"communities,omitempty"`
	LocalPreference *uint32  `json:"localPreference,omitempty"`
	MED             *uint32  `json:"med,omitempty"`
	Best            bool     `json:"best,omitempty"`  // BGP chose it
	Stale           bool     `json:"stale,omitempty"` // kept over a restart of the peer
	Rejected        string   `json:"rejected,omitempty"`
}

// Entry is what the kernel is to do with packets for a prefix.
type Entry struct {
	Prefix    string   `json:"prefix"`
	Kind      string   `json:"kind"` // local, unreachable, via, tunnel
	NextHops  []string `json:"nextHops,omitempty"`
	Interface string   `json:"interface,omitempty"`
}

// SocketIn returns the socket in a run directory.
func SocketIn(runDir string) string { return filepath.Join(runDir, Socket) }

// Open asks the agent behind a socket. The caller closes the answer.
func Open(ctx context.Context, socket string, q Question) (io.ReadCloser, error) {
	params := url.Values{}
	if q.Peer != "" {
		params.Set("peer", q.Peer)
	}
	if q.Prefix.IsValid() {
		params.Set("prefix", q.Prefix.String())
	}
	return ask.Open(ctx, socket, "/"+url.PathEscape(q.What), params)
}
