// Package conformance runs the end-to-end tests of the Kubernetes project against
// a cluster and says what came out. It runs all specs of sig-network; those that
// cannot run are listed one by one with the reason, and a spec that fails or skips
// itself without being listed is a failure.
package conformance

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"sigs.k8s.io/yaml"
)

// Skip is a group of specs that are not run, or that skip themselves.
type Skip struct {
	// Specs is a regular expression that matches their full names.
	Specs string `json:"specs"`
	// Reason says why they say nothing about a network here.
	Reason string `json:"reason"`
}

//go:embed skips.yaml
var skipsFile []byte

// Skips lists everything that is not run.
func Skips() ([]Skip, error) {
	var s []Skip
	if err := yaml.UnmarshalStrict(skipsFile, &s); err != nil {
		return nil, fmt.Errorf("skips.yaml: %w", err)
	}
	for _, k := range s {
		if _, err := regexp.Compile(k.Specs); err != nil || k.Reason == "" {
			return nil, fmt.Errorf("skips.yaml: %q: want an expression and a reason (%v)", k.Specs, err)
		}
	}
	return s, nil
}

// Focus is what is run unless Options say otherwise.
const Focus = `\[sig-network\]`

// Options say what is run against what.
type Options struct {
	// Bin is the directory of the binaries e2e.test, ginkgo and kubernetes.
	Bin string
	// Kubeconfig is the admin's.
	Kubeconfig string
	// Nodes is how many the cluster has: specs that want more skip themselves.
	Nodes int
	// Focus is a regular expression: specs whose names it matches are run.
	Focus string
	// Processes is how many specs run at once.
	Processes int
	// Report is the file that gets ginkgo's report.
	Report string
	// Output gets what ginkgo prints.
	Output io.Writer
}

// Result is what came out of a run.
type Result struct {
	Passed int
	// Failed and Skipped hold a line for each spec.
	Failed, Skipped []string
}

func (r Result) String() string {
	return fmt.Sprintf("conformance: %d passed, %d failed, %d skipped", r.Passed, len(r.Failed), len(r.Skipped))
}

// Run runs the specs. Specs that fail are no error.
func Run(ctx context.Context, o Options) (Result, error) {
	skips, err := Skips()
	if err != nil {
		return Result{}, err
	}
	var not []string
	for _, s := range skips {
		not = append(not, s.Specs)
	}
	dir, err := os.MkdirTemp("", "conformance")
	if err != nil {
		return Result{}, err
	}
	defer os.RemoveAll(dir)
	bin, err := filepath.Abs(o.Bin)
	if err != nil {
		return Result{}, err
	}
	kubectl := filepath.Join(dir, "kubectl") // the binary is what it is called by
	if err := os.Symlink(filepath.Join(bin, "kubernetes"), kubectl); err != nil {
		return Result{}, err
	}
	report, err := filepath.Abs(o.Report)
	if err != nil {
		return Result{}, err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "ginkgo"), "run",
		"--no-color", "--silence-skips", fmt.Sprintf("--procs=%d", o.Processes), "--timeout=3h",
		"--json-report="+filepath.Base(report), "--output-dir="+filepath.Dir(report),
		"--focus="+o.Focus, "--skip="+strings.Join(not, "|"), filepath.Join(bin, "e2e.test"), "--",
		"--kubeconfig="+o.Kubeconfig, "--provider=skeleton", fmt.Sprintf("--num-nodes=%d", o.Nodes), "--kubectl-path="+kubectl)
	cmd.Stdout, cmd.Stderr = o.Output, o.Output
	// When ctx ends, ginkgo and the processes of specs are interrupted, as from a terminal.
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	cmd.Cancel, cmd.WaitDelay = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGINT) }, 2*time.Minute
	if err := os.Remove(report); err != nil && !errors.Is(err, fs.ErrNotExist) { // one of before says nothing of this run
		return Result{}, err
	}
	ended := cmd.Run() // not nil also when specs failed
	text, err := os.ReadFile(report)
	if err != nil {
		return Result{}, fmt.Errorf("no report: %w (ginkgo: %v)", err, ended)
	}
	r, err := Read(text, regexp.MustCompile(o.Focus), skips)
	if err == nil && ended != nil && len(r.Failed) == 0 { // it was interrupted before there was a spec
		err = fmt.Errorf("ginkgo: %w", ended)
	}
	return r, err
}

// spec is what we read of a report.
type spec struct {
	ContainerHierarchyTexts []string
	LeafNodeType            string
	LeafNodeText            string
	State                   string
	Failure                 struct{ Message string }
}

func (s spec) name() string {
	return strings.Join(append(slices.Clone(s.ContainerHierarchyTexts), s.LeafNodeText), " ")
}

// Read evaluates a report of ginkgo in JSON.
func Read(report []byte, focus *regexp.Regexp, skips []Skip) (Result, error) {
	var suites []struct {
		SuiteSucceeded             bool
		SpecialSuiteFailureReasons []string
		SpecReports                []spec
	}
	if err := json.Unmarshal(report, &suites); err != nil {
		return Result{}, fmt.Errorf("report: %w", err)
	}
	var r Result
	for _, suite := range suites {
		for _, s := range suite.SpecReports {
			r.add(s, focus, skips)
		}
		if !suite.SuiteSucceeded && len(r.Failed) == 0 {
			r.Failed = append(r.Failed, "the suite: "+strings.Join(suite.SpecialSuiteFailureReasons, ", "))
		}
	}
	slices.Sort(r.Failed)
	slices.Sort(r.Skipped)
	return r, nil
}

func (r *Result) add(s spec, focus *regexp.Regexp, skips []Skip) {
	name := s.name()
	if s.LeafNodeType != "It" {
		if s.State != "passed" && s.State != "skipped" { // what goes before and after all specs
			r.Failed = append(r.Failed, s.LeafNodeType+": "+firstLine(s.Failure.Message))
		}
		return
	}
	if !focus.MatchString(name) {
		return
	}
	switch s.State {
	case "passed":
		r.Passed++
	case "skipped", "pending":
		if why := reason(name, skips); why != "" {
			r.Skipped = append(r.Skipped, name+": "+why)
			return
		}
		r.Failed = append(r.Failed, name+": skips itself, which docs/conformance.md does not say: "+firstLine(s.Failure.Message))
	default:
		r.Failed = append(r.Failed, name+": "+s.State+": "+firstLine(s.Failure.Message))
	}
}

func reason(name string, skips []Skip) string {
	for _, s := range skips {
		if ok, _ := regexp.MatchString(s.Specs, name); ok {
			return s.Reason
		}
	}
	return ""
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}
