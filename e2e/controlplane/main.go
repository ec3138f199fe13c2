// Controlplane is the Kubernetes control plane of Korat's lab in one file:
//
//	controlplane serve       etcd and kube-apiserver in one process, with
//	                         kube-controller-manager and kube-scheduler as children
//	controlplane kubeconfig  signs a client certificate, writes a kubeconfig for it
//	controlplane kubectl ... upstream's own, as are kube-controller-manager and
//	                         kube-scheduler
//
// A component runs also when the binary is called by its name (a symbolic link).
// README.md tells sizes, times and traps.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
)

const usage = `usage: controlplane COMMAND [FLAGS]

  serve                    run a control plane until SIGTERM (serve --help)
  kubeconfig               write a kubeconfig for a user (kubeconfig --help)
  kubectl                  as upstream
  kube-controller-manager  as upstream
  kube-scheduler           as upstream
`

func main() {
	// Children die with the thread that started them (see child), so serve has to
	// stay on the one thread that lives as long as the process.
	runtime.LockOSThread()

	name, args := filepath.Base(os.Args[0]), os.Args[1:]
	if _, ok := components[name]; !ok && len(args) > 0 {
		name, args = args[0], args[1:]
	}
	var err error
	switch component, ok := components[name]; {
	case ok:
		os.Args = append([]string{name}, args...) // upstream's commands read them there
		os.Exit(component())
	case name == "serve":
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
		err = serveCommand(ctx, args)
		stop()
	case name == "kubeconfig":
		err = kubeconfigCommand(args)
	default:
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "controlplane %s: %v\n", name, err)
		os.Exit(1)
	}
}
