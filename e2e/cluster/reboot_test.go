package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/e2e/cluster"
	"github.com/koratnet/korat/e2e/lab"
)

// TestNodeComesBack: the power of a node fails, and it comes back with its disk, with an
// empty disk, with an empty disk after its Node was deleted, and under another name, as
// docs/operations.md says. Each time its pods reach and are reached, policy holds and
// the books of addresses agree.
func TestNodeComesBack(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	c := up(ctx, t, cluster.Options{Name: "tboot"})
	if err := c.Install(ctx, imageTag(t, newest)); err != nil {
		t.Fatal(err)
	}
	p := newPage(t, c)
	p.run(ctx, apply(clients+everywhere+guard))
	p.run(ctx, apply(guarded), "NODE=b1")
	whole(ctx, t, p, "b1")
	blocks, address := blocksOf(ctx, t, c, "b1"), running(ctx, t, c, "guarded")

	t.Log("with its disk")
	attempts := startTraffic(ctx, t, c, "a1", running(ctx, t, c, "stranger"), address)
	powerOff(t, c, "b1")
	powerOn(ctx, t, c, "b1")
	whole(ctx, t, p, "b1")
	if sent, came := attempts.end(t); came > 0 {
		t.Errorf("the guarded pod answered %d of %d packets that policy denies", came, sent)
	}
	if now := running(ctx, t, c, "guarded"); now != address {
		t.Errorf("the guarded pod, whose address is sticky, had %s and has %s", address, now)
	}
	if diff := cmp.Diff(blocks, blocksOf(ctx, t, c, "b1")); diff != "" {
		t.Errorf("blocks, before and now:\n%s", diff)
	}

	t.Log("with an empty disk")
	powerOff(t, c, "b1")
	erase(t, c, "b1")
	powerOn(ctx, t, c, "b1")
	whole(ctx, t, p, "b1")
	if diff := cmp.Diff(blocks, blocksOf(ctx, t, c, "b1")); diff != "" {
		t.Errorf("blocks, before and now:\n%s", diff)
	}

	t.Log("with an empty disk and a new Node")
	powerOff(t, c, "b1")
	erase(t, c, "b1")
	p.run(ctx, "kubectl delete node b1")
	powerOn(ctx, t, c, "b1")
	risen(ctx, t, c, "b1")
	release(ctx, p, blocks)
	whole(ctx, t, p, "b1")

	t.Log("with another name, and tunnels to it")
	p.run(ctx, "kubectl get ippools --output name | xargs -n 1 kubectl patch --type merge --patch '{\"spec\": {\"encapsulation\": \"VXLAN\"}}'")
	tunnels(ctx, t, p, "b1")
	blocks = blocksOf(ctx, t, c, "b1")
	powerOff(t, c, "b1")
	if err := c.Rename("b1", "b9"); err != nil {
		t.Fatal(err)
	}
	// Kubernetes would delete the pods of a Node that is gone a minute later.
	p.run(ctx, `kubectl delete node b1
		kubectl delete nodenetwork b1
		kubectl delete pods --all-namespaces --field-selector spec.nodeName=b1 --force 2>&1`)
	if err := c.ApplyNetwork(ctx); err != nil {
		t.Fatal(err)
	}
	powerOn(ctx, t, c, "b9")
	refused(ctx, t, p, "b9", `was made by node "b1"`)
	p.on(ctx, "b9", "rm -r /var/lib/korat/*")
	p.run(ctx, "kubectl --namespace kube-system delete pods --selector app.kubernetes.io/component=agent --field-selector spec.nodeName=b9")
	p.run(ctx, apply(guarded), "NODE=b9")
	risen(ctx, t, c, "b9")
	release(ctx, p, blocks)
	whole(ctx, t, p, "b9")
	tunnels(ctx, t, p, "b9")
	forgotten(ctx, p, "b1", blocks)
}

// apply returns the command that applies a manifest in which variables may stand.
func apply(manifest string) string { return "kubectl apply --filename - <<EOF\n" + manifest + "EOF\n" }

