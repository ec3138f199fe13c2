package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/e2e/lab"
	"github.com/koratnet/korat/e2e/lab/matrix"
)

// story is the demo as it goes: what it talks to and what it counted.
type story struct {
	out io.Writer
	bin string
	lab *lab.Lab
	// patience is how many times as long as usual everything may take.
	patience int
	scenes   int // how many are played
	// mode is what packets between nodes travel in.
	mode      v1.Encapsulation
	encrypted string // what is asked for, empty: nothing

	ends   []matrix.End // the six pods, in the order of thePods
	ends6  []matrix.End // the same under their second address, in a lab of two families
	passed int
	failed int
}

// check counts one check and prints its line.
func (s *story) check(what string, err error) {
	n := s.passed + s.failed + 1
	if err != nil {
		s.failed++
		fmt.Fprintf(s.out, "FAIL %d %s: %v\n", n, what, err)
		return
	}
	s.passed++
	fmt.Fprintf(s.out, "ok  %2d %s\n", n, what)
}

// patient is how long something may take here that takes d at most elsewhere.
func (s *story) patient(d time.Duration) time.Duration { return time.Duration(s.patience) * d }

// within is a check that may take a moment to come true.
func (s *story) within(ctx context.Context, limit time.Duration, what string, f func(context.Context) error) {
	ctx, cancel := context.WithTimeout(ctx, s.patient(limit))
	defer cancel()
	s.check(what, lab.Eventually(ctx, f))
}

// show prints lines of something seen, set off from the checks.
func (s *story) show(text string) {
	for line := range strings.Lines(strings.TrimRight(text, "\n")) {
		fmt.Fprint(s.out, "      | "+strings.TrimRight(line, "\n")+"\n")
	}
}

// kubectl runs kubectl as the cluster's admin, with input on its standard input.
func (s *story) kubectl(ctx context.Context, input string, args ...string) (string, error) {
	args = append([]string{"kubectl", "--kubeconfig", s.lab.Kubeconfig()}, args...)
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, "controlplane"), args...)
	cmd.Stdin = strings.NewReader(input)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%w: %s", err, bytes.TrimSpace(out.Bytes()))
	}
	return out.String(), nil
}

// output runs a command where target is and returns what it printed.
func (s *story) output(ctx context.Context, target string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := s.lab.Exec(target, cmd)
	return out.String(), err
}

// families are the six pods under the addresses of each family.
func (s *story) families() [][]matrix.End {
	if len(s.ends6) == 0 {
		return [][]matrix.End{s.ends}
	}
	return [][]matrix.End{s.ends, s.ends6}
}

// end is one of the six pods.
func (s *story) end(name string) matrix.End {
	for _, e := range s.ends {
		if e.Name == name {
			return e
		}
	}
	return matrix.End{Name: name}
}
