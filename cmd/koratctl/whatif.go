package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/koratnet/korat/cmd/koratctl/internal/manifest"
	"github.com/koratnet/korat/cmd/koratctl/internal/world"
	"github.com/koratnet/korat/policy/whatif"
)

// whatIfAnswer is what what-if says as JSON: fields may be added, none renamed.
type whatIfAnswer struct {
	Changes  []whatif.Change `json:"changes"`
	Pods     whatif.Lone     `json:"pods"`     // that are only in one of the two
	Problems []world.Problem `json:"problems"` // those that may make the answer another one
}

func whatIfCommand() *cobra.Command {
	var c cluster
	var o output
	var files, base, deletes []string
	cmd := &cobra.Command{
		Use: "what-if -f FILE...", Short: "Tell whose traffic policies would change, before they are applied",
		Long: `Tell whose traffic policies would change, before they are applied.

All traffic between all pods, nodes and the address ranges that policies name is
asked about twice: in the cluster, or the manifests of --base, as it is, and as it
would be with the objects of -f and without those of --delete. Pods that are there
only once are named; koratctl policy explain tells what they may do.`,
		Example: `  koratctl policy what-if -f new.yaml
  koratctl policy what-if --delete networkpolicy/shop/deny
  koratctl policy what-if --base manifests/ -f new.yaml -o json`,
		Args: cobra.NoArgs,
	}
	c.flags(cmd)
	o.flag(cmd)
	f := cmd.Flags()
	f.StringArrayVarP(&files, "filename", "f", nil, "file or directory of manifests that would be applied, - for the standard input; repeatable")
	f.StringArrayVar(&deletes, "delete", nil, "KIND/NAMESPACE/NAME or KIND/NAME of an object that would be deleted; repeatable")
	f.StringArrayVar(&base, "base", nil, "file or directory of manifests that stand for the cluster; repeatable")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if len(files)+len(deletes) == 0 {
			return errors.New("nothing would change, expected -f with manifests to apply, --delete with an object to delete, or both")
		}
		if err := o.check(); err != nil {
			return err
		}
		var over []manifest.Object
		var err error
		if len(files) > 0 {
			if over, err = manifest.Read(files, cmd.InOrStdin()); err != nil {
				return err
			}
		}
		now, err := c.objects(cmd, base)
		if err != nil {
			return err
		}
		then := world.Overlay(now, over)
		for _, ref := range deletes {
			if then, err = world.Delete(then, ref); err != nil {
				return err
			}
		}
		return compare(cmd, o, world.Build(now), world.Build(then))
	}
	return cmd
}

func compare(cmd *cobra.Command, o output, before, after *world.World) error {
	a := whatIfAnswer{
		Changes:  whatif.Compare(&before.Cluster, &after.Cluster),
		Pods:     whatif.Alone(&before.Cluster, &after.Cluster),
		Problems: world.Serious(after.Problems),
	}
	if o == "text" {
		printProblems(cmd.ErrOrStderr(), a.Problems)
	}
	var text strings.Builder
	for _, c := range a.Changes {
		fmt.Fprintln(&text, c)
	}
	for _, pod := range a.Pods.Gone {
		fmt.Fprintf(&text, "%s: only now, its traffic is not compared\n", pod)
	}
	for _, pod := range a.Pods.Added {
		fmt.Fprintf(&text, "%s: only then, its traffic is not compared\n", pod)
	}
	if text.Len() == 0 {
		fmt.Fprintln(&text, "Nothing changes.")
	}
	return o.print(cmd.OutOrStdout(), a, text.String())
}