// clients are pods of a1.
const clients = `---
apiVersion: v1
kind: Pod
metadata: {name: friend, labels: {friend: "yes"}}
spec: {nodeName: a1, containers: [{name: c, image: "registry.k8s.io/pause:3.10.1"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: stranger}
spec: {nodeName: a1, containers: [{name: c, image: "registry.k8s.io/pause:3.10.1"}]}
`

// everywhere has a pod on each node.
const everywhere = `---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: everywhere}
spec:
  selector: {matchLabels: {app: everywhere}}
  template:
    metadata: {labels: {app: everywhere}}
    spec: {containers: [{name: c, image: "registry.k8s.io/pause:3.10.1"}]}
`

// guarded is a pod that keeps its address, and of which guard judges who may reach it.
const (
	guarded = `---
apiVersion: v1
kind: Pod
metadata: {name: guarded, labels: {guarded: "yes"}, annotations: {korat.dev/stickyAddress: "true"}}
spec: {nodeName: $NODE, tolerations: [{operator: Exists}], containers: [{name: c, image: "registry.k8s.io/pause:3.10.1"}]}
`
	guard = `---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: guard}
spec:
  podSelector: {matchLabels: {guarded: "yes"}}
  ingress: [{from: [{podSelector: {matchLabels: {friend: "yes"}}}]}]
`
)

func powerOff(t *testing.T, c *cluster.Cluster, node string) {
	t.Helper()
	if err := c.PowerOff(node); err != nil {
		t.Fatal(err)
	}
}

func powerOn(ctx context.Context, t *testing.T, c *cluster.Cluster, node string) {
	t.Helper()
	if err := c.PowerOn(ctx, node); err != nil {
		t.Fatal(err)
	}
}

func erase(t *testing.T, c *cluster.Cluster, node string) {
	t.Helper()
	if err := c.Machine(node).Erase(); err != nil {
		t.Fatal(err)
	}
}

// whole waits until the pods of a node run, reach those of a1 and are reached by them,
// but where policy denies it, and until all books of addresses agree.
func whole(ctx context.Context, t *testing.T, p *page, node string) {
	t.Helper()
	c := p.cluster
	risen(ctx, t, c, node)
	here, there, guarded := onNode(ctx, t, c, node), onNode(ctx, t, c, "a1"), running(ctx, t, c, "guarded")
	ping(ctx, t, c, node, here, there)
	ping(ctx, t, c, "a1", there, here)
	ping(ctx, t, c, "a1", running(ctx, t, c, "friend"), guarded)
	silent(ctx, t, c, "a1", running(ctx, t, c, "stranger"), guarded)
	agree(ctx, t, p)
}

