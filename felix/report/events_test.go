package report

import (
	"fmt"
	"strings"
	"testing"

	koratv1 "github.com/koratnet/korat/api/v1"
)

func sessionsOf(text string) (out []koratv1.SessionStatus) {
	for _, f := range strings.Fields(text) {
		peer, state, _ := strings.Cut(f, "=")
		s := koratv1.SessionStatus{Peer: peer, Address: "10.0.0.1", State: koratv1.SessionState(state)}
		if s.State == koratv1.SessionIdle {
			s.LastError = "hold timer expired"
		}
		out = append(out, s)
	}
	return out
}

func TestWhatIsAnEventOfSessions(t *testing.T) {
	for name, c := range map[string]struct{ before, after, want string }{
		"what an agent finds at its start": {"", "", "down [] up []"},
		"a session that stays":             {"a=Established", "a=Established", "down [] up []"},
		"one that is lost":                 {"a=Established", "a=Idle", "down [a (10.0.0.1): hold timer expired] up []"},
		"one that comes back":              {"a=Idle", "a=Established", "down [] up [a (10.0.0.1)]"},
		"one that is new and not up":       {"", "a=Connect", "down [] up []"},
		"one that is new and up":           {"", "a=Established", "down [] up [a (10.0.0.1)]"},
		"one that nobody wants any more":   {"a=Established", "", "down [] up []"},
		"one that goes on not to come up":  {"a=Idle", "a=Active", "down [] up []"},
		"several":                          {"a=Established b=Idle c=Idle", "a=Active b=Established c=Idle", "down [a (10.0.0.1): not up yet] up [b (10.0.0.1)]"},
	} {
		t.Run(name, func(t *testing.T) {
			var r teller
			r.changes(sessionsOf(c.before))
			down, up := r.changes(sessionsOf(c.after))
			if got := fmt.Sprintf("down %v up %v", down, up); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
	var r teller
	if down, up := r.changes(sessionsOf("a=Established b=Idle")); down != nil || up != nil {
		t.Errorf("an agent that starts says %v, %v", down, up)
	}
}
