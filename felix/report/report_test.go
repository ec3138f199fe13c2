package report

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/bgp"
)

func facts() Facts {
	return Facts{
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.1.0.11/24")}, ASN: 65001, Backend: "iptables", Version: "v1",
		Endpoints: 3, Blocks: 1, Sessions: []bgp.Session{
			{Peer: "bgppeer/tor", Addr: netip.MustParseAddr("10.1.0.1"), ASN: 65101, Established: true, State: "Established", Since: time.Unix(100, 5)},
			{Peer: "nodenetwork/b", Addr: netip.MustParseAddr("10.1.0.12"), ASN: 65001, State: "Active", LastError: "connection refused"},
		},
	}
}

func TestALostSessionIsNamedAndLeavesTheNodeReady(t *testing.T) {
	var s koratv1.NodeNetworkStatus
	fill(&s, facts(), metav1.Unix(200, 0))
	if s.SessionSummary != "1/2" || !meta.IsStatusConditionTrue(s.Conditions, koratv1.ConditionReady) {
		t.Fatalf("summary %q, conditions %+v", s.SessionSummary, s.Conditions)
	}
	c := meta.FindStatusCondition(s.Conditions, koratv1.ConditionEstablished)
	if want := "nodenetwork/b (10.1.0.12) is Active: connection refused"; c.Status != metav1.ConditionFalse || c.Message != want {
		t.Fatalf("got %s %q, want False %q", c.Status, c.Message, want)
	}
}

func TestTheSameFactsGiveTheSameStatus(t *testing.T) {
	var s koratv1.NodeNetworkStatus
	fill(&s, facts(), metav1.Unix(200, 0))
	again := *s.DeepCopy()
	fill(&again, facts(), metav1.Unix(300, 0))
	if diff := cmp.Diff(s, again); diff != "" {
		t.Fatal(diff)
	}
}

func TestAKernelErrorMakesTheNodeUnready(t *testing.T) {
	f := facts()
	f.Problem = errors.New("route: no such device")
	var s koratv1.NodeNetworkStatus
	fill(&s, f, metav1.Unix(200, 0))
	c := meta.FindStatusCondition(s.Conditions, koratv1.ConditionReady)
	if c.Status != metav1.ConditionFalse || c.Reason != koratv1.ReasonKernelError || c.Message != "route: no such device" {
		t.Fatalf("got %+v", c)
	}
}
