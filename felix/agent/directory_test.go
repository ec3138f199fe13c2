package agent

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/koratnet/korat/felix/annotation"
	"github.com/koratnet/korat/felix/cniserver"
	"github.com/koratnet/korat/felix/event"
)

func TestWhatIsKnownOfAPodAtItsADD(t *testing.T) {
	pools := map[string]string{annotation.IPv4Pools: "a"}
	one, two := event.ParseUID("3f9d3a5e-0d2b-4d0c-9b2f-5d3f2f1c7a10"), event.ParseUID("4f9d3a5e-0d2b-4d0c-9b2f-5d3f2f1c7a10")
	watched := &event.Pod{Namespace: "ns", Name: "p", Node: "n", UID: one, Annotations: pools}
	for name, c := range map[string]struct {
		uid    event.UID
		before *event.Pod // what the watch told
		after  time.Duration
		late   *event.Pod // what it tells after that
		answer map[string]string
		err    error // the API server's
		asked  bool
		want   string // of the pool annotation
		known  bool
		atMost time.Duration
	}{
		"the watch knows it":            {before: watched, want: "a", known: true},
		"the very pod":                  {uid: one, before: watched, want: "a", known: true},
		"an earlier pod of the name":    {uid: two, before: watched, answer: map[string]string{annotation.IPv4Pools: "b"}, asked: true, want: "b", known: true, atMost: lookupWait},
		"the watch is a little late":    {late: watched, after: 20 * time.Millisecond, want: "a", known: true, atMost: 20 * time.Millisecond},
		"the watch is later":            {answer: map[string]string{annotation.IPv4Pools: "b", "other/x": "y"}, asked: true, want: "b", known: true, atMost: lookupWait},
		"nobody knows it":               {err: errors.New("not found"), asked: true, atMost: lookupWait},
		"another node's does not count": {before: &event.Pod{Namespace: "ns", Name: "p", Node: "other", Annotations: pools}, err: errors.New("away"), asked: true, atMost: lookupWait},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				asked := false
				d := newDirectory(func(context.Context, string, string) (map[string]string, error) {
					asked = true
					return c.answer, c.err
				})
				d.setNamespace("ns", &event.Namespace{Name: "ns", Annotations: map[string]string{annotation.IPv6Pools: "six"}})
				d.setPod("ns/p", c.before, "n")
				if c.late != nil {
					time.AfterFunc(c.after, func() { d.setPod("ns/p", c.late, "n") })
				}
				start := time.Now()
				l := d.Lookup(t.Context(), "ns", "p", c.uid)
				if took := time.Since(start); took > c.atMost {
					t.Errorf("it took %s, want at most %s", took, c.atMost)
				}
				if l.PodKnown != c.known || l.Pod[annotation.IPv4Pools] != c.want || len(l.Pod) > 1 || asked != c.asked {
					t.Errorf("got %+v (asked: %t)", l, asked)
				}
				if !l.NamespaceKnown || l.Namespace[annotation.IPv6Pools] != "six" {
					t.Errorf("namespace: %+v", l)
				}
			})
		})
	}
}

var _ cniserver.Directory = (*directory)(nil)
