package report

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/felix/status"
)

var inForce = status.Enforcement{InForce: "IPTables", Wanted: "IPTables", Why: "a NodeConfiguration asks for it"}

func TestWhatEnforcesPolicyIsTold(t *testing.T) {
	for name, c := range map[string]struct {
		e             status.Enforcement
		backend, want string
	}{
		"nothing yet": {status.Enforcement{}, "", "False Starting: the API server has not told all yet"},
		"the one":     {inForce, "IPTables", "True InForce: IPTables: a NodeConfiguration asks for it"},
		"two": {
			status.Enforcement{InForce: "IPTables", Wanted: "NFTables", Why: "asked for", Missing: errors.New("nftables: no such module")},
			"IPTables, NFTables",
			"False Switching: IPTables goes on until NFTables is in force (asked for): nftables: no such module",
		},
		"all but one pod": {
			status.Enforcement{InForce: "NFTables", Wanted: "NFTables", Missing: errors.New("nftables: endpoint kor1: refused")},
			"NFTables",
			"False KernelError: NFTables: nftables: endpoint kor1: refused",
		},
		"remains": {
			status.Enforcement{InForce: "NFTables", Wanted: "NFTables", Leftover: errors.New("ipset: busy")},
			"NFTables",
			"False Leftovers: NFTables is in force, and another backend cannot be removed: ipset: busy",
		},
	} {
		t.Run(name, func(t *testing.T) {
			var s koratv1.NodeNetworkStatus
			fill(&s, Facts{Enforcement: c.e}, metav1.Unix(200, 0))
			k := meta.FindStatusCondition(s.Conditions, koratv1.ConditionEnforced)
			if got := fmt.Sprintf("%s %s: %s", k.Status, k.Reason, k.Message); got != c.want || s.Backend != c.backend {
				t.Errorf("backend %q, %s\nwant %q, %s", s.Backend, got, c.backend, c.want)
			}
		})
	}
}

func facts() Facts {
	return Facts{
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.1.0.11/24")}, ASN: 65001, Enforcement: inForce, Version: "v1",
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
