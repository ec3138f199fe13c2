package suite

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/e2e/lab"
	"github.com/koratnet/korat/e2e/lab/matrix"
)

var (
	churnFor  = flag.Duration("churn", 40*time.Second, "how long pods come and go while agents and the API server do")
	churnSeed = flag.Uint64("churn-seed", uint64(time.Now().UnixNano()), "seed of what comes and goes")
)

// churn is a cluster in which everything comes and goes.
type churn struct {
	*testing.T
	r     *rand.Rand
	nodes []string
	next  int
	pods  map[string]*corev1.Pod // that shall be there, by name
	made  int
	kills int
}

// TestUnderChurnNoAddressIsHeldTwiceOrLost creates and deletes pods while agents
// are killed and the API server stops and starts.
func TestUnderChurnNoAddressIsHeldTwiceOrLost(t *testing.T) {
	t.Logf("-churn-seed %d", *churnSeed)
	namespace(t, cluster, "churn")
	c := &churn{T: t, r: rand.New(rand.NewPCG(*churnSeed, 0)), pods: map[string]*corev1.Pod{}}
	for _, n := range cluster.Topology.Nodes() {
		c.nodes = append(c.nodes, n.Name)
	}
	ctx, cancel := context.WithTimeout(t.Context(), *churnFor)
	defer cancel()
	for ctx.Err() == nil {
		switch n := c.r.IntN(100); {
		case n < 60:
			c.come()
		case n < 90:
			c.go1()
		case n < 98:
			c.kill(c.nodes[c.r.IntN(len(c.nodes))])
		default:
			c.withoutAPI()
		}
		c.unique()
	}
	c.settle()
	t.Logf("%d pods, %d kills of agents", c.made, c.kills)
}

// come makes a pod, go1 deletes one. The node of a pod may be without its agent.
func (c *churn) come() {
	const most = 48
	if len(c.pods) >= most {
		c.go1()
		return
	}
	c.next++
	p := podOn(c.nodes[c.r.IntN(len(c.nodes))], "churn", fmt.Sprintf("p%d", c.next), nil)
	if c.r.IntN(4) == 0 { // a name that comes back, as a StatefulSet's
		p.Name = fmt.Sprintf("db-%d", c.r.IntN(4))
	}
	if c.pods[p.Name] != nil {
		return
	}
	err := cluster.Client.Create(c.Context(), p)
	if client.IgnoreAlreadyExists(err) != nil {
		c.Fatal(err)
	}
	if err == nil { // else its predecessor is still on its way out
		c.pods[p.Name] = p
		c.made++
	}
}

func (c *churn) go1() {
	for name, p := range c.pods {
		grace := client.GracePeriodSeconds(c.r.Int64N(2))
		if err := client.IgnoreNotFound(cluster.Client.Delete(c.Context(), p, grace)); err != nil {
			c.Fatal(err)
		}
		delete(c.pods, name)
		return
	}
}

func (c *churn) kill(node string) {
	c.kills++
	err := cluster.KillAgent(c.Context(), node)
	for range c.r.IntN(10) { // it stays away for some of these
		c.come()
		c.unique()
	}
	if err := errors.Join(err, cluster.StartAgent(c.Context(), node)); err != nil {
		c.Fatal(err)
	}
}

// apiTime bounds the start of an API server and an agent, on a machine that has other
// work too: one of them took more than a minute.
const apiTime = 5 * time.Minute

func (c *churn) withoutAPI() {
	if err := cluster.StopAPI(c.Context()); err != nil {
		c.Fatal(err)
	}
	node := c.nodes[c.r.IntN(len(c.nodes))]
	c.kills++
	err := cluster.KillAgent(c.Context(), node)
	c.unique()
	ctx, cancel := context.WithTimeout(c.Context(), apiTime)
	defer cancel()
	if err := errors.Join(err, cluster.StartAPI(ctx), cluster.StartAgent(ctx, node)); err != nil {
		c.Fatal(err)
	}
}

// unique looks at what the nodes run, whatever the API server says.
func (c *churn) unique() {
	pods, err := cluster.Pods()
	if err != nil {
		c.Fatal(err)
	}
	holders := map[netip.Addr]string{}
	for _, p := range pods {
		for _, a := range p.Addresses {
			name := p.Node + ":" + p.Namespace + "/" + p.Name
			if other, taken := holders[a]; taken {
				c.Errorf("%s and %s have %s", other, name, a)
			}
			holders[a] = name
		}
	}
}

// settle waits until all pods that shall run do, asks koratctl whether the books
// are right, and then takes all away.
func (c *churn) settle() {
	// Who was refused while the API server came up watches again after up to a minute.
	c.patiently("the nodes have the pods that shall be there, and no others", c.arrived)
	var ends []matrix.End
	for name := range c.pods {
		addr := running(c.T, cluster, "churn/"+name)
		ends = append(ends, matrix.End{Name: "churn/" + name, Addr: addr})
	}
	if len(ends) > 12 {
		ends = ends[:12]
	}
	probe := matrix.Probe{Protocol: "tcp", Port: 80, Wait: time.Second}
	eventually(c.T, "pods that live reach each other", func(ctx context.Context) error { return probe.All(ctx, cluster, matrix.Pairs(ends)) })
	c.checked()
	for _, p := range c.pods {
		remove(c.T, cluster, p)
	}
	c.patiently("every address is free or rests", func(ctx context.Context) error {
		var blocks koratv1.BlockList
		if err := cluster.List(ctx, &blocks); err != nil {
			return err
		}
		for _, b := range blocks.Items {
			for _, a := range b.Status.Addresses {
				if len(a.Pod) > 6 && a.Pod[:6] == "churn/" {
					return fmt.Errorf("block %s of %s: %s is of %s", b.Name, b.Spec.Node, a.Address, a.Pod)
				}
			}
		}
		return nil
	})
	c.checked()
}

// arrived compares by UID: a node that has not heard yet of a deletion still runs a
// pod whose name has long come back elsewhere.
func (c *churn) arrived(context.Context) error {
	pods, err := cluster.Pods()
	if err != nil {
		return err
	}
	missing := maps.Clone(c.pods)
	for _, p := range pods {
		if p.Namespace != "churn" {
			continue
		}
		if want := c.pods[p.Name]; want == nil || want.UID != p.UID {
			return fmt.Errorf("%s still runs %s of UID %s", p.Node, p.Name, p.UID)
		}
		delete(missing, p.Name)
	}
	if len(missing) > 0 {
		return fmt.Errorf("no node runs %v", slices.Sorted(maps.Keys(missing)))
	}
	return nil
}

// checked asks koratctl to compare API, agents and kernels.
func (c *churn) checked() {
	c.patiently("koratctl ipam check", func(ctx context.Context) error {
		out, err := exec.CommandContext(ctx, filepath.Join(bin, "koratctl"), "ipam", "check", "--kubeconfig", cluster.Kubeconfig()).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w\n%s", err, out)
		}
		return nil
	})
}

// patiently waits longer than eventually: agents publish every five seconds, and
// collect once a minute.
func (c *churn) patiently(what string, check func(context.Context) error) {
	c.Helper()
	ctx, cancel := context.WithTimeout(c.Context(), 3*time.Minute)
	defer cancel()
	if err := lab.Eventually(ctx, check); err != nil {
		c.Errorf("%s: %v", what, err)
	}
}
