package controller

import (
	"context"
	"time"
)

// every calls look once a period until ctx ends, and tells of its errors.
func every(ctx context.Context, period time.Duration, look func(context.Context, time.Time) error, tell func(error)) error {
	tick := time.NewTicker(period)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		if err := look(ctx, time.Now()); err != nil && ctx.Err() == nil {
			tell(err)
		}
	}
}
