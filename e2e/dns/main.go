// Dns is CoreDNS for the cluster lab, with the plugins that its Corefile and those
// of upstream's tests name, and none besides: those of clouds are most of what
// CoreDNS is built from.
//
// A Go module of its own, so that nothing else is bound to CoreDNS' dependencies.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/forward"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/hosts"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/log"
	_ "github.com/coredns/coredns/plugin/metrics"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/reload"
)

func main() {
	// In the order in which queries meet them.
	dnsserver.Directives = []string{"reload", "health", "ready", "prometheus", "errors", "log", "cache", "hosts", "kubernetes", "forward"}
	coremain.Run()
}
