package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/spf13/cobra"

	v1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/e2e/lab"
)

// use are the commands for a lab that is up.
func (c *command) use() []*cobra.Command {
	// withLab makes a command that works on the lab and its arguments.
	withLab := func(use, short string, args cobra.PositionalArgs, run func(context.Context, *lab.Lab, []string) error) *cobra.Command {
		return &cobra.Command{
			Use: use, Short: short, Args: args,
			RunE: func(cmd *cobra.Command, args []string) error {
				l, err := lab.Open(c.o)
				if err != nil {
					return err
				}
				return run(cmd.Context(), l, args)
			},
		}
	}
	onNode := func(use, short string, do func(*lab.Lab, context.Context, string) error) *cobra.Command {
		return withLab(use+" NODE", short, cobra.ExactArgs(1), func(ctx context.Context, l *lab.Lab, args []string) error {
			return do(l, ctx, args[0])
		})
	}
	onAPI := func(use, short string, do func(*lab.Lab, context.Context) error) *cobra.Command {
		return withLab(use, short, cobra.NoArgs, func(ctx context.Context, l *lab.Lab, _ []string) error { return do(l, ctx) })
	}
	execute := withLab("exec NODE|ROUTER|HOST|[NAMESPACE/]POD COMMAND...", "run a command inside", cobra.MinimumNArgs(2), runInside)
	execute.Flags().SetInterspersed(false) // flags after the target are the command's
	return []*cobra.Command{
		execute,
		onAPI("status", "nodes, agents, sessions and pods", status),
		onAPI("kubeconfig", "print the path of the admin's credentials", func(l *lab.Lab, _ context.Context) error {
			_, err := fmt.Println(l.Kubeconfig())
			return err
		}),
		onNode("start-agent", "start the node's agent", (*lab.Lab).StartAgent),
		onNode("stop-agent", "end the node's agent with SIGTERM", (*lab.Lab).StopAgent),
		onNode("kill-agent", "end the node's agent with SIGKILL", (*lab.Lab).KillAgent),
		onNode("restart-agent", "end the node's agent with SIGTERM and start it", func(l *lab.Lab, ctx context.Context, node string) error {
			if err := l.StopAgent(ctx, node); err != nil {
				return err
			}
			return l.StartAgent(ctx, node)
		}),
		onNode("kill-runner", "end the node's runner with SIGKILL; pods go on", (*lab.Lab).KillRunner),
		onNode("start-runner", "start the node's runner", func(l *lab.Lab, _ context.Context, node string) error { return l.StartRunner(node) }),
		onAPI("stop-api", "end the API server, etcd and controllers", (*lab.Lab).StopAPI),
		onAPI("start-api", "start the API server, etcd and controllers", (*lab.Lab).StartAPI),
	}
}

// runInside hands over the terminal and ends as the command ends.
func runInside(ctx context.Context, l *lab.Lab, args []string) error {
	cmd := exec.CommandContext(ctx, args[1], args[2:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err := l.Exec(args[0], cmd)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		os.Exit(exit.ExitCode())
	}
	if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signaled() {
		os.Exit(128 + int(exit.Sys().(syscall.WaitStatus).Signal()))
	}
	return err
}

func status(l *lab.Lab, ctx context.Context) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 4, 3, ' ', 0)
	defer w.Flush()
	fmt.Fprintln(w, "MACHINE\tSERVICES")
	for _, name := range l.Machines() {
		m := l.Machine(name)
		services, err := m.Services()
		if err != nil {
			fmt.Fprintf(w, "%s\t%v\n", name, err)
			continue
		}
		var words []string
		for _, s := range services {
			if s.Running {
				words = append(words, fmt.Sprintf("%s(%d)", s.Name, m.HostPID(s)))
			} else {
				words = append(words, fmt.Sprintf("%s: %s", s.Name, s.Status))
			}
		}
		fmt.Fprintf(w, "%s\t%s\n", name, strings.Join(words, "  "))
	}
	if l.FabricOnly {
		return nil
	}
	if err := sessions(ctx, l, w); err != nil {
		fmt.Fprintf(w, "\nsessions are unknown: %v\n", err)
	}
	return pods(l, w)
}

func sessions(ctx context.Context, l *lab.Lab, w *tabwriter.Writer) error {
	var list v1.NodeNetworkList
	if err := l.Client.List(ctx, &list); err != nil {
		return err
	}
	fmt.Fprintln(w, "\nNODE\tPEER\tADDRESS\tAS\tSTATE\tRECEIVED\tADVERTISED")
	for _, n := range list.Items {
		for _, s := range n.Status.Sessions {
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%d\t%d\n", n.Name, s.Peer, s.Address, s.ASNumber, s.State, s.Received, s.Advertised)
		}
	}
	return nil
}

func pods(l *lab.Lab, w *tabwriter.Writer) error {
	all, err := l.Pods()
	if err != nil {
		return err
	}
	fmt.Fprintln(w, "\nPOD\tNODE\tADDRESSES")
	for _, p := range all {
		fmt.Fprintf(w, "%s/%s\t%s\t%v\n", p.Namespace, p.Name, p.Node, p.Addresses)
	}
	return nil
}
