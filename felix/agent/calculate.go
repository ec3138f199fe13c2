package agent

import (
	"context"
	"time"

	"github.com/koratnet/korat/felix/calc"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/felix/event/mailbox"
)

// flushAfter bounds how long a stream of events may delay the first of them.
const flushAfter = 50 * time.Millisecond

// calculate is the engine's goroutine: it takes events out of the mailbox, and
// hands what they change to each consumer when the mailbox is empty or
// flushAfter has passed. Consumers merge what they are given and never wait.
func calculate(ctx context.Context, node string, box *mailbox.Mailbox, consumers ...func(desired.Delta)) error {
	engine := calc.New(calc.Config{Node: node})
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-box.Ready():
		}
		for deadline := time.Now().Add(flushAfter); ; {
			events, synced := box.Take()
			for _, ev := range events {
				engine.Put(ev)
			}
			for _, s := range []event.Source{event.API, event.CNI, event.Neighbours} {
				if synced&s != 0 {
					engine.Synced(s)
				}
			}
			if len(events) == 0 || time.Now().After(deadline) {
				break
			}
		}
		if d := engine.Flush(); !d.Empty() {
			for _, want := range consumers {
				want(d)
			}
		}
	}
}
