package conformance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"

	policyreport "sigs.k8s.io/network-policy-api/conformance/apis/v1alpha1"
	"sigs.k8s.io/yaml"
)

// policyAPI is the module whose kinds we claim and whose suite we run.
const policyAPI = "sigs.k8s.io/network-policy-api"

// policyFeatures are what the suite tests only of those who say that they have it. We
// have all of them; without one its tests would not be run.
var policyFeatures = []string{"ClusterNetworkPolicyNamedPorts", "ClusterNetworkPolicyEgressNodePeers"}

// PolicyOptions say what the suite of ClusterNetworkPolicy is run against.
type PolicyOptions struct {
	// Suite is its binary.
	Suite string
	// Kubeconfig is the admin's.
	Kubeconfig string
	// Version and Backend are those of the agents.
	Version, Backend string
	// Report is the file that gets what network-policy-api asks implementers to publish.
	Report string
	// Output gets what the suite prints.
	Output io.Writer
}

// RunPolicy runs the suite of network-policy-api and writes its report. Tests that
// fail are no error.
func RunPolicy(ctx context.Context, o PolicyOptions) (Result, error) {
	dir, err := os.MkdirTemp("", "conformance")
	if err != nil {
		return Result{}, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "report.yaml")
	const home = "https://github.com/koratnet/korat"
	cmd := exec.CommandContext(ctx, o.Suite, "-test.run=^TestConformanceProfiles$", "-test.v", "-test.timeout=1h",
		"-conformance-profiles=ClusterNetworkPolicy", "-supported-features="+strings.Join(policyFeatures, ","),
		"-organization=koratnet", "-project=korat", "-url="+home, "-version="+o.Version, "-contact="+home+"/issues/new",
		"-additional-info="+home+"/blob/main/docs/conformance.md (make conformance-policy, data plane "+o.Backend+")",
		"-cleanup-base-resources=false", // of which pods take a minute to come and to go, and the next run finds them
		"-report-output="+file)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+o.Kubeconfig)
	cmd.Stdout, cmd.Stderr = o.Output, o.Output
	ended := cmd.Run() // not nil also when tests failed
	text, err := os.ReadFile(file)
	if err != nil {
		return Result{}, fmt.Errorf("no report: %w (%v)", err, ended)
	}
	var r policyreport.ConformanceReport
	if err := yaml.Unmarshal(text, &r); err != nil {
		return Result{}, fmt.Errorf("report: %w", err)
	}
	if r.NetworkPolicyV2APIVersion, err = policyAPIVersion(); err != nil { // the suite's is a constant of long ago
		return Result{}, err
	}
	if text, err = yaml.Marshal(r); err != nil {
		return Result{}, fmt.Errorf("report: %w", err)
	}
	return readPolicy(r), os.WriteFile(o.Report, text, 0o644)
}

// policyAPIVersion is that of the module which this program is built with.
func policyAPIVersion() (string, error) {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == policyAPI {
				return m.Version, nil
			}
		}
	}
	return "", errors.New("this program does not say which " + policyAPI + " it is built with")
}

// readPolicy evaluates a report. What is not tested counts as skipped.
func readPolicy(r policyreport.ConformanceReport) Result {
	var out Result
	for _, p := range r.ProfileReports {
		all := []policyreport.Status{p.Standard}
		if e := p.Experimental; e != nil {
			all = append(all, e.Status)
			out.Skipped = append(out.Skipped, e.UnsupportedFeatures...)
		}
		for _, s := range all {
			out.Passed += int(s.Passed)
			out.Failed = append(out.Failed, s.FailedTests...)
			out.Skipped = append(out.Skipped, s.SkippedTests...)
		}
	}
	return out
}
