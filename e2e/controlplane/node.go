//go:build node

package main

import (
	"context"

	"k8s.io/component-base/cli"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

// What nodes run is built with the tag node only: a lab whose nodes have no
// kubelet does without it, and it takes two more minutes to compile.
func init() {
	components["kubelet"] = func() int { return cli.Run(kubelet.NewKubeletCommand(context.Background())) }
	components["kube-proxy"] = func() int { return cli.Run(proxy.NewProxyCommand()) }
}
