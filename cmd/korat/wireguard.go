package main

import (
	"github.com/spf13/cobra"

	"github.com/koratnet/korat/felix/kernel/wireguard"
)

// wireguardCommand encrypts for the agent of the same run directory.
func wireguardCommand() *cobra.Command {
	c := wireguard.ServeConfig{Version: version}
	cmd := &cobra.Command{
		Use: "wireguard", Short: "Encrypt for the agent of this node where the kernel cannot", Args: cobra.NoArgs,
		Long: "Encrypt what leaves by one interface and decrypt what comes, as the agent of this node says, where the kernel knows no WireGuard.\nThe agent starts it and hands it what it needs. It goes on without the agent, and ends with SIGTERM, or when its socket or the interface is removed.",
	}
	logger := logFlag(cmd)
	cmd.Flags().StringVar(&c.Device, "device", "", "name of the interface")
	cmd.Flags().StringVar(&c.RunDir, "run-dir", "/run/korat", "the agent's run directory; must not survive reboots")
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if c.Log, err = detachedLog(logger, "wireguard"); err != nil {
			return err
		}
		return wireguard.Serve(cmd.Context(), c)
	}
	return cmd
}
