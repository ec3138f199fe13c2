package main

import (
	"fmt"
	"net/netip"

	"github.com/spf13/cobra"

	"github.com/koratnet/korat/felix/controller"
	"github.com/koratnet/korat/felix/kube"
)

func controllerCommand() *cobra.Command {
	c := controller.Config{Version: version}
	var kubeconfig string
	var pools []string
	cmd := &cobra.Command{
		Use: "controller", Short: "Run the controller of this cluster", Args: cobra.NoArgs,
		Long: "Run the controller of this cluster: the first IP pools, and the status of objects that concern many nodes.\nRun two or three; one leads.",
	}
	logger := logFlag(cmd)
	f := cmd.Flags()
	f.StringVar(&kubeconfig, "kubeconfig", "", "credentials for the API server (default: those given to pods)")
	f.StringVar(&c.Namespace, "namespace", controller.DefaultNamespace, "namespace of the Lease that the leader holds")
	f.BoolVar(&c.LeaderElect, "leader-elect", true, "lead only while holding the Lease; needed when more than one runs")
	f.StringVar(&c.HTTPAddress, "http-address", "127.0.0.1:9098", "address of /livez, /readyz and /metrics; empty: none")
	f.StringArrayVar(&pools, "default-pool", nil, "CIDR of the IPPool to make when there is none, such as 10.244.0.0/16; once for each address family")
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if c.DefaultPools, err = parsePools(pools); err != nil {
			return err
		}
		if c.Log, err = logger(); err != nil {
			return err
		}
		if c.REST, err = kube.Config(kubeconfig, "korat-controller/"+version); err != nil {
			return err
		}
		return controller.Run(cmd.Context(), c)
	}
	return cmd
}

func parsePools(texts []string) ([]netip.Prefix, error) {
	var pools []netip.Prefix
	for _, text := range texts {
		p, err := netip.ParsePrefix(text)
		if err != nil || p != p.Masked() {
			return nil, fmt.Errorf("--default-pool is %q, expected a CIDR such as 10.244.0.0/16 or fd00:10:244::/48", text)
		}
		pools = append(pools, p)
	}
	return pools, nil
}
