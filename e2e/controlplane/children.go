package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// controllers that a lab without kubelets has need of. Those of nodes are missing on purpose:
// without kubelets node-lifecycle-controller would find every Node dead, and
// Korat gives out addresses itself.
var controllers = []string{
	"clusterrole-aggregation-controller",
	"cronjob-controller",
	"daemonset-controller",
	"deployment-controller",
	"endpointslice-controller",
	"garbage-collector-controller",
	"job-controller",
	"namespace-controller",
	"pod-garbage-collector-controller",
	"replicaset-controller",
	"root-ca-certificate-publisher-controller",
	"serviceaccount-controller",
	"serviceaccount-token-controller",
	"statefulset-controller",
	"ttl-after-finished-controller",
}

// startControllerManager and startScheduler listen nowhere, so that several labs
// may share a network namespace, and elect no leader: each is the only one.
func startControllerManager(ctx context.Context, c config) (*exec.Cmd, error) {
	run := controllers
	if c.nodes {
		run = []string{"*", "-node-ipam-controller", "-node-route-controller"}
	}
	return child(ctx, c, "kube-controller-manager",
		"--kubeconfig="+c.kubeconfig("kube-controller-manager"),
		"--controllers="+strings.Join(run, ","),
		"--cluster-signing-cert-file="+c.file("ca.crt"),
		"--cluster-signing-key-file="+c.file("ca.key"),
		"--use-service-account-credentials=true",
		"--service-account-private-key-file="+c.file("sa.key"),
		"--root-ca-file="+c.file("ca.crt"),
	)
}

func startScheduler(ctx context.Context, c config) (*exec.Cmd, error) {
	return child(ctx, c, "kube-scheduler",
		"--kubeconfig="+c.kubeconfig("kube-scheduler"),
	)
}

// child runs a component of this binary, its output in dir/NAME.log, until ctx
// ends or this process does, even by SIGKILL: the kernel then kills the child.
// To the kernel "this process" is the calling thread, so the caller must be
// locked to one that does not end before the process.
func child(ctx context.Context, c config, name string, flags ...string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	log, err := os.Create(filepath.Join(c.dir, name+".log"))
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	defer log.Close()
	flags = append(flags, "--leader-elect=false", "--secure-port=0", fmt.Sprintf("--v=%d", c.verbosity))
	cmd := exec.CommandContext(ctx, self, append([]string{name}, flags...)...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return cmd, nil
}

// waitChild returns when the child has ended: nil when ctx ended it.
func waitChild(ctx context.Context, cmd *exec.Cmd) error {
	err := cmd.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("%s ended by itself (%v), see %s", cmd.Args[1], err, cmd.Args[1]+".log")
}
