package suite

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/e2e/lab"
)

// routerDiesSilently lets one of two routers of rack a vanish with all links up.
// BFD notices, on the nodes and on the router of the other rack, and every flow goes
// on, long before the hold time of BGP, which is 90 s. How long each waited is told; a
// flow that needs no router shows what of it is a busy machine's.
func routerDiesSilently(t *testing.T, l *lab.Lab) {
	t.Helper()
	const victim = "tor-a1"
	to := running(t, l, "ecmp/q")
	for n := range 4 {
		start(t, l, podOn("a1", "ecmp", fmt.Sprint("flow", n), nil))
	}
	near := start(t, l, podOn("a2", "ecmp", "near", nil))
	for _, node := range []string{"a1", "a2"} {
		bfdUp(t, l, node, 2)
	}
	flows := []*flow{pingFlow(t, l, "ecmp/flow0", near)}
	for n := range 4 {
		flows = append(flows, pingFlow(t, l, fmt.Sprint("ecmp/flow", n), to))
	}
	heardSince(t, flows, time.Now())
	silent(t, l, victim, "-I")
	eventually(t, "route around "+victim, func(ctx context.Context) error {
		out, err := try(ctx, l, "a1", "ip", "route", "show", to.String())
		if err != nil || strings.Contains(out, "nexthop") || !strings.Contains(out, "via") {
			return fmt.Errorf("route is %q: %w", out, err)
		}
		return nil
	})
	heardSince(t, flows, time.Now())
	var worst time.Duration
	for _, f := range flows[1:] {
		worst = max(worst, f.stop())
	}
	t.Logf("%s died: no packet for %s, inside the rack for %s", victim, worst, flows[0].stop())
	silent(t, l, victim, "-D")
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

// flow is an endless ping, 100 times a second.
type flow struct {
	name string
	end  func()

	mu       sync.Mutex // guards the rest
	line     []byte     // of which the end has not come yet
	last     time.Time  // of an answer
	longest  time.Duration
	answered map[int]struct{} // numbers of packets
	highest  int              // of them
}

// pingFlow begins a flow, with more options of ping.
func pingFlow(t *testing.T, l *lab.Lab, from string, to netip.Addr, options ...string) *flow {
	t.Helper()
	f := &flow{name: from + " to " + to.String(), answered: map[int]struct{}{}}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "ping", append(options, "-n", "-i", "0.01", to.String())...)
	cmd.Stdout = f
	done := make(chan error, 1)
	go func() { done <- l.Exec(from, cmd) }()
	f.end = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(f.end)
	return f
}

// Write takes in what ping prints: a line an answer.
func (f *flow) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.line = append(f.line, p...)
	for {
		line, rest, whole := bytes.Cut(f.line, []byte("\n"))
		if !whole {
			return len(p), nil
		}
		f.line = rest
		if _, after, is := bytes.Cut(line, []byte("icmp_seq=")); is && bytes.Contains(line, []byte("bytes from")) {
			var n uint16
			_, _ = fmt.Sscan(string(after), &n)
			f.hear(n)
		}
	}
}

// hear takes in an answer with the number that fits into its packet.
func (f *flow) hear(n uint16) {
	number := f.highest + int(int16(n-uint16(f.highest)))
	f.answered[number] = struct{}{}
	f.highest = max(f.highest, number)
	now := time.Now()
	if !f.last.IsZero() {
		f.longest = max(f.longest, now.Sub(f.last))
	}
	f.last = now
}

// count returns how many packets were sent before the last that was answered, and
// which of them were not.
func (f *flow) count() (sent int, lost []int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for n := 1; n < f.highest; n++ {
		if _, answered := f.answered[n]; !answered {
			lost = append(lost, n)
		}
	}
	return f.highest, lost
}

// stop ends the flow and returns for how long it heard nothing at most.
func (f *flow) stop() time.Duration {
	f.end()
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.longest
}

// heardSince waits until every flow has an answer that came after t0.
func heardSince(t *testing.T, flows []*flow, t0 time.Time) {
	t.Helper()
	eventually(t, "answers of all flows", func(context.Context) error {
		for _, f := range flows {
			f.mu.Lock()
			last := f.last
			f.mu.Unlock()
			if !last.After(t0) {
				return fmt.Errorf("%s: last answer at %s", f.name, last)
			}
		}
		return nil
	})
}
