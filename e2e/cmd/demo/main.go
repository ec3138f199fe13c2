// Command demo tells what Korat does on a cluster that it makes for the
// purpose: two racks on this machine, in namespaces. Every line that starts
// with "ok" or "FAIL" is a check, the last line counts them, and the exit code
// is 0 when none failed. With KEEP=1 in the environment the lab stays up, and
// LAB=dual-stack or LAB=ipv6 makes one of other families of addresses.
// BACKEND=NFTables or IPTables chooses the data plane, ENCAP=VXLAN, VXLANCrossSubnet,
// IPIP or IPIPCrossSubnet what packets between nodes travel in, ENCRYPTION=Preferred
// or Required whether they are encrypted. PATIENCE=8 waits eight times as long for
// everything, on a machine that is as much slower, and SCENES=5 ends after the fifth
// scene.
package main

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/e2e/lab"
)

// labName keeps the demo's lab apart from one that somebody works with.
const labName = "demo"

// upTimeout is for a machine whose two cores are busy; an idle one takes 15 seconds.
const upTimeout = 3 * time.Minute

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	bin := filepath.Dir(self)
	plan, err := lab.Topology(cmp.Or(os.Getenv("LAB"), "default"))
	if err != nil {
		return fmt.Errorf("LAB: %w", err)
	}
	o := lab.Options{Name: labName, Bin: bin, Self: filepath.Join(bin, "lab"), Topology: plan, Progress: os.Stdout}
	keep := os.Getenv("KEEP") == "1"
	if err := lab.Down(ctx, o); err != nil { // of a demo that was kept or killed
		return err
	}
	s := &story{out: os.Stdout, bin: bin, patience: 1, scenes: math.MaxInt}
	for name, number := range map[string]*int{"PATIENCE": &s.patience, "SCENES": &s.scenes} {
		if text := os.Getenv(name); text != "" {
			if *number, err = strconv.Atoi(text); err != nil || *number < 1 {
				return fmt.Errorf("%s: %q: want a number from 1 on", name, text)
			}
		}
	}
	l, err := s.up(ctx, o)
	s.lab = l
	s.check("the lab is up: machines, routers, control plane, agents", err)
	if err == nil {
		s.tell(ctx)
	}
	if keep {
		s.farewell()
	} else {
		err := lab.Down(context.WithoutCancel(ctx), o)
		if err == nil {
			err = lab.Leftovers(o)
		}
		s.check("the lab is taken down and leaves no namespace, process or file behind", err)
	}
	fmt.Printf("demo: %d passed, %d failed\n", s.passed, s.failed)
	if s.failed > 0 {
		os.Exit(1)
	}
	return nil
}

func (s *story) up(ctx context.Context, o lab.Options) (*lab.Lab, error) {
	ctx, cancel := context.WithTimeout(ctx, s.patient(upTimeout))
	defer cancel()
	return lab.Up(ctx, o)
}

// tell runs the scenes in order. Later ones build on earlier ones, but each
// check stands for itself.
func (s *story) tell(ctx context.Context) {
	for i, scene := range []struct {
		title string
		play  func(context.Context)
	}{
		{"The cluster: nodes, routers, sessions", s.cluster},
		{"The data plane", s.dataPlane},
		{"What packets between nodes travel in", s.encapsulation},
		{"Six pods in two namespaces", s.pods},
		{"Every pod reaches every pod, seen under its own address", s.connectivity},
		{"The way of a packet, hop by hop", s.paths},
		{"What the routers know: blocks in rack a, pods in rack b", s.tables},
		{"A host outside of the cluster", s.outside},
		{"NetworkPolicy: what opens and closes is what policy/eval predicts", s.policy},
		{"An agent is killed with SIGKILL while pings run", s.killAgent},
		{"The API server is stopped", s.withoutAPI},
		{"Pods are deleted", s.deletion},
	} {
		if ctx.Err() != nil || i >= s.scenes {
			break
		}
		fmt.Fprintf(s.out, "\n== %s\n", scene.title)
		limited, cancel := context.WithTimeout(ctx, s.patient(2*time.Minute))
		scene.play(limited)
		cancel()
	}
	fmt.Fprintln(s.out)
}

func (s *story) farewell() {
	kubectl := "kubectl"
	if _, err := exec.LookPath(kubectl); err != nil {
		kubectl = filepath.Join(s.bin, "controlplane") + " kubectl"
	}
	fmt.Fprintln(s.out, strings.NewReplacer(
		"KUBECONFIG", "KUBECONFIG="+s.lab.Kubeconfig(),
		"KUBECTL", kubectl,
		"BIN", s.bin,
		"BOB", s.end("guest/bob").Addr.String(),
	).Replace(`The lab stays up. In another terminal:

  export KUBECONFIG
  alias lab='BIN/lab --name demo'

  KUBECTL get ippools,blocks,nodenetworks,bgppeers
  KUBECTL run hello --image=whoami --port=8080    # any pod tells you who it is and whom it sees
  lab status                                      # machines, processes, sessions, pods
  lab exec outside curl -s http://BOB:8080
  lab exec guest/ann traceroute -n BOB
  lab exec tor-a vtysh -c 'show bgp ipv4 unicast'
  lab exec tor-b birdc show route
  lab exec a1 ip route
  lab kill-agent a1                               # traffic goes on; lab start-agent a1
  lab down                                        # when you are done
`))
}
