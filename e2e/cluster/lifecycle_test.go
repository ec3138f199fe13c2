package cluster_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	v1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/charts"
	"github.com/koratnet/korat/e2e/cluster"
	"github.com/koratnet/korat/e2e/lab"
	"github.com/koratnet/korat/e2e/lab/machine"
)

// previous is the version from which the upgrade starts.
var previous = flag.String("previous", filepath.Join(bin, "previous-image/korat.tar"), "archive of an older image of Korat")

// chartTag is the version that the chart installs unless told otherwise.
const chartTag = "0.1.0"

// up makes a cluster of two nodes without a network.
func up(ctx context.Context, t *testing.T, o cluster.Options) *cluster.Cluster {
	t.Helper()
	o.Bin, o.Nodes, o.Progress = bin, 2, t.Output()
	down(t, o)
	t.Cleanup(func() { down(t, o) })
	c, err := cluster.Up(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// called gives an image of every node the tag that the chart asks for.
func called(t *testing.T, c *cluster.Cluster, tag string) {
	t.Helper()
	for _, n := range c.Topology.Nodes() {
		cmd := exec.CommandContext(t.Context(), "/usr/bin/ctr", "-n", "k8s.io", "images", "tag", "--force", charts.Image+":"+tag, charts.Image+":"+chartTag)
		if err := c.Machine(n.Name).Run(cmd); err != nil {
			t.Fatalf("tag %s on %s: %v", tag, n.Name, err)
		}
	}
}

// TestLifecycle walks through docs/install.md: from pods that wait for a network to
// nodes without one.
func TestLifecycle(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	c := up(ctx, t, cluster.Options{Name: "tlife"})
	for _, n := range c.Topology.Nodes() {
		if err := c.Import(n.Name, *previous); err != nil {
			t.Fatal(err)
		}
	}
	older, newer := imageTag(t, *previous), imageTag(t, newest)
	called(t, c, older)
	p := newPage(t, c)
	waiting := startPod(ctx, t, c, "a1")

	start := time.Now()
	p.run(ctx, p.commands("With Helm")[0])
	a := running(ctx, t, c, waiting)
	t.Logf("helm install to the first pod Running: %s", time.Since(start).Round(time.Second/10))
	p.run(ctx, p.commands("See that it works")[0])
	p.run(ctx, p.commands("A first policy")[0])
	firstRouter(ctx, t, p)
	b := running(ctx, t, c, startPod(ctx, t, c, "b1"))
	ping(ctx, t, c, "a1", a, b)
	versions(ctx, t, c, older)

	traffic := startTraffic(ctx, t, c, "a1", a, b)
	change := p.commands("Upgrade and go back")
	p.run(ctx, strings.Replace(change[0], "--reuse-values", "--reuse-values --set image.tag="+newer, 1))
	versions(ctx, t, c, newer)
	if err := c.WaitInstalled(ctx); err != nil {
		t.Fatal(err)
	}
	traffic.noneLost(t, "upgrade")

	traffic = startTraffic(ctx, t, c, "a1", a, b)
	p.run(ctx, change[1])
	versions(ctx, t, c, older)
	if err := c.WaitInstalled(ctx); err != nil {
		t.Fatal(err)
	}
	traffic.noneLost(t, "rollback")

	called(t, c, newer) // of the image that knows how to uninstall
	removeNode(ctx, t, p, "b1", newer)
	remove(ctx, t, p, "a1")
}

// firstRouter connects the first rack as the page says, and the rest in the same way.
func firstRouter(ctx context.Context, t *testing.T, p *page) {
	t.Helper()
	commands := p.commands("A first router")
	rack := p.cluster.Topology.Racks[0]
	for _, n := range rack.Nodes {
		p.run(ctx, commands[0], "NODE="+n, fmt.Sprint("NODE_AS=", rack.ASNumber))
	}
	router := []string{"ROUTER=" + rack.Gateways(false)[0].Addr().String(), fmt.Sprint("ROUTER_AS=", rack.ToRs[0].ASNumber)}
	p.run(ctx, commands[1], router...)
	p.run(ctx, commands[2])
	p.run(ctx, "kubectl delete bgppeer router-a")
	if err := p.cluster.ApplyNetwork(ctx); err != nil {
		t.Fatal(err)
	}
	if err := p.cluster.WaitInstalled(ctx); err != nil {
		t.Fatal(err)
	}
}

// removeNode takes one node from the cluster as the page says.
func removeNode(ctx context.Context, t *testing.T, p *page, node, version string) {
	t.Helper()
	commands := p.commands("Remove one node")
	p.run(ctx, "kubectl delete pods --all --wait\n"+commands[0], "NODE="+node)
	p.on(ctx, node, commands[1])
	// A stopped kubelet is one that never starts again here.
	if err := p.cluster.Machine(node).Signal("kubelet", unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	p.on(ctx, node, "VERSION="+version+"\n"+commands[2])
	clean(ctx, t, p, node)
}

// clean looks whether nothing of Korat is left on a node.
func clean(ctx context.Context, t *testing.T, p *page, node string) {
	t.Helper()
	if left := p.on(ctx, node, leftovers); left != "" {
		t.Errorf("left on %s:\n%s", node, left)
	}
}

// remove takes Korat from the nodes as the page says.
func remove(ctx context.Context, t *testing.T, p *page, nodes ...string) {
	t.Helper()
	p.run(ctx, "kubectl delete pods --all --wait")
	p.run(ctx, p.commands("Remove")[0])
	for _, n := range nodes {
		clean(ctx, t, p, n)
	}
}

// leftovers prints what is there of Korat, as the node's own programs see it.
const leftovers = `{
	ip route show proto 112
	ip -6 route show proto 112
	find /run/korat /var/lib/korat -mindepth 1
	ls /etc/cni/net.d /opt/cni/bin | grep korat
	{ ip -o link; iptables-save; ip6tables-save; nft list tables; ipset list -n; } | grep -i kor
} 2> /dev/null || true`

// versions waits until every agent says that it is of this version.
func versions(ctx context.Context, t *testing.T, c *cluster.Cluster, want string) {
	t.Helper()
	err := lab.Eventually(ctx, func(ctx context.Context) error {
		var all v1.NodeNetworkList
		if err := c.List(ctx, &all); err != nil {
			return err
		}
		for _, n := range all.Items {
			if n.Status.AgentVersion != want {
				return fmt.Errorf("agent of %s is of version %q, want %q", n.Name, n.Status.AgentVersion, want)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// traffic is a ping that goes on.
type traffic struct {
	cmd *exec.Cmd
	out bytes.Buffer
}

// startTraffic sends 50 packets a second from one pod to another.
func startTraffic(ctx context.Context, t *testing.T, c *cluster.Cluster, node string, from, to netip.Addr) *traffic {
	t.Helper()
	netns, err := c.PodNetns(ctx, node, from)
	if err != nil {
		t.Fatal(err)
	}
	f := &traffic{cmd: exec.CommandContext(ctx, "ping", "-q", "-i", "0.02", to.String())}
	f.cmd.Stdout = &f.out
	if err := machine.InNetns(netns, f.cmd.Start); err != nil {
		t.Fatal(err)
	}
	return f
}

// end ends the traffic, and returns how many packets were sent and came back.
func (f *traffic) end(t *testing.T) (sent, came int) {
	t.Helper()
	err := errors.Join(f.cmd.Process.Signal(unix.SIGINT), f.cmd.Wait())
	if _, after, found := strings.Cut(f.out.String(), "statistics ---\n"); found {
		_, err = fmt.Sscanf(after, "%d packets transmitted, %d received", &sent, &came)
	}
	if err != nil || sent == 0 {
		t.Fatalf("traffic: %v\n%s", err, &f.out)
	}
	return sent, came
}

// noneLost ends the traffic. The last packet's answer may be on its way.
func (f *traffic) noneLost(t *testing.T, during string) {
	t.Helper()
	sent, came := f.end(t)
	if sent-came > 1 {
		t.Errorf("%s lost %d of %d packets", during, sent-came, sent)
	}
	t.Logf("%s: %d of %d packets came", during, came, sent)
}
