package dataplanetest

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
)

var kills = flag.Int("kills", 6, "how often KillAnywhere kills the backend")

// inNamespace is set in the environment of a process that is to be killed: the
// path of the network namespace in which it keeps the rules.
const inNamespace = "DATAPLANETEST_NAMESPACE"

// KillAnywhere runs the backend in a process of its own, changes without pause
// what it should do, kills it at random moments and starts it again. No packet
// may pass meanwhile that is denied, none of an established connection may get
// lost, and when the new process has caught up the kernel must hold what it would
// if nothing had happened.
func KillAnywhere(t *testing.T, b Backend) {
	t.Helper()
	if path := os.Getenv(inNamespace); path != "" {
		victim(t, b, path)
		return
	}
	oneCPU(t)
	w := newWorld(t, b)
	step := 1
	p := w.spawn(step)
	p.await(step)
	probe := w.probe()
	reference := &reference{backend: b, node: kerneltest.New(t)}
	for range *kills {
		for range 1 + rand.IntN(40) {
			step++
			p.tell(step)
		}
		for deadline := time.Now().Add(time.Duration(rand.IntN(200)) * time.Millisecond); time.Now().Before(deadline); {
			probe()
		}
		p.kill()
		probe()
		p = w.spawn(step)
		for !p.has(step) {
			probe()
		}
		probe()
		if want, got := reference.at(t, step), b.Dump(w.node); want != got {
			t.Fatalf("after a kill and a restart at step %d the kernel is not as desired:\n%s", step, differing(want, got))
		}
	}
	p.kill()
	t.Logf("%d kills in %d steps, %d packets, %d bytes of rules and sets at the end", *kills, step, w.lastID, len(b.Dump(w.node)))
}

// differing lists the lines that are in one text only.
func differing(want, got string) string {
	var b strings.Builder
	only := func(mark, here, there string) {
		for line := range strings.Lines(here) {
			if !strings.Contains(there, line) {
				b.WriteString(mark + line)
			}
		}
	}
	only("- ", want, got)
	only("+ ", got, want)
	if b.Len() == 0 {
		return "the order differs:\n" + want + "\n=== is\n" + got
	}
	return b.String()
}

// reference is a namespace in which nobody is killed.
type reference struct {
	backend Backend
	node    *kerneltest.Namespace
}

// at returns what the kernel should hold at a step, made from nothing.
func (r *reference) at(t *testing.T, step int) string {
	t.Helper()
	if r.node == nil {
		r.node = kerneltest.New(t)
	}
	p, err := r.backend.start(r.node)
	if err == nil {
		err = p.want(t.Context(), churnAt(step).Delta)
	}
	if err != nil {
		t.Fatalf("the reference at step %d: %v", step, err)
	}
	return r.backend.Dump(r.node)
}

// process is a backend that can be killed.
type process struct {
	w     *world
	cmd   *exec.Cmd
	steps *os.File // to it
	done  chan int // from it
	last  int
}

// spawn starts the backend at a step.
func (w *world) spawn(step int) *process {
	w.t.Helper()
	stepsOut, steps, err := os.Pipe()
	w.must(err)
	done, doneIn, err := os.Pipe()
	w.must(err)
	p := &process{w: w, steps: steps, done: make(chan int, 1000)}
	name := strings.ReplaceAll(w.t.Name(), "/", "$/^")
	p.cmd = exec.CommandContext(w.t.Context(), os.Args[0], "-test.run=^"+name+"$", "-test.count=1")
	p.cmd.Env = append(os.Environ(), inNamespace+"="+w.node.Path())
	p.cmd.ExtraFiles = []*os.File{stepsOut, doneIn}
	p.cmd.Stdout, p.cmd.Stderr = os.Stdout, os.Stderr
	w.must(p.cmd.Start())
	stepsOut.Close()
	doneIn.Close()
	w.t.Cleanup(p.kill)
	go func() { // ends with the process
		defer close(p.done)
		defer done.Close()
		for lines := bufio.NewScanner(done); lines.Scan(); {
			var n int
			if _, err := fmt.Sscan(lines.Text(), &n); err == nil {
				p.done <- n
			}
		}
	}()
	p.tell(step)
	return p
}

// tell tells the process to go to a step.
func (p *process) tell(step int) {
	p.w.t.Helper()
	if _, err := fmt.Fprintln(p.steps, step); err != nil {
		p.w.t.Fatalf("tell the backend: %v", err)
	}
}

// has reports whether the process has come to a step.
func (p *process) has(step int) bool {
	p.w.t.Helper()
	for {
		select {
		case n, alive := <-p.done:
			if !alive {
				p.w.t.Fatal("the backend's process ended by itself")
			}
			p.last = n
		default:
			return p.last >= step
		}
	}
}

func (p *process) await(step int) {
	p.w.t.Helper()
	kerneltest.Eventually(p.w.t, "the first step", func() bool { return p.has(step) })
}

// kill ends the process at once.
func (p *process) kill() {
	if p.cmd.ProcessState != nil {
		return
	}
	_ = p.cmd.Process.Kill() // it may have ended
	_ = p.cmd.Wait()         // it was killed
	p.steps.Close()
}

// victim is the process that is killed: it keeps a backend at the step that it
// was told last. It ends when it is not told any more.
func victim(t *testing.T, b Backend, path string) {
	t.Helper()
	runtime.LockOSThread() // the namespace is the thread's
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		err = unix.Setns(fd, unix.CLONE_NEWNET)
	}
	if err != nil {
		t.Fatalf("enter the namespace: %v", err)
	}
	p := &plane{}
	if p.phases, err = b.New(); err != nil {
		t.Fatal(err)
	}
	if err := p.want(t.Context(), desired.Delta{}); err != nil { // an agent that knows nothing yet
		t.Fatal(err)
	}
	steps, done := bufio.NewReader(os.NewFile(3, "steps")), os.NewFile(4, "done")
	var now churn
	for {
		var n int
		if _, err := fmt.Fscanln(steps, &n); err == io.EOF {
			return
		} else if err != nil {
			t.Fatal(err)
		}
		next := churnAt(n)
		if err := p.want(t.Context(), next.since(now)); err != nil {
			t.Fatalf("step %d: %v", n, err)
		}
		now = next
		fmt.Fprintln(done, n)
	}
}
