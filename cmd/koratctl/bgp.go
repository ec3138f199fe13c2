package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/koratnet/korat/cmd/koratctl/internal/agents"
	"github.com/koratnet/korat/cmd/koratctl/internal/live"
	"github.com/koratnet/korat/cmd/koratctl/internal/peers"
	"github.com/koratnet/korat/felix/ask"
	"github.com/koratnet/korat/felix/peering"
)

// bgpQuestion is a command line of koratctl bgp.
type bgpQuestion struct {
	asked
	output
	peering.Question
}

func bgpCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "bgp", Short: "Tell who the BGP neighbours are, what they say and are told",
		Long: `Tell who the BGP neighbours are, what they say and are told.

On a node whose agent runs, that node is asked, without an API server. From
elsewhere, or with --node, agents are asked through the API server, which needs the
right to create pods/exec in the agents' namespace: one node's, or all.`,
	}
	cmd.AddCommand(bgpPeersCommand(), bgpRoutesCommand(), bgpExplainCommand())
	return cmd
}

func (q *bgpQuestion) flags(cmd *cobra.Command) {
	q.asked.flags(cmd)
	q.output.flag(cmd)
}

func bgpPeersCommand() *cobra.Command {
	q := bgpQuestion{Question: peering.Question{What: peering.Peers}}
	cmd := &cobra.Command{Use: "peers", Short: "List sessions, those that are down first", Args: cobra.NoArgs}
	q.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return q.run(cmd, func(lines []peering.Line) string { return peers.Sessions(lines, time.Now()) })
	}
	return cmd
}

func bgpRoutesCommand() *cobra.Command {
	q := bgpQuestion{Question: peering.Question{What: peering.Routes}}
	var only string
	cmd := &cobra.Command{
		Use: "routes [PREFIX]", Short: "List routes that peers say and are told, inside PREFIX or all",
		Example: "  koratctl bgp routes --only rejected\n  koratctl bgp routes 10.244.0.0/16 --peer bgppeer/tor-a --node a1", Args: cobra.MaximumNArgs(1),
	}
	q.flags(cmd)
	cmd.Flags().StringVar(&q.Peer, "peer", "", "of this peer only, such as bgppeer/tor-a or nodenetwork/a2")
	cmd.Flags().StringVar(&only, "only", "", "learnt, advertised or rejected")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		wanted, known := routesOnly[only]
		if !known {
			return fmt.Errorf("--only is %q, expected learnt, advertised or rejected", only)
		}
		if len(args) == 1 {
			var err error
			if q.Prefix, err = prefixOf(args[0]); err != nil {
				return err
			}
		}
		return q.run(cmd, peers.Routes, func(l peering.Line) bool { return l.Route != nil && wanted(l.Route) })
	}
	return cmd
}

var routesOnly = map[string]func(*peering.Route) bool{
	"":           func(*peering.Route) bool { return true },
	"learnt":     func(r *peering.Route) bool { return r.Peer != "" && !r.Told && r.Rejected == "" },
	"advertised": func(r *peering.Route) bool { return r.Told && r.Rejected == "" },
	"rejected":   func(r *peering.Route) bool { return r.Rejected != "" },
}

func bgpExplainCommand() *cobra.Command {
	q := bgpQuestion{Question: peering.Question{What: peering.Explain}}
	cmd := &cobra.Command{
		Use: "explain PREFIX", Short: "Tell what becomes of packets for an address or prefix, and why",
		Example: "  koratctl bgp explain 10.244.3.17", Args: cobra.ExactArgs(1),
	}
	q.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if q.Prefix, err = prefixOf(args[0]); err != nil {
			return err
		}
		return q.run(cmd, func(lines []peering.Line) string { return peers.Explain(args[0], lines) })
	}
	return cmd
}

// prefixOf reads an address or a prefix.
func prefixOf(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return p, fmt.Errorf("%q is no address and no prefix, expected one such as 10.244.3.17 or 10.244.0.0/16", text)
	}
	return p.Masked(), nil
}

// run asks, and prints what passes all filters. What some agents say is printed
// also if others fail.
func (q *bgpQuestion) run(cmd *cobra.Command, text func([]peering.Line) string, filters ...func(peering.Line) bool) error {
	if err := q.output.check(); err != nil {
		return err
	}
	var lines []peering.Line
	failed := q.ask(cmd, func(l peering.Line) error {
		for _, pass := range filters {
			if !pass(l) {
				return nil
			}
		}
		lines = append(lines, l)
		return nil
	})
	if failed != nil && len(lines) == 0 {
		return failed
	}
	slices.SortStableFunc(lines, func(a, b peering.Line) int { return strings.Compare(a.Node, b.Node) })
	if q.output == "json" {
		out := json.NewEncoder(cmd.OutOrStdout())
		for _, l := range lines {
			failed = errors.Join(failed, out.Encode(l))
		}
		return failed
	}
	_, err := io.WriteString(cmd.OutOrStdout(), text(lines))
	return errors.Join(failed, err)
}

// ask asks this node's agent, if there is one and no other is meant, or those of
// the cluster.
func (q *bgpQuestion) ask(cmd *cobra.Command, visit func(peering.Line) error) error {
	socket := peering.SocketIn(q.runDir)
	here, err := q.here(cmd, socket)
	if err != nil {
		return err
	}
	if here {
		answer, err := peering.Open(cmd.Context(), socket, q.Question)
		if err != nil {
			return err
		}
		return errors.Join(ask.Read(answer, visit), answer.Close())
	}
	return q.askCluster(cmd.Context(), visit)
}

func (q *bgpQuestion) askCluster(ctx context.Context, visit func(peering.Line) error) error {
	cfg, err := live.Config(q.kubeconfig, q.context, "koratctl/"+version)
	if err != nil {
		return err
	}
	c, err := agents.New(cfg, q.namespace, q.selector)
	if err != nil {
		return err
	}
	command := []string{"korat", "bgp", q.What}
	if q.Peer != "" {
		command = append(command, "--peer", q.Peer)
	}
	if q.Prefix.IsValid() {
		command = append(command, "--prefix", q.Prefix.String())
	}
	var turn sync.Mutex // one line after the other, whoever says it
	return c.Run(ctx, q.node, false, command, func(answer io.Reader) error {
		return ask.Read(answer, func(l peering.Line) error {
			turn.Lock()
			defer turn.Unlock()
			return visit(l)
		})
	})
}
