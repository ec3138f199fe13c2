// Command korat is the node's agent and the cluster's controller.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/agent"
)

// version is set by the linker.
var version = "unknown"

func main() {
	// Where the kernel makes pages huge unasked, as Debian's does, what a small heap never
	// touched would be resident with it. A kernel that refuses loses nothing by it.
	_ = unix.Prctl(unix.PR_SET_THP_DISABLE, 1, 0, 0, 0)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	root := &cobra.Command{
		Use: "korat", Short: "Container networking by plain IP routing", Version: version,
		SilenceUsage: true, SilenceErrors: true,
	}
	root.AddCommand(agentCommand(), speakerCommand(), wireguardCommand(), controllerCommand(), dropsCommand(), bgpCommand(), installCommand(), uninstallCommand())
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "korat:", err)
		os.Exit(1)
	}
}

// logFlag adds --log-level and returns the function that makes the logger.
func logFlag(cmd *cobra.Command) func() (*slog.Logger, error) {
	level := cmd.Flags().String("log-level", "info", "debug, info, warn or error")
	return func() (*slog.Logger, error) {
		var l slog.Level
		if err := l.UnmarshalText([]byte(*level)); err != nil {
			return nil, fmt.Errorf("--log-level is %q, expected debug, info, warn or error", *level)
		}
		return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: l})), nil
	}
}

// detachedLog returns the logger of a part of the agent that is a process of its own.
// Its lines go to the agent's standard error. When that is gone they are lost, and
// nothing else.
func detachedLog(logger func() (*slog.Logger, error), part string) (*slog.Logger, error) {
	signal.Ignore(syscall.SIGPIPE)
	log, err := logger()
	if err != nil {
		return nil, err
	}
	return log.With("part", part), nil
}

func agentCommand() *cobra.Command {
	c := agent.Config{Version: version}
	cmd := &cobra.Command{
		Use: "agent", Short: "Run the agent of this node", Args: cobra.NoArgs,
		Long: "Run the agent of this node: routes, network policy and BGP for its pods.\nAll configuration but these flags is in the API (kubectl explain ippools.spec, bgppeers.spec, ...) and applies at once.",
	}
	logger := logFlag(cmd)
	f := cmd.Flags()
	f.StringVar(&c.Node, "node-name", os.Getenv("NODE_NAME"), "name of this node's Node object (default: $NODE_NAME)")
	f.StringVar(&c.Namespace, "namespace", cmp.Or(os.Getenv("POD_NAMESPACE"), "kube-system"), "namespace of the Secrets with passwords of BGP sessions (default: $POD_NAMESPACE, or kube-system)")
	f.StringVar(&c.Kubeconfig, "kubeconfig", "", "credentials for the API server (default: those given to pods)")
	f.StringVar(&c.StateDir, "state-dir", "/var/lib/korat", "directory of the address journal; must survive reboots")
	f.StringVar(&c.RunDir, "run-dir", "/run/korat", "directory of the CNI socket; must not survive reboots")
	f.StringVar(&c.HTTPAddress, "http-address", "127.0.0.1:9099", "address of /livez, /readyz and /metrics; empty: none")
	f.StringVar(&c.CNI.ConfDir, "cni-conf-dir", "/etc/cni/net.d", "directory in which the container runtime looks for networks; ours is written there when the node can serve pods; empty: none")
	f.StringVar(&c.CNI.BinDir, "cni-bin-dir", "/opt/cni/bin", "directory of the CNI plugins")
	f.StringSliceVar(&c.CNI.Chain, "cni-chain", []string{"portmap"}, "CNI plugins that run after ours, where they are installed: portmap, bandwidth, tuning, ...")
	f.StringVar(&c.Speaker, "speaker", agent.SpeakerChild, "who starts the BGP speaker (korat speaker): child, the agent, which leaves it running when it ends; or beside, somebody else, such as a container of the same pod")
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if c.Node == "" {
			return errors.New("--node-name is empty, expected the name of this node's Node object")
		}
		if c.Log, err = logger(); err != nil {
			return err
		}
		return agent.Run(cmd.Context(), c)
	}
	return cmd
}
