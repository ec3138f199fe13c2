package lab_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/koratnet/korat/e2e/lab"
	"github.com/koratnet/korat/e2e/lab/kubelet"
	"github.com/koratnet/korat/e2e/lab/matrix"
	"github.com/koratnet/korat/e2e/lab/topology"
)

// bin has the binaries that `make lab-build` makes.
const bin = "../../bin"

// whole brings up a lab with everything, of the topology file.
func whole(t *testing.T, name, file string) cluster {
	t.Helper()
	top, err := topology.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	o := lab.Options{Name: name, State: filepath.Join(t.TempDir(), "lab"), Topology: top, Bin: bin, Self: self}
	t.Cleanup(func() {
		if err := lab.Down(context.Background(), o); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	l, err := lab.Up(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	return cluster{l}
}

func TestPodsOfTwoFamiliesReachEachOtherOverBoth(t *testing.T) {
	c := whole(t, "tdualstack", "topologies/dual-stack.yaml")
	c.create(t, pod("p", "a1", nil), pod("q", "b2", nil))
	for i := range 2 {
		ends := []matrix.End{{Name: "outside", Addr: c.Topology.Hosts[0].Address(i == 1).Addr()}}
		for _, name := range []string{"p", "q"} {
			ips := c.ready(t, name).Status.PodIPs
			if len(ips) != 2 {
				t.Fatalf("%s has %v", name, ips)
			}
			ends = append(ends, matrix.End{Name: "default/" + name, Addr: netip.MustParseAddr(ips[i].IP)})
		}
		// Nobody serves on the host outside, so it only asks.
		pairs := slices.DeleteFunc(matrix.Pairs(ends), func(p matrix.Pair) bool { return p.To.Name == "outside" })
		for _, proto := range []string{"tcp", "udp", "icmp"} {
			probe := matrix.Probe{Protocol: proto, Port: 80, Wait: time.Second}
			eventually(t, func(ctx context.Context) error { return probe.All(ctx, c.Lab, pairs) })
		}
	}
}

// TestNodeRunner goes through what a kubelet does, on one lab with the real
// agents. The cases stand in the order in which they disturb the node more.
func TestNodeRunner(t *testing.T) {
	c := whole(t, "trunner", "topologies/default.yaml")
	t.Run("pods answer under the address that their status shows", c.podsAnswer)
	t.Run("a pod of the host's network has the node's address", c.hostNetwork)
	t.Run("the scheduler places pods that name no node", c.scheduled)
	t.Run("a container that ends is started again", c.restarted)
	t.Run("a pod that cannot start says why, and starts when it can", c.saysWhy)
	t.Run("a new runner adopts pods and ends those deleted meanwhile", c.adopted)
	t.Run("a node that somebody deleted comes back", c.nodeComesBack)
	t.Run("manifests start without an API server", c.manifests)
	t.Run("another process opens the lab and sees the same", c.opened)
}

type cluster struct{ *lab.Lab }

// eventually waits up to 30 seconds for check to return nil.
func eventually(t *testing.T, check func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := lab.Eventually(ctx, check); err != nil {
		t.Fatal(err)
	}
}

func pod(name, node string, change func(*corev1.PodSpec)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}, Spec: corev1.PodSpec{
		NodeName:   node,
		Containers: []corev1.Container{{Name: "main", Image: "whoami", Ports: []corev1.ContainerPort{{ContainerPort: 80}, {ContainerPort: 80, Protocol: corev1.ProtocolUDP}}}},
	}}
	if change != nil {
		change(&p.Spec)
	}
	return p
}

func (c cluster) create(t *testing.T, pods ...*corev1.Pod) {
	t.Helper()
	for _, p := range pods {
		if err := c.Client.Create(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
}

// ready waits until the pod is Ready and returns it as the API server has it.
func (c cluster) ready(t *testing.T, name string) corev1.Pod {
	t.Helper()
	var p corev1.Pod
	eventually(t, func(ctx context.Context) error {
		if err := c.Client.Get(ctx, types.NamespacedName{Namespace: "default", Name: name}, &p); err != nil {
			return err
		}
		for _, x := range p.Status.Conditions {
			if x.Type == corev1.PodReady && x.Status == corev1.ConditionTrue {
				return nil
			}
		}
		return fmt.Errorf("pod %s is not ready: %+v", name, p.Status.ContainerStatuses)
	})
	return p
}

func (c cluster) gone(t *testing.T, name string) {
	t.Helper()
	eventually(t, func(ctx context.Context) error {
		err := c.Client.Get(ctx, types.NamespacedName{Namespace: "default", Name: name}, &corev1.Pod{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("pod %s is still there: %w", name, err)
	})
}

func (c cluster) remove(t *testing.T, pods ...*corev1.Pod) {
	t.Helper()
	for _, p := range pods {
		if err := client.IgnoreNotFound(c.Client.Delete(t.Context(), p)); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range pods {
		c.gone(t, p.Name)
	}
}

func (c cluster) end(t *testing.T, name string) matrix.End {
	t.Helper()
	p := c.ready(t, name)
	return matrix.End{Name: "default/" + name, Addr: netip.MustParseAddr(p.Status.PodIP)}
}

func (c cluster) podsAnswer(t *testing.T) {
	p, q := pod("p", "a1", nil), pod("q", "b2", nil)
	c.create(t, p, q)
	pairs := matrix.Pairs([]matrix.End{c.end(t, "p"), c.end(t, "q")})
	for _, proto := range []string{"tcp", "udp", "icmp"} {
		probe := matrix.Probe{Protocol: proto, Port: 80, Wait: time.Second}
		eventually(t, func(ctx context.Context) error { return probe.All(ctx, c.Lab, pairs) })
	}
	c.remove(t, p, q)
	if left, err := c.Pods(); err != nil || len(left) > 0 {
		t.Errorf("pods %v are left, %v", left, err)
	}
}

func (c cluster) hostNetwork(t *testing.T) {
	p := pod("host", "a2", func(s *corev1.PodSpec) { s.HostNetwork = true; s.Containers[0].Ports = nil })
	c.create(t, p)
	if got := c.ready(t, "host").Status.PodIP; got != "10.101.0.12" {
		t.Errorf("podIP is %s", got)
	}
	var out bytes.Buffer
	cmd := exec.Command("ip", "-o", "link", "show", "mgmt0")
	cmd.Stdout = &out
	if err := c.Exec("host", cmd); err != nil || !strings.Contains(out.String(), "mgmt0") {
		t.Errorf("it does not see the node's links: %v %s", err, out.String())
	}
	c.remove(t, p)
}

func (c cluster) scheduled(t *testing.T) {
	p := pod("anywhere", "", nil)
	c.create(t, p)
	if got := c.ready(t, "anywhere").Spec.NodeName; got == "" {
		t.Error("it is on no node")
	}
	c.remove(t, p)
}

func (c cluster) restarted(t *testing.T) {
	p := pod("ends", "a1", func(s *corev1.PodSpec) {
		s.Containers[0].Ports = nil
		s.Containers[0].Command = []string{"sh", "-c", "echo $WORD; sleep 0.2"}
		s.Containers[0].Env = []corev1.EnvVar{{Name: "WORD", Value: "hello"}}
	})
	c.create(t, p)
	eventually(t, func(ctx context.Context) error {
		if err := c.Client.Get(ctx, client.ObjectKeyFromObject(p), p); err != nil {
			return err
		}
		if s := p.Status.ContainerStatuses; len(s) != 1 || s[0].RestartCount < 2 {
			return fmt.Errorf("statuses are %+v", s)
		}
		return nil
	})
	c.remove(t, p)
}

func (c cluster) saysWhy(t *testing.T) {
	if err := c.KillAgent(t.Context(), "a2"); err != nil {
		t.Fatal(err)
	}
	p := pod("waits", "a2", nil)
	c.create(t, p)
	eventually(t, func(ctx context.Context) error {
		var events corev1.EventList
		if err := c.List(ctx, &events); err != nil {
			return err
		}
		for _, e := range events.Items {
			if e.InvolvedObject.Name == "waits" && e.Reason == "FailedCreatePodSandBox" {
				return nil
			}
		}
		return errors.New("no event says that the sandbox failed")
	})
	if err := c.Client.Get(t.Context(), client.ObjectKeyFromObject(p), p); err != nil || p.Status.Phase != corev1.PodPending {
		t.Errorf("phase %s, %v", p.Status.Phase, err)
	}
	if err := c.StartAgent(t.Context(), "a2"); err != nil {
		t.Fatal(err)
	}
	c.ready(t, "waits")
	c.remove(t, p)
}

func (c cluster) adopted(t *testing.T) {
	stays, goes := pod("stays", "b1", nil), pod("goes", "b1", nil)
	c.create(t, stays, goes)
	before, id := c.end(t, "stays"), c.ready(t, "stays").Status.ContainerStatuses[0].ContainerID
	c.ready(t, "goes")
	if err := c.KillRunner(t.Context(), "b1"); err != nil {
		t.Fatal(err)
	}
	if err := c.Client.Delete(t.Context(), goes, client.GracePeriodSeconds(0)); err != nil {
		t.Fatal(err)
	}
	if err := c.StartRunner("b1"); err != nil {
		t.Fatal(err)
	}
	eventually(t, func(context.Context) error {
		if p, err := c.Pod("goes"); err == nil {
			return fmt.Errorf("the deleted pod still has %v", p.Addresses)
		}
		return nil
	})
	if got := c.ready(t, "stays"); got.Status.PodIP != before.Addr.String() || got.Status.ContainerStatuses[0].ContainerID != id {
		t.Errorf("the pod that stays was started again: %+v", got.Status)
	}
	c.remove(t, stays)
}

func (c cluster) nodeComesBack(t *testing.T) {
	if err := c.Client.Delete(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "b2"}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func(ctx context.Context) error {
		return c.Client.Get(ctx, types.NamespacedName{Name: "b2"}, &corev1.Node{})
	})
}

func (c cluster) manifests(t *testing.T) {
	// A block is claimed through the API server; pods start without it where the node owns one.
	first := pod("first", "a1", nil)
	c.create(t, first)
	c.ready(t, "first")
	if err := c.StopAPI(t.Context()); err != nil {
		t.Fatal(err)
	}
	dir := c.Machine("a1").Path(kubelet.ManifestsDir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "still.yaml")
	if err := os.WriteFile(file, []byte("metadata: {name: still}\nspec: {containers: [{name: main, ports: [{containerPort: 80}]}]}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var still lab.Pod
	eventually(t, func(context.Context) (err error) {
		if still, err = c.Pod("still-a1"); err == nil && len(still.Addresses) == 0 {
			err = errors.New("it has no address")
		}
		return err
	})
	if err := c.StartAPI(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := c.ready(t, "still-a1").Status.PodIP; got != still.Addresses[0].String() {
		t.Errorf("the mirror shows %s, the pod has %v", got, still.Addresses)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	c.gone(t, "still-a1")
	c.remove(t, first)
}

func (c cluster) opened(t *testing.T) {
	l, err := lab.Open(lab.Options{Name: c.Name, State: c.State})
	if err != nil {
		t.Fatal(err)
	}
	var nodes corev1.NodeList
	if err := l.List(t.Context(), &nodes); err != nil || len(nodes.Items) != 4 {
		t.Errorf("%d nodes, %v", len(nodes.Items), err)
	}
	if pid, err := l.AgentPID("a1"); err != nil || pid == 0 {
		t.Errorf("agent of a1 is process %d, %v", pid, err)
	}
	if l.Machine(topology.ControlPlane) == nil || l.Machine("nobody") != nil {
		t.Error("its machines are not those of the topology")
	}
}
