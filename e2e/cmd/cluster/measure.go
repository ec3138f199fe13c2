package main

import (
	"context"
	"os"

	"github.com/spf13/cobra"

	"github.com/koratnet/korat/e2e/cluster"
	"github.com/koratnet/korat/e2e/cluster/measure"
)

func (c *command) measure() *cobra.Command {
	cmd := &cobra.Command{
		Use: "measure", Short: "take the figures of the network", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := cluster.Open(c.o)
			if err != nil {
				return err
			}
			return measure.Run(cmd.Context(), l, measure.DefaultConfig, os.Stdout)
		},
	}
	cmd.AddCommand(c.measureInstall())
	return cmd
}

func (c *command) measureInstall() *cobra.Command {
	var tag string
	cmd := &cobra.Command{
		Use: "install", Short: "make the cluster twice, and compare how long a pod waits for ptp and for Korat", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), 2*upTimeout)
			defer cancel()
			return measure.Install(ctx, c.o, tag, os.Stdout)
		},
	}
	cmd.Flags().IntVar(&c.o.Nodes, "nodes", 2, "number of nodes; 0: all of the topology")
	cmd.Flags().StringVar(&c.o.Bin, "bin", "bin", "directory of the binaries lab, kubernetes and helm")
	cmd.Flags().StringVar(&tag, "tag", "", "tag of the image (required)")
	cmd.MarkFlagRequired("tag")
	return cmd
}
