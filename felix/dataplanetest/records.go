package dataplanetest

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/felix/kernel/nflog"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/eval"
)

// records are the denials that the kernel tells of, beside those that it should.
type records struct {
	t      testing.TB
	socket *nflog.Socket
	ended  sync.WaitGroup

	mu   sync.Mutex // guards told, which a goroutine fills
	told map[denied][]string

	wanted map[denied]wantedRecord
}

// denied is a packet in a record: no other has this port.
type denied struct {
	src      netip.Addr
	protocol policy.Protocol
	srcPort  uint16
}

type wantedRecord struct {
	tag  string // "": none
	text string
}

func newRecords(t testing.TB, node *kerneltest.Namespace) *records {
	t.Helper()
	r := &records{t: t, told: map[denied][]string{}, wanted: map[denied]wantedRecord{}}
	var err error
	node.Do(func() { r.socket, err = nflog.Open(desired.DropGroup) })
	if err != nil {
		t.Fatal(err)
	}
	r.ended.Go(r.read)
	t.Cleanup(func() {
		r.socket.Close()
		r.ended.Wait()
	})
	return r
}

func (r *records) read() {
	for {
		_, err := r.socket.Read(func(p nflog.Packet) {
			r.mu.Lock()
			defer r.mu.Unlock()
			key := denied{p.Src, p.Protocol, p.SrcPort}
			r.told[key] = append(r.told[key], p.Prefix)
		})
		if err != nil {
			if !errors.Is(err, os.ErrClosed) {
				r.t.Errorf("read the records of denials: %v", err)
			}
			return
		}
	}
}

// want notes what should be told of a packet, if it can be found again: later
// packets of its connection would be taken for it.
func (r *records) want(s shot, c eval.Crossing, enabled bool, seed uint64) {
	key := denied{s.Src, s.Protocol, s.SrcPort}
	if s.State != eval.New {
		delete(r.wanted, key)
		return
	}
	last := eval.Step{}
	if n := len(c.Steps); n > 0 {
		last = c.Steps[n-1]
	}
	if !s.Protocol.HasPorts() || last.Decision.Cause == eval.ByMissing {
		return
	}
	w := wantedRecord{text: fmt.Sprintf("-seed=%d: %s: %s", seed, s, c)}
	if c.Action == policy.Deny && enabled {
		w.tag = reasonOf(last).Tag()
	}
	r.wanted[key] = w
}

// compare waits for the records of what was wanted, looks at them and forgets them.
func (r *records) compare() {
	r.t.Helper()
	// Some may be missing: which, is told below.
	for deadline := time.Now().Add(30 * time.Second); !r.complete() && time.Now().Before(deadline); {
		<-time.After(5 * time.Millisecond)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, w := range r.wanted {
		told := r.told[key]
		if w.tag == "" && len(told) > 0 || w.tag != "" && (len(told) != 1 || told[0] != w.tag) {
			r.t.Errorf("%s\nrecorded as %q, want %q", w.text, told, w.tag)
		}
	}
	clear(r.told)
	clear(r.wanted)
}

// complete reports whether everything that is wanted has been told.
func (r *records) complete() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, w := range r.wanted {
		if w.tag != "" && len(r.told[key]) == 0 {
			return false
		}
	}
	return true
}

var causes = map[eval.Cause]desired.Cause{
	eval.ByRule: desired.ByRule, eval.ByTierEnd: desired.EndOfTier, eval.ByDefault: desired.NoMatch, eval.ByState: desired.Invalid,
	eval.ByUnknown: desired.Unknown, eval.ByForgery: desired.Forged, eval.ByTunnel: desired.Tunnel, eval.ByPodToHost: desired.ToHost,
	eval.ByLoop: desired.Loop, eval.ByRouter: desired.Router,
}

// reasonOf says what policy/eval says in the words of a record.
func reasonOf(s eval.Step) desired.Reason {
	r := desired.Reason{Cause: causes[s.Decision.Cause], Direction: s.Direction}
	switch s.Decision.Cause {
	case eval.ByRule:
		r.Policy, r.Rule = s.Decision.Program.Policy, s.Decision.Origin
	case eval.ByTierEnd:
		r.Tier = s.Decision.Tier
	}
	return r
}
