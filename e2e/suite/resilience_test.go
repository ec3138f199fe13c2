package suite

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/e2e/lab"
)

// deadAfter is in how much time traffic is to flow around a router that died.
const deadAfter = time.Second

// routerDiesSilently lets one of two routers of rack a vanish with all links up.
// BFD notices, on the nodes and on the router of the other rack. On a machine that
// is busy with other things a try may take longer, so there are three, and what a
// flow that needs no router waits meanwhile does not count.
func routerDiesSilently(t *testing.T, l *lab.Lab) {
	t.Helper()
	to := running(t, l, "ecmp/q")
	for n := range 4 {
		start(t, l, podOn("a1", "ecmp", fmt.Sprint("flow", n), nil))
	}
	near := start(t, l, podOn("a2", "ecmp", "near", nil))
	var worst time.Duration
	for attempt := range 3 {
		for _, node := range []string{"a1", "a2"} {
			bfdUp(t, l, node, 2)
		}
		victim := []string{"tor-a1", "tor-a2"}[attempt%2]
		worst = 0
		var stops []func() time.Duration
		for n := range 4 {
			stops = append(stops, outage(t, l, fmt.Sprint("ecmp/flow", n), to))
		}
		stopNear := outage(t, l, "ecmp/flow0", near)
		silent(t, l, victim, "-I")
		eventually(t, "route around "+victim, func(ctx context.Context) error {
			out, err := try(ctx, l, "a1", "ip", "route", "show", to.String())
			if err != nil || strings.Contains(out, "nexthop") || !strings.Contains(out, "via") {
				return fmt.Errorf("route is %q: %w", out, err)
			}
			return nil
		})
		for _, stop := range stops {
			worst = max(worst, stop())
		}
		busy := stopNear()
		silent(t, l, victim, "-D")
		t.Logf("%s died: no packet for %s, inside the rack for %s", victim, worst, busy)
		if worst -= busy; worst < deadAfter {
			return
		}
	}
	t.Errorf("a router that died was routed around after %s, want %s", worst, deadAfter)
}

// silent makes a router lose all packets ("-I"), or no more ("-D").
func silent(t *testing.T, l *lab.Lab, router, op string) {
	t.Helper()
	for _, chain := range []string{"OUTPUT", "PREROUTING"} {
		sh(t, l, router, "iptables", "-w", "-t", "raw", op, chain, "-j", "DROP")
	}
}

// bfdUp waits until a node tells of n sessions that are up with BFD.
func bfdUp(t *testing.T, l *lab.Lab, node string, n int) {
	t.Helper()
	eventually(t, "BFD of "+node, func(ctx context.Context) error {
		var nn koratv1.NodeNetwork
		if err := l.Client.Get(ctx, client.ObjectKey{Name: node}, &nn); err != nil {
			return err
		}
		up := 0
		for _, s := range nn.Status.Sessions {
			if s.BFD == "Up" {
				up++
			}
		}
		if up != n {
			return fmt.Errorf("%d of %d are up: %+v", up, n, nn.Status.Sessions)
		}
		return nil
	})
}

// outage pings 100 times a second from a pod until stop, which returns how long no
// answer came at most.
func outage(t *testing.T, l *lab.Lab, from string, to netip.Addr) (stop func() time.Duration) {
	t.Helper()
	var out bytes.Buffer
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "ping", "-D", "-n", "-i", "0.01", to.String())
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // it prints what it has
	cmd.Stdout = &out
	done := make(chan error, 1)
	go func() { done <- l.Exec(from, cmd) }()
	return func() (longest time.Duration) {
		cancel()
		<-done
		var last float64
		for line := range strings.Lines(out.String()) {
			var at float64
			if _, err := fmt.Sscanf(line, "[%f]", &at); err != nil || !strings.Contains(line, "bytes from") {
				continue
			}
			if last != 0 {
				longest = max(longest, time.Duration((at-last)*float64(time.Second)))
			}
			last = at
		}
		if last == 0 {
			t.Errorf("%s heard nothing from %s: %s", from, to, out.String())
		}
		return longest
	}
}

// Item 75, 1,000 packets a second in all: agents and speakers are killed, every node in turn and each of them twice
// within the restart time, and no packet between the racks is lost.
func TestItem75RollingRestartOfAllNodesLosesNoPacket(t *testing.T) {
	namespace(t, cluster, "rolling")
	addr := map[string]netip.Addr{}
	for _, node := range []string{"a1", "a2", "b1", "b2"} {
		addr[node] = start(t, cluster, podOn(node, "rolling", node, nil))
	}
	ways := map[string]string{"a1": "b1", "b1": "a1", "a2": "b2", "b2": "a2"}
	for from, to := range ways {
		eventually(t, "path from "+from, func(context.Context) error { return reach(cluster, "rolling/"+from, addr[to]) })
	}
	stops := map[string]func() (sent, lost int){}
	for from, to := range ways {
		stops[from] = pingsEvery(t, cluster, 4*time.Millisecond, "rolling/"+from, addr[to])
	}
	for _, node := range []string{"a1", "a2", "b1", "b2"} {
		for range 2 {
			killed := time.Now()
			if err := cluster.KillAgent(t.Context(), node); err != nil {
				t.Fatal(err)
			}
			// The speaker of the killed agent lives on until now.
			sh(t, cluster, node, "pkill", "-KILL", "-f", "korat speaker")
			if err := cluster.StartAgent(t.Context(), node); err != nil {
				t.Fatal(err)
			}
			eventually(t, "sessions of "+node, func(ctx context.Context) error { return upSince(ctx, node, killed, neighboursOf(node)) })
		}
	}
	for name, stop := range stops {
		if sent, lost := stop(); lost != 0 || sent < 1000 {
			t.Errorf("from %s: %d of %d packets lost", name, lost, sent)
		}
	}
}

// neighboursOf are the router and the other node of a node's rack.
func neighboursOf(node string) []string {
	return map[string][]string{
		"a1": {"10.101.0.1", "10.101.0.12"}, "a2": {"10.101.0.1", "10.101.0.11"},
		"b1": {"10.102.0.1", "10.102.0.12"}, "b2": {"10.102.0.1", "10.102.0.11"},
	}[node]
}
