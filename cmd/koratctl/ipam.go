package main

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/koratnet/korat/cmd/koratctl/internal/addresses"
	"github.com/koratnet/korat/cmd/koratctl/internal/live"
	"github.com/koratnet/korat/felix/kube"
)

// exitProblems is the exit status of a check that found something.
const exitProblems = 3

func ipamCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "ipam", Short: "Ask who has which address, and whether the books agree",
		Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(ipamShowCommand(), ipamCheckCommand(), ipamWhoHasCommand(), ipamReleaseCommand())
	return cmd
}

// clients returns clients of the cluster.
func (c *cluster) clients() (*kube.Clients, error) {
	cfg, err := live.Config(c.kubeconfig, c.context, "koratctl/"+version)
	if err != nil {
		return nil, err
	}
	return kube.New(cfg)
}

// books reads the cluster's books of addresses.
func (c *cluster) books(cmd *cobra.Command, agents []string) (*addresses.Books, error) {
	clients, err := c.clients()
	if err != nil {
		return nil, err
	}
	return addresses.Read(cmd.Context(), clients, agents)
}

func ipamShowCommand() *cobra.Command {
	var c cluster
	var o output
	var bars bool
	cmd := &cobra.Command{
		Use: "show", Short: "Show pools and blocks and how full they are", Args: cobra.NoArgs,
		Example: "  koratctl ipam show\n  koratctl ipam show --bars",
	}
	c.flags(cmd)
	o.flag(cmd)
	cmd.Flags().BoolVar(&bars, "bars", false, "draw a bar for each pool and block")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := o.check(); err != nil {
			return err
		}
		b, err := c.books(cmd, nil)
		if err != nil {
			return err
		}
		text := b.Show()
		if bars {
			text = b.Bars()
		}
		return o.print(cmd.OutOrStdout(), map[string]any{"pools": b.Pools, "blocks": b.Blocks}, text)
	}
	return cmd
}

func ipamCheckCommand() *cobra.Command {
	var c cluster
	var o output
	var agents []string
	var settle time.Duration
	cmd := &cobra.Command{
		Use: "check", Short: "Compare pools, blocks, pods, and what agents have in journal and kernel",
		Long: `Compare pools, blocks, pods, and what agents have in journal and kernel.

What the API server tells is some seconds behind what happens, so what seems wrong
is read again after --settle, and only what is wrong both times is told. The exit
status is 0 if the books agree and 3 if not.

With --agent also the journal and the kernel of a node are compared: give the address
of its agent's HTTP port, as it is reached from here, or a file with what it answers
at /ipam.`,
		Example: "  koratctl ipam check\n  koratctl ipam check --agent http://127.0.0.1:9099",
		Args:    cobra.NoArgs,
	}
	c.flags(cmd)
	o.flag(cmd)
	cmd.Flags().StringArrayVar(&agents, "agent", nil, "URL of an agent's HTTP port, or file with its answer; repeatable")
	cmd.Flags().DurationVar(&settle, "settle", 12*time.Second, "time after which what seems wrong is read again")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := o.check(); err != nil {
			return err
		}
		b, err := c.books(cmd, agents)
		if err != nil {
			return err
		}
		found := b.Check()
		if len(found) > 0 && settle > 0 {
			select {
			case <-time.After(settle):
			case <-cmd.Context().Done():
				return cmd.Context().Err()
			}
			if b, err = c.books(cmd, agents); err != nil {
				return err
			}
			found = addresses.Both(found, b.Check())
		}
		if err := o.print(cmd.OutOrStdout(), map[string]any{"problems": append([]addresses.Problem{}, found...)}, checkText(b, found)); err != nil {
			return err
		}
		if len(found) > 0 {
			return status(exitProblems)
		}
		return nil
	}
	return cmd
}

func checkText(b *addresses.Books, found []addresses.Problem) string {
	var s strings.Builder
	for _, p := range found {
		fmt.Fprintf(&s, "%-10s %s\n", p.Kind, p.Message)
	}
	fmt.Fprintf(&s, "%d problems in %d pools, %d blocks, %d pods; %d agents asked\n", len(found), len(b.Pools), len(b.Blocks), len(b.Pods), len(b.Agents))
	return s.String()
}

func ipamWhoHasCommand() *cobra.Command {
	var c cluster
	var o output
	cmd := &cobra.Command{
		Use: "who-has ADDRESS", Short: "Tell what is known of an address", Args: cobra.ExactArgs(1),
		Example: "  koratctl ipam who-has 10.244.0.7",
	}
	c.flags(cmd)
	o.flag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := o.check(); err != nil {
			return err
		}
		a, err := netip.ParseAddr(args[0])
		if err != nil {
			return fmt.Errorf("%q: expected an address such as 10.244.0.7", args[0])
		}
		b, err := c.books(cmd, nil)
		if err != nil {
			return err
		}
		h := b.WhoHas(a.Unmap())
		return o.print(cmd.OutOrStdout(), h, h.Text())
	}
	return cmd
}

func ipamReleaseCommand() *cobra.Command {
	var c cluster
	cmd := &cobra.Command{
		Use: "release BLOCK|ADDRESS", Short: "Free the block of a node that is gone at once",
		Long: `Free the block of a node that is gone at once, which the controller does after
its grace. The block is named by its range or by an address of it. Nothing is freed
that a pod has, nor of a node that is there: its agent does that by itself.`,
		Example: "  koratctl ipam release 10.244.0.64/26", Args: cobra.ExactArgs(1),
	}
	c.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		what, err := netip.ParsePrefix(args[0])
		if a, e := netip.ParseAddr(args[0]); e == nil {
			what, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil || what.Masked() != what {
			return fmt.Errorf("%q: expected a block such as 10.244.0.64/26, or an address", args[0])
		}
		clients, err := c.clients()
		if err != nil {
			return err
		}
		b, err := addresses.Read(cmd.Context(), clients, nil)
		if err != nil {
			return err
		}
		x, err := b.Releasable(what)
		if err != nil {
			return err
		}
		if err := addresses.Release(cmd.Context(), clients, x); err != nil {
			return err
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "block %s of node %s is free\n", x.Spec.CIDR, x.Spec.Node)
		return err
	}
	return cmd
}
