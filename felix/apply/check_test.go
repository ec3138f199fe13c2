package apply_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/koratnet/korat/felix/apply"
)

// watched is a plain whose objects others change.
type watched struct {
	*plain
	changed atomic.Bool
	blind   atomic.Value // failure of Check
}

func (w *watched) CheckEvery() time.Duration { return 5 * time.Second }

func (w *watched) Check(context.Context) (bool, error) {
	w.journal.add("%s:check", w.name)
	return w.changed.Swap(false), load(&w.blind)
}

func TestWhatOthersChangedIsMendedAfterTheNextCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		a := &watched{plain: newPlain("a", j)}
		l := run(t, j, apply.Phase{a})
		l.Want(endpoint("kor1", 1))
		l.expect("a:resync a:apply")
		time.Sleep(6 * time.Second) // 5 s and a tenth
		l.expect("a:check")
		a.changed.Store(true)
		time.Sleep(6 * time.Second)
		l.expect("a:check a:apply")
		a.blind.Store(failure{errors.New("cannot look")})
		time.Sleep(6 * time.Second)
		l.expect("a:check a:resync a:apply")
	})
}
