package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/koratnet/korat/e2e/lab"
	"github.com/koratnet/korat/e2e/lab/kubelet"
	"github.com/koratnet/korat/e2e/lab/matrix"
)

// pinger is a ping of 100 a second that runs until it is stopped.
type pinger struct {
	what string
	out  bytes.Buffer
	cmd  *exec.Cmd
	done chan error
}

func (s *story) startPing(from, to matrix.End) *pinger {
	p := &pinger{what: from.Name + " to " + to.Name, done: make(chan error, 1)}
	p.cmd = exec.Command("ping", "-n", "-i", "0.01", to.Addr.String())
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	go func() { p.done <- s.lab.Exec(from.Name, p.cmd) }() // ends with stop
	return p
}

var pingReply = regexp.MustCompile(`icmp_seq=(\d+) ttl=`)

// stop ends the ping and returns how many were answered, with an error when an
// answer is missing before the last one, or came twice. The answers to requests
// that were under way when it ends are not waited for.
func (p *pinger) stop() (answered int, err error) {
	if p.cmd.Process == nil {
		return 0, fmt.Errorf("%s: %w", p.what, <-p.done)
	}
	p.cmd.Process.Signal(unix.SIGINT)
	<-p.done
	seen := map[int]int{}
	last := 0
	for _, m := range pingReply.FindAllStringSubmatch(p.out.String(), -1) {
		n, _ := strconv.Atoi(m[1])
		seen[n]++
		last = max(last, n)
	}
	if last == 0 {
		return 0, fmt.Errorf("%s: ping says %q", p.what, p.out.String())
	}
	var wrong []string
	for n := 1; n <= last; n++ {
		if seen[n] != 1 {
			wrong = append(wrong, fmt.Sprintf("%d %d times", n, seen[n]))
		}
	}
	if len(wrong) > 0 {
		return len(seen), fmt.Errorf("%s: of %d pings these were answered: %s", p.what, last, strings.Join(wrong, ", "))
	}
	return last, nil
}

// killAgent kills the agent of a1 and starts it again after a while, as its
// supervisor would.
func (s *story) killAgent(ctx context.Context) {
	const node, gap, before = "a1", 3 * time.Second, time.Second
	web, api := s.end("shop/web"), s.end("shop/api")
	watches := map[string]*lab.RouteWatch{}
	for _, m := range []string{node, "a2", "b1", "tor-a", "tor-b"} {
		w, err := s.lab.WatchRoutes(m)
		if err != nil {
			s.check("watch the routes of "+m, err)
			return
		}
		watches[m] = w
	}
	pings := []*pinger{s.startPing(web, api), s.startPing(api, web)}
	wait(ctx, before)
	old, _ := s.lab.AgentPID(node)
	err := s.lab.KillAgent(ctx, node)
	s.check(fmt.Sprintf("the agent of %s, process %d, is killed", node, old), err)
	wait(ctx, gap)
	s.check(fmt.Sprintf("%s later it is started, and is ready", gap), s.lab.StartAgent(ctx, node))
	s.within(ctx, 30*time.Second, "its sessions are established again", s.lab.WaitToRs)
	wait(ctx, before)
	for _, p := range pings {
		sent, err := p.stop()
		s.check(fmt.Sprintf("%d pings from %s, 100 a second: none lost", sent, p.what), err)
	}
	for _, m := range []string{node, "a2", "b1", "tor-a", "tor-b"} {
		var err error
		if events := watches[m].Stop(); len(events) > 0 {
			err = errors.New(strings.Join(events, ", "))
		}
		s.check(fmt.Sprintf("%-5s no route for pods was removed or replaced", m), err)
	}
	_, err = s.kubectl(ctx, podManifest("guest", "dot", node), "apply", "-f", "-")
	if err == nil {
		_, err = s.kubectl(ctx, "", "wait", "--for=condition=Ready", "pod/dot", "-n", "guest", "--timeout=30s")
	}
	s.check("the new agent connects a new pod", err)
	s.check("agents are small: each under 60 MB resident", s.agentsSmall())
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// agentsSmall reads what the kernel says about the agents' memory.
func (s *story) agentsSmall() error {
	const limit = 60 << 20
	var big []string
	var all []string
	for _, n := range s.lab.Topology.Nodes() {
		pid, err := s.lab.AgentPID(n.Name)
		if err != nil {
			return err
		}
		var pages, resident int
		statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
		if err != nil {
			return err
		}
		fmt.Sscan(string(statm), &pages, &resident)
		text := fmt.Sprintf("%s %.1f MB", n.Name, float64(resident*os.Getpagesize())/(1<<20))
		all = append(all, text)
		if resident*os.Getpagesize() > limit {
			big = append(big, text)
		}
	}
	s.show("agents: " + strings.Join(all, ", "))
	if len(big) > 0 {
		return errors.New(strings.Join(big, ", "))
	}
	return nil
}

// withoutAPI starts a pod from a manifest on a node while there is no API server.
func (s *story) withoutAPI(ctx context.Context) {
	const node, pod = "b2", "default/still-b2"
	s.check("API server, etcd and controllers are stopped", s.lab.StopAPI(ctx))
	manifests := s.lab.Machine(node).Path(kubelet.ManifestsDir)
	text := fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: still}\nspec:\n  containers: [{name: main, image: whoami, ports: [{containerPort: %d}]}]\n", port)
	err := os.MkdirAll(manifests, 0o755)
	if err == nil {
		err = os.WriteFile(filepath.Join(manifests, "still.yaml"), []byte(text), 0o644)
	}
	var addr netip.Addr
	if err == nil {
		err = lab.Eventually(ctx, func(context.Context) error {
			p, err := s.lab.Pod(pod)
			if err == nil && len(p.Addresses) == 0 {
				err = fmt.Errorf("%s has no address yet", pod)
			}
			if err == nil {
				addr = p.Addresses[0]
			}
			return err
		})
	}
	s.check("a pod from a manifest on b2 gets its network all the same", err)
	still := matrix.End{Name: pod, Addr: addr}
	s.within(ctx, settle, "pods of both racks reach it", func(ctx context.Context) error {
		return probes[1].All(ctx, s.lab, []matrix.Pair{{From: s.end("shop/web"), To: still}, {From: s.end("guest/bob"), To: still}})
	})
	s.check("the API server is started again", s.lab.StartAPI(ctx))
	s.within(ctx, 60*time.Second, "it shows the pod, with the address it got", func(ctx context.Context) error {
		var p corev1.Pod
		if err := s.lab.Client.Get(ctx, types.NamespacedName{Namespace: "default", Name: "still-b2"}, &p); err != nil {
			return err
		}
		if p.Status.PodIP != addr.String() {
			return fmt.Errorf("its podIP is %q", p.Status.PodIP)
		}
		return nil
	})
}

