// Command lab makes, uses and removes a cluster on this machine. See package
// lab for what it consists of and `lab help` for what it can do.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/e2e/lab"
	"github.com/koratnet/korat/e2e/lab/machine"
	"github.com/koratnet/korat/e2e/lab/topology"
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == lab.InitCommand {
		fmt.Fprintln(os.Stderr, machine.Init(os.Args[2]))
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	if err := root().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
}

func root() *cobra.Command {
	c := &command{o: lab.Options{Progress: os.Stdout}}
	r := &cobra.Command{
		Use:   "lab",
		Short: "A cluster of namespaces on this machine",
		// main prints the error; a wrong flag needs no page of help.
		SilenceErrors: true, SilenceUsage: true,
	}
	f := r.PersistentFlags()
	f.StringVar(&c.o.Name, "name", "", `tells labs apart (default "korat")`)
	f.StringVar(&c.o.State, "state", "", "directory of the lab (default "+lab.StateRoot+"/NAME)")
	r.AddCommand(c.up(), c.down())
	r.AddCommand(c.use()...)
	r.AddCommand(inner()...)
	return r
}

type command struct {
	o        lab.Options
	topology string
}

func (c *command) up() *cobra.Command {
	cmd := &cobra.Command{
		Use: "up", Short: "make the lab", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if c.topology != "" {
				t, err := topology.Load(c.topology)
				if err != nil {
					return err
				}
				c.o.Topology = t
			}
			var err error
			if c.o.Self, err = os.Executable(); err != nil {
				return err
			}
			l, err := lab.Up(cmd.Context(), c.o)
			if err != nil && l != nil {
				err = fmt.Errorf("%w\nwhat is there stays for a look; `lab down` removes it", err)
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringVarP(&c.topology, "topology", "f", "", "topology file (default two racks of two nodes)")
	f.StringVar(&c.o.Bin, "bin", "bin", "directory of korat, korat-cni and controlplane")
	f.BoolVar(&c.o.FabricOnly, "fabric-only", false, "only machines, routers and links")
	return cmd
}

func (c *command) down() *cobra.Command {
	return &cobra.Command{
		Use: "down", Short: "remove the lab and all that it left", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return lab.Down(cmd.Context(), c.o) },
	}
}
