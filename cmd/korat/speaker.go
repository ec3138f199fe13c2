package main

import (
	"github.com/spf13/cobra"

	"github.com/koratnet/korat/bgp/child"
	"github.com/koratnet/korat/bgp/gobgp"
	"github.com/koratnet/korat/bgp/guarded"
	"github.com/koratnet/korat/bgp/reconcile"
)

// speakerCommand speaks BGP for the agent of the same run directory.
func speakerCommand() *cobra.Command {
	c := child.Config{Version: version}
	cmd := &cobra.Command{
		Use: "speaker", Short: "Speak BGP for the agent of this node", Args: cobra.NoArgs,
		Long: "Speak BGP for the agent of this node. The agent starts one where none runs (see its --speaker).\nIt goes on without the agent, and ends with SIGTERM or when its socket is removed; neighbours keep the node's routes for the restart time.",
	}
	logger := logFlag(cmd)
	cmd.Flags().StringVar(&c.RunDir, "run-dir", "/run/korat", "the agent's run directory; must not survive reboots")
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if c.Log, err = detachedLog(logger, "bgp"); err != nil {
			return err
		}
		c.New = func(restarted bool) reconcile.SpeakCloser {
			return guarded.New(gobgp.New(gobgp.Options{Log: c.Log, Restarted: restarted}), c.Log)
		}
		return child.Run(cmd.Context(), c)
	}
	return cmd
}
