// Package measure takes the figures of a network as its users see them, in a
// cluster with real kubelets: how long a policy takes from its creation until it
// is in force, how long a pod takes until it is Ready, what an agent holds in
// memory. It works from outside and knows nothing of how the network is made.
package measure

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/koratnet/korat/e2e/cluster"
	"github.com/koratnet/korat/e2e/lab"
)

// Config says how much is measured.
type Config struct {
	// Rounds is how often each time is taken; the median counts.
	Rounds int
	// Policies is how many others there are in the second half, on Pods pods.
	Policies, Pods int
}

// DefaultConfig is what figures in the documentation come from.
var DefaultConfig = Config{Rounds: 15, Policies: 1000, Pods: 20}

const namespace = "measure"

type run struct {
	*cluster.Cluster
	Config
	out io.Writer
}

// Run measures and prints a line for each figure. It leaves nothing behind.
func Run(ctx context.Context, c *cluster.Cluster, cfg Config, out io.Writer) error {
	r := &run{Cluster: c, Config: cfg, out: out}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}
	if err := c.Client.Create(ctx, ns); err != nil {
		return err
	}
	err := r.all(ctx)
	return errors.Join(err, c.Client.Delete(context.WithoutCancel(ctx), ns))
}

func (r *run) all(ctx context.Context) error {
	nodes := r.Topology.Nodes()
	if len(nodes) < 2 {
		return errors.New("measure: want two nodes")
	}
	if err := r.beside(ctx, nodes[0].Name, nodes[1].Name); err != nil {
		return err
	}
	var ends [2]pod
	for i := range ends {
		var err error
		if ends[i], err = r.startProbe(ctx, nodes[i].Name); err != nil {
			return err
		}
	}
	from, to := ends[0], ends[1]
	if err := r.times(ctx, from, to, 0); err != nil {
		return err
	}
	for i := range r.Pods {
		name := fmt.Sprintf("load-%d", i)
		if _, err := r.startPod(ctx, name, nodes[i%2].Name, map[string]string{"load": fmt.Sprint(i)}); err != nil {
			return err
		}
	}
	for i := range r.Policies {
		if err := r.Client.Create(ctx, r.loadPolicy(i)); err != nil {
			return err
		}
	}
	return r.times(ctx, from, to, r.Policies)
}

// loadPolicy is one of many: it lets one prefix to one port of one pod.
func (r *run) loadPolicy(i int) *networkingv1.NetworkPolicy {
	block := fmt.Sprintf("10.%d.%d.0/24", 200+i/250, i%250)
	return &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprintf("load-%d", i)},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"load": fmt.Sprint(i % r.Pods)}},
			Ingress: []networkingv1.NetworkPolicyIngressRule{{
				From: []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: block}}},
			}},
		},
	}
}

func (r *run) times(ctx context.Context, from, to pod, policies int) error {
	var enforced, ready []time.Duration
	for i := range r.Rounds {
		d, err := r.enforce(ctx, from, to)
		if err != nil {
			return err
		}
		enforced = append(enforced, d)
		name := fmt.Sprintf("ready-%d-%d", policies, i)
		if d, err = r.startPod(ctx, name, from.node, nil); err != nil {
			return err
		}
		ready = append(ready, d)
	}
	with := fmt.Sprintf("%4d other policies: ", policies)
	r.report(with+"policy created to in force", enforced)
	r.report(with+"pod created to Ready", ready)
	for _, n := range r.Topology.Nodes() {
		for _, part := range []string{"agent", "speaker"} {
			kb, err := r.resident(n.Name, part)
			if err != nil {
				return err
			}
			fmt.Fprintf(r.out, "%s%s resident on %s: %d MB\n", with, part, n.Name, kb/1024)
		}
	}
	return nil
}

func (r *run) report(what string, times []time.Duration) {
	slices.Sort(times)
	fmt.Fprintf(r.out, "%s: median %s, best %s, worst %s\n", what,
		times[len(times)/2].Round(time.Millisecond), times[0].Round(time.Millisecond), times[len(times)-1].Round(time.Millisecond))
}

// pod is one end of what enforce measures.
type pod struct {
	name, node string
	addr       netip.Addr
	netns      string // path on this machine
}

// probeLabel has a probe's own name as value.
const probeLabel = "probe"

func (r *run) startProbe(ctx context.Context, node string) (pod, error) {
	p := pod{name: "probe-" + node, node: node}
	if _, err := r.startPod(ctx, p.name, node, map[string]string{probeLabel: p.name}); err != nil {
		return p, err
	}
	var o corev1.Pod
	err := r.Client.Get(ctx, types.NamespacedName{Namespace: namespace, Name: p.name}, &o)
	if err != nil {
		return p, err
	}
	if p.addr, err = netip.ParseAddr(o.Status.PodIP); err != nil {
		return p, fmt.Errorf("pod %s: %w", p.name, err)
	}
	p.netns, err = r.PodNetns(ctx, node, p.addr)
	return p, err
}

// startPod returns how long the pod took from its creation until it was Ready.
func (r *run) startPod(ctx context.Context, name, node string, labels map[string]string) (time.Duration, error) {
	o := r.pod(name, node, labels)
	start, err := r.create(ctx, o)
	if err != nil {
		return 0, err
	}
	err = r.ready(ctx, o)
	return time.Since(start), err
}

// pod is one that does nothing, on the node.
func (r *run) pod(name, node string, labels map[string]string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: labels},
		Spec: corev1.PodSpec{
			NodeName: node, TerminationGracePeriodSeconds: new(int64),
			Containers: []corev1.Container{{Name: "c", Image: "registry.k8s.io/pause:3.10.1"}},
		},
	}
}

// create returns when the API server was asked for the pod that is there now. A
// new namespace needs its service account first.
func (r *run) create(ctx context.Context, o *corev1.Pod) (start time.Time, err error) {
	err = lab.Eventually(ctx, func(ctx context.Context) error {
		start = time.Now()
		return r.Client.Create(ctx, o)
	})
	return start, err
}

// ready waits until the pod is Ready and reads it.
func (r *run) ready(ctx context.Context, o *corev1.Pod) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := r.Client.Get(ctx, client.ObjectKeyFromObject(o), o); err != nil {
			return err
		}
		for _, c := range o.Status.Conditions {
			if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("pod %s is not Ready: %w", o.Name, ctx.Err())
		case <-tick.C:
		}
	}
}

// resident returns the resident memory of Korat's part on the node, in KiB.
func (r *run) resident(node, part string) (int, error) {
	status, err := filepath.Glob(r.Machine(node).Path("/proc/[0-9]*/status"))
	if err != nil {
		return 0, err
	}
	for _, path := range status {
		cmdline, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline")) // the process may have ended
		args := strings.Split(string(cmdline), "\x00")
		if len(args) < 2 || !strings.HasSuffix(args[0], "/korat") || args[1] != part {
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return 0, err
		}
		_, rest, _ := strings.Cut(string(text), "VmRSS:")
		var kb int
		if _, err := fmt.Sscan(rest, &kb); err != nil {
			return 0, fmt.Errorf("memory of the %s on %s: %w", part, node, err)
		}
		return kb, nil
	}
	return 0, fmt.Errorf("no %s runs on %s", part, node)
}
