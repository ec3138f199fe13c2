// Command cluster makes and removes a Kubernetes cluster with real kubelets on
// this machine, and installs Korat on it. See package cluster.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/e2e/cluster"
	"github.com/koratnet/korat/e2e/lab"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	if err := root().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

func root() *cobra.Command {
	c := &command{o: cluster.Options{Progress: os.Stdout}}
	r := &cobra.Command{
		Use: "cluster", Short: "A Kubernetes cluster with kubelets on this machine",
		SilenceErrors: true, SilenceUsage: true,
	}
	f := r.PersistentFlags()
	f.StringVar(&c.o.Name, "name", cluster.DefaultName, "tells clusters and labs apart")
	r.AddCommand(c.up(), c.down(), c.install(), c.conformance(), c.policyConformance(), c.measure(), c.kubeconfig())
	return r
}

type command struct {
	o        cluster.Options
	topology string
}

// upTimeout is generous: a cluster takes less than a minute on a quiet machine.
const upTimeout = 5 * time.Minute

func (c *command) up() *cobra.Command {
	cmd := &cobra.Command{
		Use: "up", Short: "make the cluster", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), upTimeout)
			defer cancel()
			var err error
			if c.o.Topology, err = lab.Topology(c.topology); err != nil {
				return err
			}
			_, err = cluster.Up(ctx, c.o)
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.topology, "topology", "default", "default, dual-stack, dual-tor or ipv6")
	f.IntVar(&c.o.Nodes, "nodes", 2, "number of nodes; 0: all of the topology")
	f.StringVar(&c.o.Bin, "bin", "bin", "directory of the binaries lab and kubernetes")
	f.StringSliceVar(&c.o.Images, "images", nil, "directories of image archives (default BIN/cluster-images)")
	f.StringVar(&c.o.ProxyMode, "proxy-mode", "iptables", "of kube-proxy: iptables or nftables")
	return cmd
}

func (c *command) down() *cobra.Command {
	return &cobra.Command{
		Use: "down", Short: "end and remove the cluster", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cluster.Down(cmd.Context(), c.o); err != nil {
				return err
			}
			return cluster.Leftovers(c.o)
		},
	}
}

func (c *command) install() *cobra.Command {
	var tag, backend string
	cmd := &cobra.Command{
		Use: "install", Short: "install Korat from the images that the nodes have", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), upTimeout)
			defer cancel()
			l, err := cluster.Open(c.o)
			if err != nil {
				return err
			}
			if err := l.Install(ctx, tag); err != nil || backend == "" {
				return err
			}
			return l.UseBackend(ctx, backend)
		},
	}
	cmd.Flags().StringVar(&backend, "backend", "", "data plane: IPTables or NFTables; empty: what kube-proxy uses")
	cmd.Flags().StringVar(&tag, "tag", "", "tag of the image (required)")
	cmd.MarkFlagRequired("tag")
	return cmd
}

func (c *command) kubeconfig() *cobra.Command {
	return &cobra.Command{
		Use: "kubeconfig", Short: "print the path of the admin's credentials", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			l, err := cluster.Open(c.o)
			if err == nil {
				fmt.Println(l.Kubeconfig())
			}
			return err
		},
	}
}