// risen waits until all pods of a node are ready, with containers that started after
// its kubelet did.
func risen(ctx context.Context, t *testing.T, c *cluster.Cluster, node string) {
	t.Helper()
	kubelet, err := c.Machine(node).Service("kubelet")
	if err != nil {
		t.Fatal(err)
	}
	start := kubelet.Started.Truncate(time.Second) // containers tell no more of theirs
	err = lab.Eventually(ctx, func(ctx context.Context) error {
		pods, err := podsOf(ctx, c, node)
		if err != nil || len(pods) == 0 {
			return errors.Join(fmt.Errorf("%s has %d pods", node, len(pods)), err)
		}
		for _, pod := range pods {
			for _, s := range pod.Status.ContainerStatuses {
				if !s.Ready || s.State.Running == nil || s.State.Running.StartedAt.Time.Before(start) {
					return fmt.Errorf("pod %s of %s: %+v", pod.Name, node, s)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("pods of %s are ready %s after its kubelet started", node, time.Since(kubelet.Started).Round(time.Second/10))
}

// podsOf lists the pods of a node.
func podsOf(ctx context.Context, c *cluster.Cluster, node string, of ...client.ListOption) ([]corev1.Pod, error) {
	var pods corev1.PodList
	err := c.Client.List(ctx, &pods, append(of, client.MatchingFields{"spec.nodeName": node})...)
	return pods.Items, err
}

// onNode waits until the pod of a node that everywhere has runs, and returns its address.
func onNode(ctx context.Context, t *testing.T, c *cluster.Cluster, node string) netip.Addr {
	t.Helper()
	var name string
	err := lab.Eventually(ctx, func(ctx context.Context) error {
		pods, err := podsOf(ctx, c, node, client.MatchingLabels{"app": "everywhere"})
		if err != nil || len(pods) != 1 {
			return errors.Join(fmt.Errorf("%s has %d pods of everywhere", node, len(pods)), err)
		}
		name = pods[0].Name
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return running(ctx, t, c, name)
}

// agree waits until what the API server and the agents have in their books is the same.
func agree(ctx context.Context, t *testing.T, p *page) {
	t.Helper()
	dir := t.TempDir()
	err := lab.Eventually(ctx, func(ctx context.Context) error {
		check := "bin/koratctl ipam check --settle 0"
		for _, n := range p.cluster.Topology.Nodes() {
			book, err := p.cluster.AgentGet(ctx, n.Name, "/ipam")
			if err != nil {
				return fmt.Errorf("books of %s: %w", n.Name, err)
			}
			file := filepath.Join(dir, n.Name)
			if err := os.WriteFile(file, []byte(book), 0o600); err != nil {
				return err
			}
			check += " --agent " + file
		}
		if found := p.run(ctx, check+" || true"); !strings.HasPrefix(found, "0 problems") {
			return errors.New(found)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// blocksOf returns the ranges of the blocks of a node.
func blocksOf(ctx context.Context, t *testing.T, c *cluster.Cluster, node string) []string {
	t.Helper()
	var blocks v1.BlockList
	if err := c.List(ctx, &blocks); err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, b := range blocks.Items {
		if b.Spec.Node == node {
			out = append(out, string(b.Spec.CIDR))
		}
	}
	if len(out) == 0 {
		t.Fatalf("%s has no blocks", node)
	}
	return out
}

// release frees blocks of a node that is gone, as the controller does later.
func release(ctx context.Context, p *page, blocks []string) {
	p.Helper()
	for _, b := range blocks {
		p.run(ctx, "bin/koratctl ipam release "+b)
	}
}

// refused waits until the agent of a node has ended and said why.
func refused(ctx context.Context, t *testing.T, p *page, node, why string) {
	t.Helper()
	err := lab.Eventually(ctx, func(ctx context.Context) error {
		log := p.run(ctx, "kubectl --namespace kube-system logs --selector app.kubernetes.io/component=agent --container agent --prefix --tail 5 || true")
		if !strings.Contains(log, why) {
			return fmt.Errorf("the agent of %s does not say %q:\n%s", node, why, log)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// tunnels waits until a1 has a tunnel to the one other node, by which packets go to its
// blocks and to no others.
func tunnels(ctx context.Context, t *testing.T, p *page, node string) {
	t.Helper()
	err := lab.Eventually(ctx, func(ctx context.Context) error {
		var routes []string
		for line := range strings.Lines(p.on(ctx, "a1", "ip route show dev vxlan4-korat 2> /dev/null || true")) {
			routes = append(routes, strings.Fields(line)[0])
		}
		ends := strings.Count(p.on(ctx, "a1", "bridge fdb show dev vxlan4-korat 2> /dev/null || true"), " dst ")
		if blocks := blocksOf(ctx, t, p.cluster, node); ends != 1 || !slices.Equal(routes, blocks) {
			return fmt.Errorf("a1 has %d tunnels with routes to %v, and %s the blocks %v", ends, routes, node, blocks)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// forgotten looks whether anything is left of a node that has gone, and of the blocks
// that it had.
func forgotten(ctx context.Context, p *page, node string, blocks []string) {
	p.Helper()
	names := p.run(ctx, `kubectl get nodes,nodenetworks,blocks,leases --all-namespaces --output jsonpath='{range .items[*]}{.kind} {.metadata.name} {.spec.node}{"\n"}{end}'`)
	for line := range strings.Lines(names) {
		if slices.Contains(strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == '.' || r == '\n' }), node) {
			p.Errorf("left of %s: %s", node, line)
		}
	}
	for _, b := range blocks {
		if routes := p.on(ctx, "a1", "ip route show root "+b); routes != "" {
			p.Errorf("a1 has routes to %s, which was of %s:\n%s", b, node, routes)
		}
	}
}
