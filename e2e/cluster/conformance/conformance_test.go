package conformance

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const report = `[{"SuiteSucceeded": false, "SpecReports": [
 {"LeafNodeType": "SynchronizedBeforeSuite", "State": "passed"},
 {"ContainerHierarchyTexts": ["[sig-network] Services"], "LeafNodeType": "It", "LeafNodeText": "should work", "State": "passed"},
 {"ContainerHierarchyTexts": ["[sig-storage] Disks"], "LeafNodeType": "It", "LeafNodeText": "should spin", "State": "skipped"},
 {"ContainerHierarchyTexts": ["[sig-network] LoadBalancers"], "LeafNodeType": "It", "LeafNodeText": "should work [Feature:LoadBalancer]", "State": "skipped"},
 {"ContainerHierarchyTexts": ["[sig-network] Zones"], "LeafNodeType": "It", "LeafNodeText": "should differ", "State": "skipped", "Failure": {"Message": "one zone\nstack"}},
 {"ContainerHierarchyTexts": ["[sig-network] Netpol"], "LeafNodeType": "It", "LeafNodeText": "should deny", "State": "timedout", "Failure": {"Message": "it did not"}}
]}]`

func TestReadCountsWhatRanAndNamesWhatDidNot(t *testing.T) {
	skips := []Skip{{Specs: `\[Feature:LoadBalancer\]`, Reason: "no cloud"}}
	got, err := Read([]byte(report), regexp.MustCompile(Focus), skips)
	if err != nil {
		t.Fatal(err)
	}
	want := Result{
		Passed: 1,
		Failed: []string{
			"[sig-network] Netpol should deny: timedout: it did not",
			"[sig-network] Zones should differ: skips itself, which docs/conformance.md does not say: one zone",
		},
		Skipped: []string{"[sig-network] LoadBalancers should work [Feature:LoadBalancer]: no cloud"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got.String() != "conformance: 1 passed, 2 failed, 1 skipped" {
		t.Error(got)
	}
}

func TestASuiteThatBreaksIsAFailure(t *testing.T) {
	for _, text := range []string{
		`[{"SuiteSucceeded": false, "SpecialSuiteFailureReasons": ["Interrupted by User"]}]`,
		`[{"SuiteSucceeded": false, "SpecReports": [{"LeafNodeType": "SynchronizedBeforeSuite", "State": "failed", "Failure": {"Message": "no nodes"}}]}]`,
	} {
		r, err := Read([]byte(text), regexp.MustCompile(Focus), nil)
		if err != nil || len(r.Failed) != 1 {
			t.Errorf("%v %v: want one failure", r, err)
		}
	}
	if _, err := Read([]byte("half a repo"), regexp.MustCompile(Focus), nil); err == nil {
		t.Error("no error for a report that is cut off")
	}
}

func TestNoNetworkPolicySpecIsSkipped(t *testing.T) {
	skips, err := Skips()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"[sig-network] Netpol NetworkPolicy between server and client should enforce policy",
		"[sig-network] Netpol [Feature:SCTPConnectivity] NetworkPolicy between server and client using SCTP should enforce policy",
		"[sig-network] NetworkPolicyLegacy", "[sig-network] Netpol API should support creating NetworkPolicy API operations",
	} {
		if why := reason(name, skips); why != "" {
			t.Errorf("%s: %s", name, why)
		}
	}
}

// TestDocumentationListsEverySkip: a row for each, with its reason.
func TestDocumentationListsEverySkip(t *testing.T) {
	page, err := os.ReadFile("../../../docs/conformance.md")
	if err != nil {
		t.Fatal(err)
	}
	skips, err := Skips()
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	for _, s := range skips {
		row := "| `" + strings.ReplaceAll(s.Specs, "|", `\|`) + "` | " + s.Reason + " |"
		if !strings.Contains(string(page), row) {
			t.Errorf("docs/conformance.md lacks the row\n%s", row)
		}
	}
	for line := range strings.Lines(string(page)) {
		if strings.HasPrefix(line, "| `") {
			rows++
		}
	}
	if rows != len(skips) {
		t.Errorf("docs/conformance.md has %d rows of skips, want %d", rows, len(skips))
	}
}
