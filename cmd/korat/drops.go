package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"

	"github.com/spf13/cobra"

	"github.com/koratnet/korat/felix/flow/wire"
)

// dropsCommand is what koratctl runs inside an agent's pod: the socket is for root
// on the node alone.
func dropsCommand() *cobra.Command {
	var q wire.Question
	var runDir string
	var addrs []string
	cmd := &cobra.Command{
		Use: "drops", Short: "Print what was denied on this node, in JSON, an object a line (koratctl drops reads it)", Args: cobra.NoArgs,
	}
	f := cmd.Flags()
	f.StringVar(&runDir, "run-dir", "/run/korat", "run directory of the agent")
	f.StringArrayVar(&q.Pods, "pod", nil, "only what concerns this pod, NAMESPACE/NAME; repeatable")
	f.StringArrayVar(&addrs, "addr", nil, "only what concerns this address; repeatable")
	f.BoolVar(&q.Follow, "follow", false, "go on with what comes")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		for _, text := range addrs {
			a, err := netip.ParseAddr(text)
			if err != nil {
				return fmt.Errorf("--addr is %q, expected an address", text)
			}
			q.Addrs = append(q.Addrs, a)
		}
		answer, err := wire.Open(cmd.Context(), wire.SocketIn(runDir), q)
		if err != nil {
			return err
		}
		_, err = io.Copy(cmd.OutOrStdout(), answer)
		if cmd.Context().Err() != nil { // a follower is ended like that
			err = nil
		}
		return errors.Join(err, answer.Close())
	}
	return cmd
}