// deletion deletes a pod of each rack and looks for what is left.
func (s *story) deletion(ctx context.Context) {
	web, api := s.end("shop/web"), s.end("shop/api")
	watch, err := s.lab.WatchRoutes("tor-b")
	if err != nil {
		s.check("watch the routes of tor-b", err)
		return
	}
	_, err = s.kubectl(ctx, "", "delete", "pod", "-n", "shop", "web", "api", "--timeout=60s")
	s.check("shop/web on a1 and shop/api on b1 are deleted with kubectl", err)
	s.within(ctx, settle, "their nodes have no route and no interface of theirs any more", func(context.Context) error {
		return errors.Join(s.wantNoRoute("a1", web.Addr), s.wantNoRoute("b1", api.Addr))
	})
	s.within(ctx, settle, "the /32 of shop/api is gone from both routers and every node", func(context.Context) error {
		for _, m := range []string{"tor-a", "tor-b", "a1", "a2", "b1", "b2"} {
			if err := s.wantNoRoute(m, api.Addr); err != nil {
				return err
			}
		}
		return nil
	})
	events := watch.Stop()
	err = nil
	if !slices.Contains(events, "deleted "+host(api.Addr).String()) {
		err = fmt.Errorf("it saw %v", events)
	}
	s.check("the route monitor, which saw nothing when the agent was killed, saw that at tor-b", err)
	s.within(ctx, settle, "nobody answers at their addresses", func(ctx context.Context) error {
		probe := matrix.Probe{Protocol: "tcp", Port: port, Wait: 500 * time.Millisecond}
		from := s.end("guest/ann")
		return probe.As(ctx, s.lab, []matrix.Pair{{From: from, To: web}, {From: from, To: api}}, func(matrix.Pair) bool { return false })
	})
	s.within(ctx, settle, "the other pods still reach each other", func(ctx context.Context) error {
		rest := []matrix.End{s.end("shop/db"), s.end("guest/ann"), s.end("guest/bob"), s.end("guest/cid")}
		return probes[1].All(ctx, s.lab, matrix.Pairs(rest))
	})
}
