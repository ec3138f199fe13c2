package report

import (
	"net/netip"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/felix/pathmtu"
)

func found(o pathmtu.Outcome, passes int, nodes ...string) (out []pathmtu.Finding) {
	for i, n := range nodes {
		out = append(out, pathmtu.Finding{
			Peer: pathmtu.Peer{Node: n, Addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), MTU: 1500}, Outcome: o, Passes: passes,
		})
	}
	return out
}

func TestWhatIsSaidOfTheMTUOfPaths(t *testing.T) {
	for what, c := range map[string]struct {
		mtu      int
		overhead int
		summary  pathmtu.Summary
		status   metav1.ConditionStatus
		reason   string
		says     string
	}{
		"all is well":         {1500, 0, pathmtu.Summary{Peers: 2, Clear: 2}, metav1.ConditionTrue, koratv1.ReasonFullSize, "every node that was tried"},
		"some answer nothing": {1500, 0, pathmtu.Summary{Peers: 2, Clear: 1, Unanswered: 1}, metav1.ConditionTrue, koratv1.ReasonFullSize, "that answers"},
		"none answers":        {1500, 0, pathmtu.Summary{Peers: 2, Unanswered: 2}, metav1.ConditionUnknown, koratv1.ReasonNotTried, "no other node has answered"},
		"a node alone":        {1500, 0, pathmtu.Summary{}, metav1.ConditionUnknown, koratv1.ReasonNotTried, "no other node has answered"},
		"a black hole": {
			1450, 50,
			pathmtu.Summary{Peers: 1, Findings: found(pathmtu.BlackHole, 1400, "b1")},
			metav1.ConditionFalse, koratv1.ReasonBlackHole,
			"packets larger than 1400 bytes do not reach b1 and vanish, and those of pods have up to 1500: mend the network between the nodes, or set mtu in a NodeConfiguration to 1350",
		},
		"black holes to many nodes": {
			1450, 50,
			pathmtu.Summary{Peers: 9, Findings: found(pathmtu.BlackHole, 1400, "a", "b", "b", "c", "d", "e", "f", "g")},
			metav1.ConditionFalse, koratv1.ReasonBlackHole, "do not reach a, b, c, d, e and 2 more and vanish",
		},
		"a black hole that pods do not fall into": {
			1350, 50,
			pathmtu.Summary{Peers: 1, Findings: found(pathmtu.BlackHole, 1400, "b1")},
			metav1.ConditionTrue, koratv1.ReasonPodsFit, "do not reach b1; those of pods have 1350 at most, with encapsulation 1400",
		},
		"a router that says so": {
			1500, 0,
			pathmtu.Summary{Peers: 1, Findings: found(pathmtu.Narrow, 1400, "b1")},
			metav1.ConditionFalse, koratv1.ReasonNarrow, "as a router says",
		},
		"one that says so and a wider black hole": {
			1350, 50,
			pathmtu.Summary{Peers: 2, Findings: append(found(pathmtu.Narrow, 1380, "b1"), found(pathmtu.BlackHole, 1450, "b2")...)},
			metav1.ConditionFalse, koratv1.ReasonNarrow, "larger than 1380 bytes",
		},
		"a black hole of tunnels alone": {
			1450, 50,
			pathmtu.Summary{Peers: 2, Clear: 1, Findings: []pathmtu.Finding{{Peer: pathmtu.Peer{Node: "b1", Tunnel: "ipip-korat"}, Outcome: pathmtu.BlackHole, Passes: 1400}}},
			metav1.ConditionFalse, koratv1.ReasonBlackHole,
			"packets larger than 1400 bytes do not reach b1 through ipip-korat and vanish, and those of pods have up to 1450: mend the network between the nodes, or set mtu in a NodeConfiguration to 1400",
		},
	} {
		t.Run(what, func(t *testing.T) {
			got := pathCondition(Facts{MTU: c.mtu, Overhead: c.overhead, PathMTU: c.summary}, metav1.Now())
			if got.Status != c.status || got.Reason != c.reason || !strings.Contains(got.Message, c.says) {
				t.Errorf("%s, %s: %s\nwant %s, %s: %s", got.Status, got.Reason, got.Message, c.status, c.reason, c.says)
			}
		})
	}
}

func TestEventsOfPathMTU(t *testing.T) {
	is := func(s metav1.ConditionStatus, message string) *metav1.Condition {
		return &metav1.Condition{Type: koratv1.ConditionPathMTU, Status: s, Message: message}
	}
	bad, good, unknown := is(metav1.ConditionFalse, "bad"), is(metav1.ConditionTrue, "good"), is(metav1.ConditionUnknown, "unknown")
	for _, c := range []struct {
		was, is         *metav1.Condition
		reason, message string
	}{
		{nil, bad, ReasonPathMTUTooSmall, "bad"},
		{good, bad, ReasonPathMTUTooSmall, "bad"},
		{bad, is(metav1.ConditionFalse, "still bad"), "", ""},
		{bad, good, ReasonPathMTUGood, "good"},
		{bad, unknown, "", ""},
		{unknown, good, "", ""},
		{nil, good, "", ""},
	} {
		if _, reason, message := pathEvent(c.was, c.is); reason != c.reason || message != c.message {
			t.Errorf("from %+v to %+v: %s %q, want %s %q", c.was, c.is, reason, message, c.reason, c.message)
		}
	}
}
