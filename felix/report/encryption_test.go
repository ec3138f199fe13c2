package report

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	koratv1 "github.com/koratnet/korat/api/v1"
)

func TestWhatIsNotEncryptedIsTold(t *testing.T) {
	for name, c := range map[string]struct {
		e    Encryption
		want string
	}{
		"all": {Encryption{}, "True AllEncrypted "},
		"one": {Encryption{Closed: []string{"b"}}, "False PeersWithoutKey no packets to pods of nodes that encrypt nothing: b"},
		"hosts": {
			Encryption{Exposed: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")}},
			"True AllEncrypted the node itself sends in clear to 2 of the nodes' addresses, such as 192.0.2.1: no handshake",
		},
		"some": {Encryption{Closed: []string{"a"}, Clear: []string{"b", "c"}}, "False PeersWithoutKey no packets to pods of nodes that encrypt nothing: a; packets in clear to pods of nodes that encrypt nothing: b; c"},
		"here": {Encryption{Broken: []string{"wg4-korat: no"}}, "False CannotEncrypt does not work here: wg4-korat: no"},
		"here and elsewhere": {
			Encryption{Broken: []string{"wg4-korat: no", "wg6-korat: no"}, Clear: []string{"b"}},
			"False CannotEncrypt does not work here: wg4-korat: no; wg6-korat: no; packets in clear to pods of nodes that encrypt nothing: b",
		},
	} {
		t.Run(name, func(t *testing.T) {
			var s koratv1.NodeNetworkStatus
			fill(&s, Facts{Encryption: &c.e}, metav1.Unix(200, 0))
			k := meta.FindStatusCondition(s.Conditions, koratv1.ConditionEncrypted)
			if got := string(k.Status) + " " + k.Reason + " " + k.Message; got != c.want {
				t.Errorf("condition is %q, want %q", got, c.want)
			}
			fill(&s, Facts{}, metav1.Unix(300, 0))
			if k := meta.FindStatusCondition(s.Conditions, koratv1.ConditionEncrypted); k != nil {
				t.Errorf("nothing asks for encryption any more: %+v", k)
			}
		})
	}
}

// TestAKeyStaysAnnouncedUntilMoreIsKnown: an agent that begins does not take back what
// its predecessor announced, or other nodes would send nothing until it has looked.
func TestAKeyStaysAnnouncedUntilMoreIsKnown(t *testing.T) {
	ends := []koratv1.WireGuardStatus{{Interface: "wg4-korat", PublicKey: "k", Port: 51820}}
	s := koratv1.NodeNetworkStatus{WireGuard: ends}
	fill(&s, Facts{}, metav1.Unix(200, 0))
	if diff := cmp.Diff(ends, s.WireGuard); diff != "" {
		t.Error(diff)
	}
	fill(&s, Facts{WireGuard: []koratv1.WireGuardStatus{}}, metav1.Unix(200, 0))
	if len(s.WireGuard) != 0 {
		t.Errorf("still announced: %v", s.WireGuard)
	}
}

func TestEventsOfEncryptionAreOfWhatTurned(t *testing.T) {
	var teller teller
	said := func(status metav1.ConditionStatus) []metav1.Condition {
		return []metav1.Condition{{Type: koratv1.ConditionEncrypted, Status: status}}
	}
	for i, step := range []struct {
		conditions []metav1.Condition
		tells      bool
	}{
		{nil, false},
		{said(metav1.ConditionTrue), false}, // that all is well nobody needs to hear first
		{said(metav1.ConditionFalse), true},
		{said(metav1.ConditionFalse), false},
		{said(metav1.ConditionTrue), true},
		{nil, false},
		{said(metav1.ConditionFalse), true},
	} {
		if got := teller.turned(step.conditions); (got != nil) != step.tells {
			t.Errorf("step %d: told %v", i, got)
		}
	}
}
