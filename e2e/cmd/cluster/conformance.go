package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	v1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/e2e/cluster"
	"github.com/koratnet/korat/e2e/cluster/conformance"
)

func (c *command) conformance() *cobra.Command {
	o := conformance.Options{Output: os.Stderr}
	cmd := &cobra.Command{
		Use: "conformance", Short: "run upstream's end-to-end tests of the network", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := cluster.Open(c.o)
			if err != nil {
				return err
			}
			o.Kubeconfig, o.Nodes = l.Kubeconfig(), len(l.Topology.Nodes())
			result, err := conformance.Run(cmd.Context(), o)
			if err != nil {
				return err
			}
			return judge(result)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Bin, "bin", "bin", "directory of the binaries e2e.test, ginkgo and kubernetes")
	f.StringVar(&o.Focus, "focus", conformance.Focus, "regular expression: specs whose names it matches are run")
	f.IntVar(&o.Processes, "procs", 4, "number of specs that run at once")
	f.StringVar(&o.Report, "report", "bin/conformance.json", "file that gets the whole report")
	return cmd
}

// judge prints what came out of a run, and returns an error unless all is well.
func judge(r conformance.Result) error {
	for _, s := range r.Skipped {
		fmt.Println("skipped:", s)
	}
	for _, s := range r.Failed {
		fmt.Println("FAILED:", s)
	}
	fmt.Println(r)
	if len(r.Failed) > 0 || r.Passed == 0 {
		return errors.New("the network does not conform")
	}
	return nil
}

func (c *command) policyConformance() *cobra.Command {
	o := conformance.PolicyOptions{Output: os.Stderr}
	cmd := &cobra.Command{
		Use: "policy-conformance", Short: "run the tests of ClusterNetworkPolicy, and write the report that its project asks for", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := cluster.Open(c.o)
			if err != nil {
				return err
			}
			var nodes v1.NodeNetworkList
			if err := l.List(cmd.Context(), &nodes); err != nil {
				return err
			}
			if len(nodes.Items) == 0 {
				return errors.New("no node runs Korat")
			}
			agent := nodes.Items[0].Status
			o.Kubeconfig, o.Version, o.Backend = l.Kubeconfig(), agent.AgentVersion, agent.Backend
			result, err := conformance.RunPolicy(cmd.Context(), o)
			if err != nil {
				return err
			}
			return judge(result)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Suite, "suite", "bin/policy.test", "binary of the suite")
	f.StringVar(&o.Report, "report", "bin/policy.yaml", "file that gets the report")
	return cmd
}
