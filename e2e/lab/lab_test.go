package lab_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/koratnet/korat/e2e/lab"
	"github.com/koratnet/korat/e2e/lab/machine"
)

// self is the lab command built from the tree under test.
var self string

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "korat-lab-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	self = filepath.Join(dir, "lab")
	if out, err := exec.Command("go", "build", "-o", self, "github.com/koratnet/korat/e2e/cmd/lab").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build lab: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// fabric brings up a lab without a control plane, named after its caller.
func fabric(t *testing.T, name, plan string) *lab.Lab {
	t.Helper()
	topo, err := lab.Topology(plan)
	if err != nil {
		t.Fatal(err)
	}
	o := lab.Options{Name: name, State: filepath.Join(t.TempDir(), "lab"), Topology: topo, Self: self, FabricOnly: true}
	t.Cleanup(func() {
		if err := lab.Down(context.Background(), o); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	l, err := lab.Up(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// run runs a command in a machine, until it succeeds or ten seconds are over:
// routers take a moment to bring a route from the session to the kernel.
func run(t *testing.T, m *machine.Machine, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var out bytes.Buffer
	err := lab.Eventually(ctx, func(context.Context) error {
		out.Reset()
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Stdout, cmd.Stderr = &out, &out
		return m.Run(cmd)
	})
	if err != nil {
		t.Errorf("%s: %s: %v\n%s", m.Name, strings.Join(args, " "), err, out.String())
	}
	return out.String()
}

func TestFabricCarriesTrafficBetweenRacksAndLeavesNothing(t *testing.T) {
	for range 2 {
		l := fabric(t, "tfabric", "default")
		run(t, l.Machine("outside"), "ping", "-c1", "-W1", "10.102.0.11")
		run(t, l.Machine("a1"), "ping", "-c1", "-W1", "10.102.0.12")
		run(t, l.Machine("b2"), "ping", "-c1", "-W1", "10.104.0.11")
		run(t, l.Machine("a1"), "ping", "-c1", "-W1", "fd00:10:102::c")
		run(t, l.Machine("a2"), "ping", "-c1", "-W1", "10.100.0.1")

		path := run(t, l.Machine("a1"), "traceroute", "-n", "-q1", "-w1", "10.102.0.11")
		for _, hop := range []string{"10.101.0.1", "10.103.0.2", "10.102.0.11"} {
			if !strings.Contains(path, " "+hop+" ") {
				t.Errorf("the path from a1 to b1 misses %s:\n%s", hop, path)
			}
		}
		if err := l.Down(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := lab.Leftovers(l.Options); err != nil {
			t.Error(err)
		}
	}
}

func TestTwoRoutersOfARackAreTwoEqualPaths(t *testing.T) {
	l := fabric(t, "tdual", "dual-tor")
	run(t, l.Machine("a1"), "ping", "-c1", "-W1", "10.102.0.11")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err := lab.Eventually(ctx, func(context.Context) error {
		var out bytes.Buffer
		cmd := exec.Command("ip", "route", "show", "10.101.0.0/24")
		cmd.Stdout = &out
		if err := l.Machine("tor-b").Run(cmd); err != nil {
			return err
		}
		if strings.Count(out.String(), "nexthop via") != 2 {
			return fmt.Errorf("want two next hops, have %q", out.String())
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestDownAfterACrashLeavesNothing(t *testing.T) {
	state := filepath.Join(t.TempDir(), "lab")
	o := lab.Options{Name: "tcrash", State: state}
	t.Cleanup(func() {
		if err := lab.Down(context.Background(), o); err != nil {
			t.Error(err)
		}
	})
	up := exec.Command(self, "up", "--fabric-only", "--name", o.Name, "--state", state)
	if err := up.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	err := lab.Eventually(ctx, func(context.Context) error {
		if _, err := os.Stat(filepath.Join(state, "machines", "a2", "init.json")); err != nil {
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := up.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	up.Wait()
	if err := lab.Down(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if err := lab.Leftovers(o); err != nil {
		t.Error(err)
	}
	if err := lab.Down(t.Context(), o); err != nil {
		t.Errorf("down of a lab that is not there: %v", err)
	}
}
