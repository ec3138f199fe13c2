// Package cluster is a Kubernetes cluster on one machine, as users have it:
// containerd, kubelet and kube-proxy on every node, images, and nothing of
// Korat until it is installed. Nodes, racks and routers are those of package lab,
// which also makes the control plane; this package starts what runs on nodes.
//
// Like a lab, a cluster is what is on the machine, not a process.
package cluster

import (
	"context"
	"fmt"
	"io"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"github.com/koratnet/korat/e2e/lab"
	"github.com/koratnet/korat/e2e/lab/topology"
)

// Options say which cluster is meant and what it is made of.
type Options struct {
	// Name tells it apart from other labs, default "cluster".
	Name string
	// Topology is the plan, default that of package lab.
	Topology *topology.Topology
	// Nodes is how many of the plan's nodes there are, taken from all racks in
	// turns; zero is all.
	Nodes int
	// Bin is the directory of the binaries lab and kubernetes, default "bin".
	Bin string
	// Images are directories of archives that every node has, default Bin/cluster-images.
	Images []string
	// ProxyMode is kube-proxy's, "iptables" (the default) or "nftables".
	ProxyMode string
	// Progress gets a line for each step; nil for none.
	Progress io.Writer
}

// DefaultName is that of a cluster whose Options name none.
const DefaultName = "cluster"

func (o *Options) complete() error {
	if o.Name == "" {
		o.Name = DefaultName
	}
	if o.Bin == "" {
		o.Bin = "bin"
	}
	if len(o.Images) == 0 {
		o.Images = []string{filepath.Join(o.Bin, "cluster-images")}
	}
	switch o.ProxyMode {
	case "":
		o.ProxyMode = "iptables"
	case "iptables", "nftables":
	default:
		return fmt.Errorf("kube-proxy mode %q: want iptables or nftables", o.ProxyMode)
	}
	if o.Topology == nil {
		var err error
		if o.Topology, err = lab.Topology("default"); err != nil {
			return err
		}
	}
	if o.Nodes > 0 {
		o.Topology = o.Topology.Keep(o.Nodes)
	}
	return nil
}

func (o *Options) lab() lab.Options {
	return lab.Options{Name: o.Name, Topology: o.Topology, Bin: o.Bin, Progress: o.Progress, Kubelets: true}
}

// Cluster is a cluster that is up.
type Cluster struct {
	*lab.Lab
	o Options
}

// Up makes the cluster and returns when every node is registered and has its
// images. Nodes are NotReady: they have no network yet. When it fails, what was
// made stays for a look; Down removes it.
func Up(ctx context.Context, o Options) (*Cluster, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	l, err := lab.Up(ctx, o.lab())
	if err != nil {
		return nil, err
	}
	c := &Cluster{Lab: l, o: o}
	g, ctx := errgroup.WithContext(ctx)
	for _, n := range l.Topology.Nodes() {
		g.Go(func() error {
			if err := c.startNode(ctx, n); err != nil {
				return fmt.Errorf("cluster %s: node %s: %w", o.Name, n.Name, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return c, err
	}
	fmt.Fprintf(l.Progress, "cluster: %d nodes are registered\n", len(l.Topology.Nodes()))
	return c, nil
}

// PowerOn starts a node that is off, with what runs on it. If its disk is empty it
// gets files and images first, as a node does that joins.
func (c *Cluster) PowerOn(ctx context.Context, node string) error {
	if err := c.Lab.PowerOn(ctx, node); err != nil {
		return err
	}
	n, err := c.Node(node)
	if err != nil {
		return err
	}
	return c.startNode(ctx, n)
}

// Open finds a cluster that is up. Of o only Name matters.
func Open(o Options) (*Cluster, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	l, err := lab.Open(o.lab())
	if err != nil {
		return nil, err
	}
	return &Cluster{Lab: l, o: o}, nil
}

// Down ends and removes everything of the cluster, also after a crash.
func Down(ctx context.Context, o Options) error {
	if err := o.complete(); err != nil {
		return err
	}
	return lab.Down(ctx, o.lab())
}

// Leftovers returns an error that names what is still there of a cluster that was
// taken down: processes, namespaces, control groups, mounts, files.
func Leftovers(o Options) error {
	if err := o.complete(); err != nil {
		return err
	}
	return lab.Leftovers(o.lab())
}
