package agent

import (
	"errors"
	"log/slog"

	"github.com/koratnet/korat/felix/apply"
	"github.com/koratnet/korat/felix/backend"
	"github.com/koratnet/korat/felix/kernel/conntrack"
)

// connections are the reconcilers of the kernel's table of connections.
type connections struct {
	flusher   *conntrack.Flusher
	rechecker *conntrack.Rechecker
}

func newConnections(log *slog.Logger) (*connections, error) {
	flusher, err := conntrack.NewFlusher()
	if err != nil {
		return nil, err
	}
	rechecker, err := conntrack.NewRechecker(log)
	if err != nil {
		return nil, errors.Join(err, flusher.Close())
	}
	return &connections{flusher, rechecker}, nil
}

// enter puts them where they belong: an address changes hands before its route
// does, and connections are judged when all rules are in force.
func (c *connections) enter(phases []apply.Phase) {
	phases[backend.Connections] = append(phases[backend.Connections], c.flusher)
	phases[backend.Removed] = append(phases[backend.Removed], c.rechecker)
}

func (c *connections) close() {
	c.flusher.Close()
	c.rechecker.Close()
}
