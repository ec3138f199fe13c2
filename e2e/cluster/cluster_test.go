package cluster_test

import (
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/koratnet/korat/e2e/cluster"
	"github.com/koratnet/korat/e2e/lab"
	"github.com/koratnet/korat/e2e/lab/machine"
)

// bin is where `make cluster-build` puts what a cluster is made of.
const bin = "../../bin"

// newest is the image that every cluster has.
const newest = bin + "/cluster-images/korat.tar"

func down(t *testing.T, o cluster.Options) {
	t.Helper()
	if err := cluster.Down(context.WithoutCancel(t.Context()), o); err != nil {
		t.Error(err)
	}
	if err := cluster.Leftovers(o); err != nil {
		t.Error(err)
	}
}

func TestPodsOfTwoRacksReachEachOtherAndNothingIsLeft(t *testing.T) {
	o := cluster.Options{Name: "tcluster", Bin: bin, Nodes: 2, Progress: t.Output()}
	down(t, o)
	t.Cleanup(func() { down(t, o) })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()

	start := time.Now()
	c, err := cluster.Up(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	up := time.Since(start)
	if err := c.Install(ctx, imageTag(t, newest)); err != nil {
		t.Fatal(err)
	}
	t.Logf("up in %s, every node Ready %s later", up.Round(time.Second/10), (time.Since(start) - up).Round(time.Second/10))

	a, b := runPod(ctx, t, c, "a1"), runPod(ctx, t, c, "b1")
	ping(ctx, t, c, "a1", a, b)
	ping(ctx, t, c, "b1", b, a)
}

// imageTag is that of the image in an archive.
func imageTag(t *testing.T, archive string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "tar", "-xOf", archive, "index.json").Output()
	if err != nil {
		t.Fatalf("image %s, which make cluster-test makes: %v", archive, err)
	}
	_, tag, _ := strings.Cut(string(out), `"org.opencontainers.image.ref.name":"`)
	tag, _, _ = strings.Cut(tag, `"`)
	return tag
}

// runPod starts a pod on the node and returns its address.
func runPod(ctx context.Context, t *testing.T, c *cluster.Cluster, node string) netip.Addr {
	t.Helper()
	return running(ctx, t, c, startPod(ctx, t, c, node))
}

// startPod makes a pod on the node and returns its name.
func startPod(ctx context.Context, t *testing.T, c *cluster.Cluster, node string) string {
	t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "pod-" + node},
		Spec: corev1.PodSpec{
			NodeName: node, TerminationGracePeriodSeconds: new(int64),
			Containers:  []corev1.Container{{Name: "c", Image: "registry.k8s.io/pause:3.10.1"}},
			Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
		},
	}
	err := lab.Eventually(ctx, func(ctx context.Context) error { return c.Apply(ctx, pod) })
	if err != nil {
		t.Fatal(err)
	}
	return pod.Name
}

// running waits until a pod runs and returns its address.
func running(ctx context.Context, t *testing.T, c *cluster.Cluster, name string) (address netip.Addr) {
	t.Helper()
	err := lab.Eventually(ctx, func(ctx context.Context) error {
		var p corev1.Pod
		if err := c.Client.Get(ctx, types.NamespacedName{Namespace: "default", Name: name}, &p); err != nil {
			return err
		}
		if p.Status.Phase != corev1.PodRunning {
			return fmt.Errorf("pod %s: %s", p.Name, p.Status.Phase)
		}
		var err error
		address, err = netip.ParseAddr(p.Status.PodIP)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return address
}

// ping goes from the pod that has the address from on the node.
func ping(ctx context.Context, t *testing.T, c *cluster.Cluster, node string, from, to netip.Addr) {
	t.Helper()
	netns, err := c.PodNetns(ctx, node, from)
	if err != nil {
		t.Fatal(err)
	}
	err = lab.Eventually(ctx, func(ctx context.Context) error {
		return machine.InNetns(netns, exec.CommandContext(ctx, "ping", "-c", "1", "-W", "2", to.String()).Run)
	})
	if err != nil {
		t.Errorf("ping from %s on %s to %s: %v", from, node, to, err)
	}
}

func TestDownAfterAnUpThatWasBrokenOff(t *testing.T) {
	o := cluster.Options{Name: "tbroken", Bin: bin, Nodes: 1, Progress: t.Output()}
	down(t, o)
	t.Cleanup(func() { down(t, o) })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	// Broken off when the machines are there and the control plane starts.
	o.Progress = onLine(func(line string) {
		if strings.Contains(line, "machines") {
			cancel()
		}
	})
	if _, err := cluster.Up(ctx, o); err == nil {
		t.Error("up says that all is well")
	}
	if err := cluster.Leftovers(o); err == nil {
		t.Error("nothing is there of a cluster that was broken off: this test tests nothing")
	}
}

type onLine func(string)

func (f onLine) Write(b []byte) (int, error) {
	f(string(b))
	return len(b), nil
}
