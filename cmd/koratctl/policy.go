package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/koratnet/korat/cmd/koratctl/internal/explain"
	"github.com/koratnet/korat/cmd/koratctl/internal/lint"
	"github.com/koratnet/korat/cmd/koratctl/internal/live"
	"github.com/koratnet/korat/cmd/koratctl/internal/manifest"
	"github.com/koratnet/korat/cmd/koratctl/internal/world"
	"github.com/koratnet/korat/policy"
)

func policyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "policy", Short: "Ask who may talk to whom, and why",
		Long: "Ask who may talk to whom, and why. The answers come from the same code by which nodes enforce policy is judged.",
	}
	cmd.Args, cmd.RunE = cobra.NoArgs, func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	cmd.AddCommand(explainCommand(), whatIfCommand(), lintCommand(), convertCommand())
	return cmd
}

// cluster is where objects come from: a live cluster or manifests.
type cluster struct {
	kubeconfig, context string
}

func (c *cluster) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&c.kubeconfig, "kubeconfig", "", "credentials for the API server (default: as kubectl finds them)")
	cmd.Flags().StringVar(&c.context, "context", "", "context of the kubeconfig (default: its current one)")
}

// objects reads manifests if there are any, else the cluster.
func (c *cluster) objects(cmd *cobra.Command, files []string) ([]manifest.Object, error) {
	if len(files) > 0 {
		return manifest.Read(files, cmd.InOrStdin())
	}
	return c.live(cmd.Context())
}

func (c *cluster) live(ctx context.Context) ([]manifest.Object, error) {
	cfg, err := live.Config(c.kubeconfig, c.context, "koratctl/"+version)
	if err != nil {
		return nil, err
	}
	return live.Read(ctx, cfg)
}

// output is the format of an answer.
type output string

func (o *output) flag(cmd *cobra.Command) {
	cmd.Flags().StringVarP((*string)(o), "output", "o", "text", "text or json")
}

func (o output) check() error {
	if o != "text" && o != "json" {
		return fmt.Errorf("--output is %q, expected text or json", string(o))
	}
	return nil
}

// print writes value as JSON, or its text.
func (o output) print(w io.Writer, value any, text string) error {
	if o == "text" {
		_, err := io.WriteString(w, text)
		return err
	}
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(value)
}

func explainCommand() *cobra.Command {
	var c cluster
	var o output
	var files []string
	var family int
	var why bool
	cmd := &cobra.Command{
		Use: "explain SRC DST:PORT[/PROTO]", Short: "Tell whether SRC may open a connection to DST, and what decides it",
		Long: `Tell whether SRC may open a connection to DST, and what decides it.

SRC and DST are pods, as NAMESPACE/NAME, addresses or names of nodes. An IPv6
address stands in brackets before a port. PORT is a number, or the name that the
destination gives to a port; before ICMP and ICMPv6 it is the type of the message.
PROTO is TCP if it is not given.

Exit status: 0 allowed, 3 denied, 1 when there is no answer.`,
		Example: `  koratctl policy explain shop/web shop/db:5432
  koratctl policy explain 203.0.113.9 '[fd00:10::7]:53/UDP' -f manifests/ --why
  koratctl policy explain node-a shop/web:/ICMP -o json`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return fmt.Errorf("%d arguments, expected two: SRC DST:PORT[/PROTO], such as shop/web shop/db:5432", len(args))
			}
			return nil
		},
	}
	c.flags(cmd)
	o.flag(cmd)
	cmd.Flags().StringArrayVarP(&files, "filename", "f", nil, "file or directory of manifests to ask about in place of the cluster, - for the standard input; repeatable")
	cmd.Flags().IntVar(&family, "family", 0, "4 or 6: address family (default: the first that both ends have)")
	cmd.Flags().BoolVar(&why, "why", false, "tell of every rule that was asked why it does not match")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if family != 0 && family != 4 && family != 6 {
			return fmt.Errorf("--family is %d, expected 4 or 6", family)
		}
		if err := o.check(); err != nil {
			return err
		}
		objects, err := c.objects(cmd, files)
		if err != nil {
			return err
		}
		w := world.Build(objects)
		q, err := explain.Parse(w, args[0], args[1], explain.Family(family))
		if err != nil {
			return err
		}
		depth := explain.Policies
		if why {
			depth = explain.Rules
		}
		return answer(cmd, o, explain.Ask(w, q), depth)
	}
	return cmd
}

// answer prints an answer and makes its verdict the exit status.
func answer(cmd *cobra.Command, o output, a explain.Answer, depth explain.Depth) error {
	if o == "text" {
		printProblems(cmd.ErrOrStderr(), a.Problems)
	}
	if err := o.print(cmd.OutOrStdout(), a, a.Text(depth)); err != nil {
		return err
	}
	if a.Verdict != policy.Allow {
		return status(exitDenied)
	}
	return nil
}

func lintCommand() *cobra.Command {
	var o output
	var files []string
	cmd := &cobra.Command{
		Use: "lint -f FILE...", Short: "Find what is wrong with policies in manifests",
		Long: `Find what is wrong with policies in manifests: parts that cannot be understood,
which are errors, and what was probably not meant, which are warnings: policies
that select none of the pods in the manifests, rules that are never asked.

Exit status: 1 when there are errors.`,
		Example: "  koratctl policy lint -f manifests/\n  kustomize build . | koratctl policy lint -f -",
		Args:    cobra.NoArgs,
	}
	o.flag(cmd)
	cmd.Flags().StringArrayVarP(&files, "filename", "f", nil, "file or directory of manifests, - for the standard input; repeatable")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if len(files) == 0 {
			return errors.New("there is nothing to check, expected -f with a file or a directory of manifests")
		}
		if err := o.check(); err != nil {
			return err
		}
		objects, err := manifest.Read(files, cmd.InOrStdin())
		if err != nil && len(objects) == 0 {
			return err
		}
		problems := lint.Check(world.Build(objects))
		var text strings.Builder
		printProblems(&text, problems)
		fmt.Fprintf(&text, "%d objects, %d errors\n", len(objects), lint.Errors(problems))
		if problems == nil {
			problems = []world.Problem{}
		}
		if err := errors.Join(err, o.print(cmd.OutOrStdout(), problems, text.String())); err != nil {
			return err
		}
		if lint.Errors(problems) > 0 {
			return status(exitError)
		}
		return nil
	}
	return cmd
}

func printProblems(w io.Writer, problems []world.Problem) {
	for _, p := range problems {
		fmt.Fprintf(w, "%s: %s\n", p.Severity, p)
	}
}
