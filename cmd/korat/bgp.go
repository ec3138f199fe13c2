package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"

	"github.com/spf13/cobra"

	"github.com/koratnet/korat/felix/peering"
)

// bgpCommand is what koratctl runs inside an agent's pod: the socket is for root on
// the node alone.
func bgpCommand() *cobra.Command {
	var q peering.Question
	var runDir, prefix string
	cmd := &cobra.Command{
		Use: "bgp peers|routes|explain", Short: "Print what this node knows of BGP, in JSON, an object a line (koratctl bgp reads it)", Args: cobra.ExactArgs(1),
	}
	f := cmd.Flags()
	f.StringVar(&runDir, "run-dir", "/run/korat", "run directory of the agent")
	f.StringVar(&q.Peer, "peer", "", "routes of this peer only")
	f.StringVar(&prefix, "prefix", "", "routes inside of this prefix, or the one to explain")
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		q.What = args[0]
		if prefix != "" {
			if q.Prefix, err = netip.ParsePrefix(prefix); err != nil {
				return fmt.Errorf("--prefix is %q, expected one such as 10.244.0.0/16", prefix)
			}
		}
		answer, err := peering.Open(cmd.Context(), peering.SocketIn(runDir), q)
		if err != nil {
			return err
		}
		_, err = io.Copy(cmd.OutOrStdout(), answer)
		return errors.Join(err, answer.Close())
	}
	return cmd
}
