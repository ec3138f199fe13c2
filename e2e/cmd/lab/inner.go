package main

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/koratnet/korat/e2e/lab"
	"github.com/koratnet/korat/e2e/lab/cnibench"
	"github.com/koratnet/korat/e2e/lab/kubelet"
	"github.com/koratnet/korat/e2e/lab/machine"
	"github.com/koratnet/korat/e2e/lab/whoami"
)

// podCommand is the argument that makes the lab command a pod's server.
const podCommand = "pod-main"

// inner are the commands that run inside machines; nobody types them.
func inner() []*cobra.Command {
	return []*cobra.Command{nodeRunner(), podMain(), apiProxy(), cniBench()}
}

func nodeRunner() *cobra.Command {
	c := kubelet.Config{PodMain: []string{machine.BinDir + "/lab", podCommand}}
	var addresses []string
	cmd := &cobra.Command{
		Use: lab.RunnerCommand, Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, a := range addresses {
				addr, err := netip.ParseAddr(a)
				if err != nil {
					return err
				}
				c.Addresses = append(c.Addresses, addr)
			}
			c.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
			r, err := kubelet.New(c)
			if err != nil {
				return err
			}
			return r.Run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.Node, "node", "", "name of the node")
	f.StringVar(&c.Kubeconfig, "kubeconfig", "", "credentials")
	f.StringToStringVar(&c.Labels, "label", nil, "labels of the node")
	f.StringSliceVar(&addresses, "address", nil, "addresses of the node")
	return cmd
}

func podMain() *cobra.Command {
	return &cobra.Command{
		Use: podCommand + " NAMESPACE/NAME [PROTO/PORT]...", Hidden: true, Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return whoami.Serve(cmd.Context(), args[0], args[1:], func() {
				// The runner waits for a line here, and may be dead already.
				ready := os.NewFile(3, "ready")
				io.WriteString(ready, "ready\n")
				ready.Close()
			})
		},
	}
}

// apiProxy passes connections of the listening descriptor 3, a socket of the
// host, on to an address that only this machine reaches.
func apiProxy() *cobra.Command {
	return &cobra.Command{
		Use: lab.ProxyCommand + " ADDRESS", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := net.FileListener(os.NewFile(3, "door"))
			if err != nil {
				return err
			}
			g, ctx := errgroup.WithContext(cmd.Context())
			context.AfterFunc(ctx, func() { l.Close() })
			for {
				c, err := l.Accept()
				if err != nil {
					return err
				}
				g.Go(func() error { splice(ctx, c, args[0]); return nil })
			}
		},
	}
}

// splice copies both ways until one side ends.
func splice(ctx context.Context, a net.Conn, addr string) {
	defer a.Close()
	b, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return
	}
	defer b.Close()
	done := make(chan struct{}, 2)
	pass := func(to, from net.Conn) {
		io.Copy(to, from)
		done <- struct{}{}
	}
	go pass(a, b)
	go pass(b, a)
	<-done
}

// cniBench measures CNI on the node that it runs in: `lab exec NODE lab cni-bench`.
func cniBench() *cobra.Command {
	early := false
	c := cnibench.Config{ConfDir: "/etc/cni/net.d", BinDirs: []string{"/opt/cni/bin", "/usr/lib/cni"}, CacheDir: "/run/cnibench"}
	cmd := &cobra.Command{
		Use: "cni-bench", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if early {
				return cnibench.Early(cmd.Context(), c, os.Stdout)
			}
			return cnibench.Run(cmd.Context(), c, os.Stdout)
		},
	}
	cmd.Flags().BoolVar(&early, "early", false, "send probes to pods that a policy closes while they are attached")
	cmd.Flags().IntVar(&c.Count, "count", 100, "ADDs and DELs of each network, one after the other")
	cmd.Flags().IntVar(&c.Parallel, "parallel", 100, "ADDs of each network at once")
	return cmd
}
