package lab

import (
	"context"
	"fmt"
	"time"

	"github.com/koratnet/korat/e2e/lab/router"
	"github.com/koratnet/korat/e2e/lab/topology"
)

// Eventually calls check until it returns nil or ctx ends; then the error is
// check's last, since that says what was still missing. Between checks it rests as
// long as one took: on a slow machine they are not to be its main work.
func Eventually(ctx context.Context, check func(context.Context) error) error {
	for {
		begun := time.Now()
		err := check(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-time.After(max(100*time.Millisecond, min(time.Since(begun), 2*time.Second))):
		}
	}
}

// WaitSpine waits until every session between routers is established.
func (l *Lab) WaitSpine(ctx context.Context) error {
	return l.waitSessions(ctx, func(r topology.Router) []topology.Session { return r.Spine })
}

// WaitToRs waits until every session between a router and a node is established.
func (l *Lab) WaitToRs(ctx context.Context) error {
	return l.waitSessions(ctx, func(r topology.Router) []topology.Session { return r.Nodes })
}

func (l *Lab) waitSessions(ctx context.Context, of func(topology.Router) []topology.Session) error {
	for _, r := range l.Topology.Routers() {
		err := Eventually(ctx, func(ctx context.Context) error {
			states, err := router.Sessions(ctx, l.machines[r.Name], r)
			if err != nil {
				return err
			}
			for _, s := range of(r) {
				if states[s.Name] != router.Established {
					return fmt.Errorf("router %s: session %s is %s", r.Name, s.Name, states[s.Name])
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
