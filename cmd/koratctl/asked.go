package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
)

// asked says which agents a command asks: this node's, another's or all.
type asked struct {
	cluster
	node, runDir, namespace, selector string
}

func (a *asked) flags(cmd *cobra.Command) {
	a.cluster.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&a.node, "node", "", "ask only the agent of this node, through the API server")
	f.StringVar(&a.runDir, "run-dir", "/run/korat", "run directory of this node's agent")
	f.StringVar(&a.namespace, "agent-namespace", "kube-system", "namespace of the agents' pods")
	f.StringVar(&a.selector, "agent-selector", "app.kubernetes.io/name=korat,app.kubernetes.io/component=agent", "labels of the agents' pods")
}

// here reports whether this node's agent is asked, which answers at socket: if there
// is one and no other is meant.
func (a *asked) here(cmd *cobra.Command, socket string) (bool, error) {
	meant := cmd.Flags().Changed("run-dir")
	if a.node != "" {
		if meant {
			return false, errors.New("both --run-dir and --node are given, expected one: the run directory is that of this node's agent")
		}
		return false, nil
	}
	if _, err := os.Stat(socket); err != nil {
		if meant {
			return false, fmt.Errorf("no agent answers at %s: %w", filepath.Clean(a.runDir), err)
		}
		return false, nil
	}
	return true, nil
}
