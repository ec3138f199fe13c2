package conformance

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	policyreport "sigs.k8s.io/network-policy-api/conformance/apis/v1alpha1"
	"sigs.k8s.io/yaml"
)

// TestPublishedReportsAreOfTheVersionThatWeClaim, and in each everything was tested
// and passed.
func TestPublishedReportsAreOfTheVersionThatWeClaim(t *testing.T) {
	version, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Version}}", policyAPI).Output()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("../../../docs/conformance/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no reports (%v)", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var r policyreport.ConformanceReport
		if err := yaml.UnmarshalStrict(text, &r); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		backend := strings.TrimSuffix(filepath.Base(file), ".yaml")
		if r.Kind != "ConformanceReport" || r.NetworkPolicyV2APIVersion != strings.TrimSpace(string(version)) || !strings.Contains(r.AdditionalInformation, backend) {
			t.Errorf("%s: a %s for %s about %q, want a ConformanceReport for %s", file, r.Kind, r.NetworkPolicyV2APIVersion, r.AdditionalInformation, version)
		}
		if got := readPolicy(r); got.Passed == 0 || len(got.Failed)+len(got.Skipped) > 0 {
			t.Errorf("%s: %v: failed %v, skipped %v", file, got, got.Failed, got.Skipped)
		}
		for _, p := range r.ProfileReports {
			if p.Experimental == nil || !cmp.Equal(slices.Sorted(slices.Values(p.Experimental.SupportedFeatures)), slices.Sorted(slices.Values(policyFeatures))) {
				t.Errorf("%s: %+v, want all of %v tested", file, p, policyFeatures)
			}
		}
	}
}

func TestWhatIsNotTestedOfPolicyIsCounted(t *testing.T) {
	got := readPolicy(policyreport.ConformanceReport{ProfileReports: []policyreport.ProfileReport{{
		Standard: policyreport.Status{Statistics: policyreport.Statistics{Passed: 3, Failed: 1}, FailedTests: []string{"Deny"}},
		Experimental: &policyreport.ExperimentalStatus{
			Status:              policyreport.Status{Statistics: policyreport.Statistics{Passed: 2, Skipped: 1}, SkippedTests: []string{"Slow"}},
			UnsupportedFeatures: []string{"NamedPorts"},
		},
	}}})
	want := Result{Passed: 5, Failed: []string{"Deny"}, Skipped: []string{"NamedPorts", "Slow"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
