package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/koratnet/korat/cmd/koratctl/internal/drops"
	"github.com/koratnet/korat/cmd/koratctl/internal/live"
	"github.com/koratnet/korat/felix/ask"
	"github.com/koratnet/korat/felix/flow/wire"
)

// dropsQuestion is a command line of koratctl drops.
type dropsQuestion struct {
	asked
	output
	pods   string // namespace of a pod without one
	follow bool
}

func dropsCommand() *cobra.Command {
	var q dropsQuestion
	cmd := &cobra.Command{
		Use: "drops [POD]", Short: "Tell which packets were denied, and what denied them",
		Long: `Tell which packets were denied, and what denied them: of one pod (NAMESPACE/NAME,
or NAME with -n), or all. The last drop comes last. Each node remembers its last
4,096; packets that differ in nothing but their source port are one drop.

On a node whose agent runs, its own drops are told, without an API server. From
elsewhere, or with --node, agents are asked through the API server, which needs the
right to create pods/exec in the agents' namespace: one node's, or all.`,
		Example: "  koratctl drops shop/db\n  koratctl drops -n shop db --follow\n  koratctl drops --node a1 -o json",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return fmt.Errorf("%d arguments, expected one pod at most, such as shop/db", len(args))
			}
			return nil
		},
	}
	q.asked.flags(cmd)
	q.output.flag(cmd)
	f := cmd.Flags()
	f.StringVarP(&q.pods, "namespace", "n", "default", "namespace of a POD without one")
	f.BoolVarP(&q.follow, "follow", "f", false, "go on with what comes")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := q.output.check(); err != nil {
			return err
		}
		wanted := wire.Question{Follow: q.follow}
		if len(args) == 1 {
			name := args[0]
			if !strings.Contains(name, "/") {
				name = q.pods + "/" + name
			}
			wanted.Pods = []string{name}
		}
		p := &dropsPrinter{output: q.output, out: cmd.OutOrStdout(), problems: cmd.ErrOrStderr()}
		err := q.ask(cmd, wanted, p)
		if cmd.Context().Err() != nil { // that is how a follower ends
			return nil
		}
		return errors.Join(err, p.end(q.follow))
	}
	return cmd
}

// ask asks this node's agent, if there is one and no other is meant, or those of
// the cluster.
func (q *dropsQuestion) ask(cmd *cobra.Command, wanted wire.Question, p *dropsPrinter) error {
	here, err := q.here(cmd, wire.SocketIn(q.runDir))
	if err != nil {
		return err
	}
	if here {
		p.names = q.namesIfAny(cmd.Context())
		answer, err := wire.Open(cmd.Context(), wire.SocketIn(q.runDir), wanted)
		if err != nil {
			return err
		}
		return errors.Join(ask.Read(answer, p.line), answer.Close())
	}
	c, err := q.connect()
	if err != nil {
		return err
	}
	names, addrs, err := c.Names(cmd.Context())
	if err != nil {
		return err
	}
	p.names = names
	for _, pod := range wanted.Pods { // agents know the names of their own pods only
		if _, known := addrs[pod]; !known {
			fmt.Fprintf(p.problems, "warning: there is no pod %s with an address of its own now\n", pod)
		}
		wanted.Addrs = append(wanted.Addrs, addrs[pod]...)
	}
	return c.Ask(cmd.Context(), q.node, wanted, p.line)
}

func (q *dropsQuestion) connect() (*drops.Cluster, error) {
	cfg, err := live.Config(q.kubeconfig, q.context, "koratctl/"+version)
	if err != nil {
		return nil, err
	}
	return drops.NewCluster(cfg, q.namespace, q.selector)
}

// namesIfAny asks the API server for the names of pods on other nodes, if its
// credentials were given: a node may have none.
func (q *dropsQuestion) namesIfAny(ctx context.Context) drops.Names {
	if q.kubeconfig == "" && os.Getenv("KUBECONFIG") == "" {
		return nil
	}
	c, err := q.connect()
	if err != nil {
		return nil
	}
	names, _, err := c.Names(ctx)
	if err != nil {
		return nil
	}
	return names
}

// dropsPrinter prints answers as they come.
type dropsPrinter struct {
	output
	out, problems io.Writer
	names         drops.Names
	count         int
	last          wire.Drop
}

func (p *dropsPrinter) line(l wire.Line) error {
	if l.Drop != nil {
		p.names.Complete(l.Drop)
		p.count++
		p.last = *l.Drop
	}
	if p.output == "json" {
		return json.NewEncoder(p.out).Encode(l)
	}
	if l.Summary != nil {
		if trouble := drops.Trouble(*l.Summary); trouble != "" {
			fmt.Fprintln(p.problems, "warning:", trouble)
		}
		return nil
	}
	_, err := fmt.Fprintln(p.out, drops.Text(*l.Drop))
	return err
}

// end says how to go on.
func (p *dropsPrinter) end(follow bool) error {
	if p.output == "json" || follow {
		return nil
	}
	if p.count == 0 {
		_, err := fmt.Fprintln(p.out, "no drops")
		return err
	}
	hint := drops.Hint(p.last)
	if hint == "" {
		return nil
	}
	_, err := fmt.Fprintf(p.out, "\nMore about the last one: %s\n", hint)
	return err
}
