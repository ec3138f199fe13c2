// Package suite holds the scenarios that need a whole cluster: they run in the
// lab, with the real binaries that `make lab-build` left in bin/, and break
// things on purpose.
package suite

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/koratnet/korat/e2e/lab"
	"github.com/koratnet/korat/e2e/lab/topology"
)

// bin is where the binaries are.
var bin = filepath.Join("..", "..", "bin")

var (
	labName = flag.String("lab", "suite", "name of the lab that is made")
	plan    = flag.String("topology", "default", "plan of the lab")
	keep    = flag.String("keep", "", "directory that gets the logs of all machines when a test fails")
	slower  = flag.Int("slower", 1, "how many times as long as usual things may take on this machine")
)

// patient is how long something may take here that takes d at most elsewhere.
func patient(d time.Duration) time.Duration { return time.Duration(*slower) * d }

// cluster is the lab that the tests share; each leaves it as it found it.
var cluster *lab.Lab

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), patient(3*time.Minute))
	defer cancel()
	topo, err := lab.Topology(*plan)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	o := lab.Options{Name: *labName, Bin: bin, Topology: topo, Progress: os.Stderr}
	defer func() {
		if err := lab.Down(context.Background(), o); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}()
	if cluster, err = up(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if code != 0 && *keep != "" {
		if err := keepLogs(*keep); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	return code
}

// keepLogs copies what the machines said to dir, each to a directory of its name.
func keepLogs(dir string) error {
	var errs []error
	for _, name := range cluster.Machines() {
		m := cluster.Machine(name)
		logs := filepath.Dir(m.Log("any"))
		errs = append(errs, os.CopyFS(filepath.Join(dir, name), os.DirFS(logs)))
		text, err := os.ReadFile(filepath.Join(m.Dir, "init.log"))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name, "init.log"), text, 0o644)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// up makes a lab, after removing what a crashed run may have left of it.
func up(ctx context.Context, o lab.Options) (*lab.Lab, error) {
	if err := lab.Down(ctx, o); err != nil {
		return nil, err
	}
	return lab.Up(ctx, o)
}

// eventually waits up to a minute, or as much longer as the machine is slower, for check to return nil.
func eventually(t *testing.T, what string, check func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patient(time.Minute))
	defer cancel()
	if err := lab.Eventually(ctx, check); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// sh runs a command in a machine or a pod and returns what it printed.
func sh(t *testing.T, l *lab.Lab, where string, args ...string) string {
	t.Helper()
	out, err := try(t.Context(), l, where, args...)
	if err != nil {
		t.Fatalf("%s: %s: %v\n%s", where, strings.Join(args, " "), err, out)
	}
	return out
}

func try(ctx context.Context, l *lab.Lab, where string, args ...string) (string, error) {
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = &out, &out
	err := l.Exec(where, cmd)
	return out.String(), err
}

// namespace makes a namespace of the test's own.
func namespace(t *testing.T, l *lab.Lab, name string) {
	t.Helper()
	create(t, l, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
	eventually(t, "service account of namespace "+name, func(ctx context.Context) error {
		return l.Client.Get(ctx, client.ObjectKey{Namespace: name, Name: "default"}, &corev1.ServiceAccount{})
	})
}

// create makes an object and removes it at the end of the test.
func create(t *testing.T, l *lab.Lab, o client.Object) {
	t.Helper()
	if err := l.Client.Create(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { remove(t, l, o) })
}

func remove(t *testing.T, l *lab.Lab, o client.Object) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patient(20*time.Second))
	defer cancel()
	if err := client.IgnoreNotFound(l.Client.Delete(ctx, o, client.GracePeriodSeconds(0))); err != nil {
		t.Error(err)
	}
	if _, isPod := o.(*corev1.Pod); !isPod {
		return
	}
	err := lab.Eventually(ctx, func(ctx context.Context) error {
		err := l.Client.Get(ctx, client.ObjectKeyFromObject(o), &corev1.Pod{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("pod %s is still there: %w", o.GetName(), err)
	})
	if err != nil {
		t.Error(err)
	}
}

// change makes an object what how makes of it, also when the test has ended.
func change(t *testing.T, o client.Object, how func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patient(30*time.Second))
	defer cancel()
	err := lab.Eventually(ctx, func(ctx context.Context) error {
		if err := cluster.Client.Get(ctx, client.ObjectKeyFromObject(o), o); err != nil {
			return err
		}
		how()
		return cluster.Client.Update(ctx, o)
	})
	if err != nil {
		t.Errorf("change of %s: %v", o.GetName(), err)
	}
}

// podOn describes a pod that serves TCP and UDP on port 80 on a node.
func podOn(node, ns, name string, labels map[string]string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, Labels: labels},
		Spec: corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{
			Name: "web", Image: "whoami",
			Ports: []corev1.ContainerPort{{ContainerPort: 80, Protocol: corev1.ProtocolTCP}, {ContainerPort: 80, Protocol: corev1.ProtocolUDP}},
		}}},
	}
}

