package machine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/e2e/lab/machine"
)

// initArg makes the test binary a machine's init.
const initArg = "machine-init"

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == initArg {
		fmt.Fprintln(os.Stderr, machine.Init(os.Args[2]))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

const prefix = "kl-tmachine-"

func create(t *testing.T) *machine.Machine {
	t.Helper()
	destroy := func() {
		if err := machine.Destroy(prefix); err != nil {
			t.Error(err)
		}
	}
	destroy()
	t.Cleanup(destroy)
	if err := machine.AddNetns(prefix + "m"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	m, err := machine.Create(ctx, machine.Spec{
		Name: "m", Netns: prefix + "m", Dir: filepath.Join(t.TempDir(), "m"), Bin: t.TempDir(),
		Init: []string{"/proc/self/exe", initArg}, Sysctls: map[string]string{"net/ipv4/ip_forward": "1", "net/none/such": "1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func output(t *testing.T, m *machine.Machine, args ...string) string {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := m.Run(cmd); err != nil {
		t.Fatalf("%v: %v: %s", args, err, out.String())
	}
	return strings.TrimSpace(out.String())
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for !is() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not in ten seconds: %s", what)
		}
	}
}

func TestAMachineHasItsOwnOfWhatItWritesAndSeesTheRest(t *testing.T) {
	m := create(t)
	if got := output(t, m, "hostname"); got != "m" {
		t.Errorf("host name %q", got)
	}
	if got := output(t, m, "cat", "/proc/sys/net/ipv4/ip_forward", "/proc/1/comm"); !strings.HasPrefix(got, "1\n") {
		t.Errorf("ip_forward and init: %q", got)
	}
	if got := output(t, m, "ls", "/sys/class/net"); got != "lo" {
		t.Errorf("links are %q", got)
	}
	output(t, m, "ping", "-c1", "-W1", "127.0.0.1")
	for _, f := range []string{"/etc/korat-machine-test", "/run/korat-machine-test", "/var/lib/korat/korat-machine-test"} {
		output(t, m, "touch", f)
		if _, err := os.Stat(m.Path(f)); err != nil {
			t.Errorf("the host does not find the machine's %s: %v", f, err)
		}
		if _, err := os.Stat(f); err == nil {
			t.Errorf("%s was written on the host", f)
		}
	}
}

func TestRunReturnsTheStatusOfTheCommand(t *testing.T) {
	m := create(t)
	var exit *exec.ExitError
	if err := m.Run(exec.Command("sh", "-c", "exit 7")); !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Errorf("error %v, want exit status 7", err)
	}
}

func TestServicesAreStartedSignalledAndReaped(t *testing.T) {
	m := create(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	// The service leaves an orphan to init, writes to the descriptor it was given, and waits.
	err = m.Start("s", machine.Command{Args: []string{"/bin/sh", "-c", "(sleep 0 & sleep 0 &) ; echo logged; echo $WORD >&3; exec sleep 1000"}, Env: []string{"WORD=hello"}, Files: []*os.File{w}})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	word := make([]byte, 6)
	if _, err := r.Read(word); err != nil || string(word) != "hello\n" {
		t.Errorf("read %q, %v from the service", word, err)
	}
	if err := m.Start("s", machine.Command{Args: []string{"/bin/true"}}); err == nil {
		t.Error("a service that runs was started again")
	}
	s, err := m.Service("s")
	if err != nil || !s.Running {
		t.Fatalf("%+v, %v", s, err)
	}
	pid := m.HostPID(s)
	if comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); pid == 0 || len(comm) == 0 {
		t.Errorf("host process %d is %q", pid, comm)
	}
	if err := m.Signal("s", unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the service has ended", func() bool {
		s, err = m.Service("s")
		return err == nil && !s.Running
	})
	if s.Status != "killed by killed" {
		t.Errorf("status %q", s.Status)
	}
	if log, err := os.ReadFile(m.Log("s")); err != nil || string(log) != "logged\n" {
		t.Errorf("log %q, %v", log, err)
	}
	eventually(t, "no zombie is left", func() bool { return !strings.Contains(output(t, m, "ps", "-eo", "stat"), "Z") })
	if err := m.Signal("s", unix.SIGTERM); err != nil {
		t.Errorf("signal to a service that has ended: %v", err)
	}
	if err := m.Start("s", machine.Command{Args: []string{"/no/such/program"}}); err == nil {
		t.Error("a program that does not exist was started")
	}
}

func TestDestroyEndsAlsoWhatLivesInNamespacesBelow(t *testing.T) {
	m := create(t)
	err := m.Start("pod", machine.Command{Args: []string{"/usr/bin/unshare", "--net", "sleep", "1000"}})
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	eventually(t, "the service runs", func() bool {
		s, err := m.Service("pod")
		pid = m.HostPID(s)
		return err == nil && pid != 0
	})
	if reopened, err := machine.Open(m.Dir); err != nil || !reopened.Alive() {
		t.Errorf("open: %v", err)
	}
	if err := machine.Destroy(prefix); err != nil {
		t.Fatal(err)
	}
	if machine.StartTime(pid) != 0 || m.Alive() {
		t.Error("processes are left")
	}
	if left := machine.Netnses(prefix); len(left) > 0 {
		t.Errorf("namespaces %v are left", left)
	}
	if err := m.Run(exec.Command("true")); err == nil {
		t.Error("a command runs in a machine that is gone")
	}
}
