package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/koratnet/korat/felix/remains"
)

func uninstallCommand() *cobra.Command {
	var c remains.Config
	var check, stay bool
	cmd := &cobra.Command{
		Use: "uninstall", Short: "Remove everything of Korat's from this node", Args: cobra.NoArgs,
		Long: `Remove everything of Korat's from this node, where no agent runs any more, and see
that nothing is left: the configuration for the container runtime, announcements to
routers, pods' interfaces, routes, tunnels, rules of policy, the CNI plugin, sockets
and the journal of addresses, in this order. It refuses while pods have their network
from Korat: drain the node first. It may be repeated.`,
	}
	logger := logFlag(cmd)
	f := cmd.Flags()
	f.BoolVar(&check, "check", false, "remove nothing: print what is there, and fail if there is anything")
	f.BoolVar(&stay, "stay", false, "when all is done wait to be ended, as a DaemonSet wants its pods to")
	f.BoolVar(&c.CutPods, "cut-pods", false, "take the network from pods that still run; each must be made anew")
	f.BoolVar(&c.KeepState, "keep-state", false, "leave the state directory, for an agent that is to come back")
	f.StringVar(&c.StateDir, "state-dir", "/var/lib/korat", "state directory of the agent")
	f.StringVar(&c.RunDir, "run-dir", "/run/korat", "run directory of the agent")
	f.StringVar(&c.ConfDir, "cni-conf-dir", "/etc/cni/net.d", "directory in which the container runtime looks for networks")
	f.StringVar(&c.BinDir, "cni-bin-dir", "/opt/cni/bin", "directory of the CNI plugins")
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if c.Log, err = logger(); err != nil {
			return err
		}
		r, err := remains.New(c)
		if err != nil {
			return err
		}
		defer r.Close()
		if check {
			return report(cmd, r)
		}
		if err := r.Remove(cmd.Context()); err != nil {
			return err
		}
		fmt.Fprintln(cmd.OutOrStdout(), "nothing of Korat is left on this node")
		if stay {
			<-cmd.Context().Done()
		}
		return nil
	}
	return cmd
}

// report prints what is there.
func report(cmd *cobra.Command, r *remains.Remains) error {
	found, err := r.Find(cmd.Context())
	for _, thing := range found {
		fmt.Fprintln(cmd.OutOrStdout(), thing)
	}
	if err == nil && len(found) > 0 {
		err = errors.New("this node has something of Korat")
	}
	return err
}