// start makes a pod and returns its IPv4 address once it runs.
func start(t *testing.T, l *lab.Lab, p *corev1.Pod) netip.Addr {
	t.Helper()
	create(t, l, p)
	return running(t, l, p.Namespace+"/"+p.Name)
}

// running waits for a pod to have its network; the API server is not asked.
func running(t *testing.T, l *lab.Lab, name string) (addr netip.Addr) {
	t.Helper()
	eventually(t, "pod "+name, func(context.Context) error {
		p, err := l.Pod(name)
		if err != nil {
			return err
		}
		for _, a := range p.Addresses {
			if a.Is4() {
				addr = a
				return nil
			}
		}
		return fmt.Errorf("no address yet")
	})
	eventually(t, "server of pod "+name, func(context.Context) error {
		_, err := l.Ask(name, "tcp", netip.AddrPortFrom(addr, 80), patient(time.Second))
		return err
	})
	return addr
}

// reach asks from a pod or machine over TCP, once, with a short deadline.
func reach(l *lab.Lab, from string, to netip.Addr) error {
	_, err := l.Ask(from, "tcp", netip.AddrPortFrom(to, 80), 500*time.Millisecond)
	return err
}

// pings sends 100 pings a second from a pod until stop, which returns how many
// were sent and lost.
func pings(t *testing.T, l *lab.Lab, from string, to netip.Addr) (stop func() (sent, lost int)) {
	t.Helper()
	return pingsEvery(t, l, 10*time.Millisecond, from, to)
}

// pingsEvery is pings with another interval.
func pingsEvery(t *testing.T, l *lab.Lab, every time.Duration, from string, to netip.Addr) (stop func() (sent, lost int)) {
	t.Helper()
	var out bytes.Buffer
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "ping", "-i", fmt.Sprint(every.Seconds()), to.String())
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.Stdout = &out
	done := make(chan error, 1)
	go func() { done <- l.Exec(from, cmd) }()
	return func() (sent, lost int) {
		select {
		case err := <-done: // and with it what came after would have gone unwatched
			t.Errorf("ping from %s to %s ended before it was stopped: %v", from, to, err)
			done <- err
		default:
		}
		cancel()
		<-done
		var received, last int
		for line := range strings.Lines(out.String()) {
			if _, seq, ok := strings.Cut(line, "icmp_seq="); ok {
				_, _ = fmt.Sscanf(seq, "%d", &last)
			}
			if strings.Contains(line, "packets transmitted") {
				_, _ = fmt.Sscanf(line, "%d packets transmitted, %d received", &sent, &received)
			}
		}
		if sent == 0 {
			t.Errorf("ping from %s to %s sent nothing: %s", from, to, out.String())
		}
		if uint16(last) != uint16(sent) { // ping was ended while its last packet was on its way
			sent--
		}
		return sent, sent - received
	}
}

// routeDeletions records deletions of routes on a machine until stop.
func routeDeletions(t *testing.T, l *lab.Lab, where string) (stop func() []string) {
	t.Helper()
	var out bytes.Buffer
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "ip", "monitor", "route")
	cmd.Stdout = &out
	done := make(chan error, 1)
	go func() { done <- l.Exec(where, cmd) }()
	return func() (deleted []string) {
		cancel()
		<-done
		for line := range strings.Lines(out.String()) {
			if strings.Contains(line, "Deleted") {
				deleted = append(deleted, strings.TrimSpace(line))
			}
		}
		return deleted
	}
}

func dualToR(t *testing.T) *topology.Topology {
	t.Helper()
	topo, err := topology.Load(filepath.Join("..", "lab", "topologies", "dual-tor.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return topo
}
