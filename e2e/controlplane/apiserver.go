package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/pflag"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/rest"
	"k8s.io/component-base/logs"
	logsapi "k8s.io/component-base/logs/api/v1"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	"k8s.io/kubernetes/cmd/kube-apiserver/app/options"
)

// drainTime is what running requests get at the end.
const drainTime = 500 * time.Millisecond

// apiserverFlags are the flags of kube-apiserver in the lab.
func apiserverFlags(c config, etcdURL string) []string {
	flags := []string{
		"--etcd-servers=" + etcdURL,
		"--bind-address=" + c.bind.String(),
		"--advertise-address=" + c.advertise.String(),
		fmt.Sprintf("--secure-port=%d", c.port),
		"--tls-cert-file=" + c.file("apiserver.crt"),
		"--tls-private-key-file=" + c.file("apiserver.key"),
		"--client-ca-file=" + c.file("ca.crt"),
		"--service-account-key-file=" + c.file("sa.pub"),
		"--service-account-signing-key-file=" + c.file("sa.key"),
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-cluster-ip-range=" + c.serviceCIDR,
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--allow-privileged=true",
		"--profiling=false",
		fmt.Sprintf("--v=%d", c.verbosity),
	}
	if !c.nodes {
		// It taints every new Node until node-lifecycle-controller has seen a
		// kubelet's heartbeat; here are neither.
		return append(flags, "--disable-admission-plugins=TaintNodesByCondition")
	}
	return append(flags,
		"--kubelet-client-certificate="+c.file(kubeletClient+".crt"),
		"--kubelet-client-key="+c.file(kubeletClient+".key"),
		"--kubelet-preferred-address-types=InternalIP",
	)
}

// runAPIServer serves until ctx ends and drainTime more at most: it does not wait
// for clients that watch, of which every agent is one.
func runAPIServer(ctx context.Context, flags []string) error {
	ended := make(chan error, 1)
	go func() { ended <- apiserverMain(ctx, flags) }()
	select {
	case err := <-ended:
		return apiserverEnd(ctx, err)
	case <-ctx.Done():
	}
	select {
	case err := <-ended:
		return apiserverEnd(ctx, err)
	case <-time.After(drainTime):
		return nil
	}
}

func apiserverEnd(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return nil
	case err == nil:
		return errors.New("kube-apiserver ended by itself")
	}
	return fmt.Errorf("kube-apiserver: %w", err)
}

// apiserverMain is upstream's command without its handler of the process' signals.
func apiserverMain(ctx context.Context, flags []string) error {
	opts := options.NewServerRunOptions()
	fs := pflag.NewFlagSet("kube-apiserver", pflag.ContinueOnError)
	for _, set := range opts.Flags().FlagSets {
		fs.AddFlagSet(set)
	}
	if err := fs.Parse(flags); err != nil {
		return err
	}
	if err := opts.GenericServerRunOptions.ComponentGlobalsRegistry.Set(); err != nil {
		return err
	}
	rest.SetDefaultWarningHandler(rest.NoWarnings{}) // or it logs its own requests
	logs.InitLogs()
	if err := logsapi.ValidateAndApply(opts.Logs, utilfeature.DefaultFeatureGate); err != nil {
		return err
	}
	completed, err := opts.Complete(ctx)
	if err != nil {
		return err
	}
	if errs := completed.Validate(); len(errs) != 0 {
		return utilerrors.NewAggregate(errs)
	}
	return apiserver.Run(ctx, completed)
}
