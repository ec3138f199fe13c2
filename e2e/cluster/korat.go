package cluster

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	v1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/charts"
	"github.com/koratnet/korat/e2e/lab"
)

//go:embed coredns.yaml
var coreDNS []byte

// Install applies the cluster's DNS and Korat, of the image with this tag, tells it of the racks'
// routers, and returns when every node is Ready.
func (c *Cluster) Install(ctx context.Context, tag string) error {
	if err := c.ApplyCRDs(ctx); err != nil {
		return err
	}
	dns, err := c.DNS()
	if err != nil {
		return err
	}
	if err := c.ApplyYAML(ctx, bytes.ReplaceAll(coreDNS, []byte("CLUSTER_DNS"), []byte(dns.String()))); err != nil {
		return err
	}
	workloads := func(u *unstructured.Unstructured) error { return c.settle(u, tag) }
	if err := c.ApplyEdited(ctx, charts.Manifest, workloads); err != nil {
		return err
	}
	if err := c.ApplyNetwork(ctx); err != nil {
		return err
	}
	if err := c.WaitInstalled(ctx); err != nil {
		return err
	}
	fmt.Fprintf(c.Progress, "cluster: Korat %s runs, every node is Ready\n", tag)
	return nil
}

// settle fills in what a manifest leaves to the cluster: the image, and the pools.
func (c *Cluster) settle(u *unstructured.Unstructured, tag string) error {
	spec := []string{"spec", "template", "spec"}
	for _, list := range []string{"initContainers", "containers"} {
		path := append(spec, list)
		containers, found, err := unstructured.NestedSlice(u.Object, path...)
		if err != nil || !found {
			continue
		}
		for _, item := range containers {
			container := item.(map[string]any)
			if image, _ := container["image"].(string); strings.HasPrefix(image, charts.Image+":") {
				container["image"] = charts.Image + ":" + tag
			}
			if container["name"] == "controller" {
				container["args"] = c.withPools(container["args"].([]any))
			}
		}
		if err := unstructured.SetNestedSlice(u.Object, containers, path...); err != nil {
			return err
		}
	}
	return nil
}

// withPools returns a controller's arguments with the pools of the cluster.
func (c *Cluster) withPools(args []any) []any {
	const flag = "--default-pool="
	args = slices.DeleteFunc(args, func(a any) bool { return strings.HasPrefix(a.(string), flag) })
	for _, p := range c.pools() {
		args = append(args, flag+p)
	}
	return args
}

// UseBackend makes all nodes use a data plane, and returns when they do.
func (c *Cluster) UseBackend(ctx context.Context, backend string) error {
	o := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"backend": backend}}}
	o.SetGroupVersionKind(v1.GroupVersion.WithKind("NodeConfiguration"))
	o.SetName("default")
	if err := c.Apply(ctx, o); err != nil {
		return err
	}
	return lab.Eventually(ctx, func(ctx context.Context) error {
		var nodes v1.NodeNetworkList
		if err := c.List(ctx, &nodes); err != nil {
			return err
		}
		for _, n := range nodes.Items {
			if n.Status.Backend != backend {
				return fmt.Errorf("%s uses %q", n.Name, n.Status.Backend)
			}
		}
		return nil
	})
}

// WaitInstalled waits until the agents are of the newest version and ready, every
// node is Ready, and the sessions with the racks' routers are established.
func (c *Cluster) WaitInstalled(ctx context.Context) error {
	err := lab.Eventually(ctx, func(ctx context.Context) error {
		var ds appsv1.DaemonSet
		if err := c.Client.Get(ctx, types.NamespacedName{Namespace: "kube-system", Name: "korat-agent"}, &ds); err != nil {
			return err
		}
		s, want := ds.Status, int32(len(c.Topology.Nodes()))
		if s.ObservedGeneration != ds.Generation || s.UpdatedNumberScheduled != want || s.NumberReady != want {
			return fmt.Errorf("agents: %d of %d are ready", s.NumberReady, want)
		}
		return c.nodesReady(ctx)
	})
	if err != nil {
		return err
	}
	return c.WaitToRs(ctx)
}

func (c *Cluster) nodesReady(ctx context.Context) error {
	var nodes corev1.NodeList
	if err := c.List(ctx, &nodes); err != nil {
		return err
	}
	var not []string
	for _, n := range nodes.Items {
		for _, cond := range n.Status.Conditions {
			if cond.Type == corev1.NodeReady && cond.Status != corev1.ConditionTrue {
				not = append(not, n.Name+": "+cond.Message)
			}
		}
	}
	if len(not) > 0 {
		return errors.New("not Ready: " + strings.Join(not, "; "))
	}
	return nil
}
