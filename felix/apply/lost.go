package apply

import (
	"errors"
	"fmt"
	"time"
)

// GiveUpAfter is how long nothing of the data plane in force can be applied
// before a Loop ends: what a new process may mend it should try. The node has not
// been ready for long then, and what is in the kernel stays closed.
const GiveUpAfter = 5 * time.Minute

// ErrNothingApplied says that the data plane failed as a whole for GiveUpAfter.
var ErrNothingApplied = errors.New("nothing of the data plane can be applied")

// lost returns an error when a reconciler of the plane in force that holds
// endpoints closed could do nothing at all for GiveUpAfter. One that fails for
// some endpoints, as when the kernel refuses a rule, does its work for others.
func (l *Loop) lost() error {
	for _, w := range l.switcher.of(l.switcher.lead) {
		if w.gated == nil {
			continue
		}
		why := w.pending()
		failed := why != nil && (w.unread || len(w.gated.Closed()) >= len(l.endpoints))
		switch {
		case !failed:
			w.useless = time.Time{}
		case w.useless.IsZero():
			w.useless = time.Now()
		case time.Since(w.useless) >= GiveUpAfter:
			return fmt.Errorf("%s, for %s: %w: %w", w.r.Name(), time.Since(w.useless).Round(time.Second), ErrNothingApplied, why)
		}
	}
	return nil
}
