package gobgp_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/felix/kernel/route"
)

// intoKernel makes the kernel's routes be what a speaker learned, as the agent does.
func intoKernel(ctx context.Context, to *route.Reconciler, changed []bgp.Learned) {
	d := desired.Delta{Routes: make(map[netip.Prefix]*desired.Route, len(changed))}
	for _, l := range changed {
		if len(l.NextHops) == 0 {
			d.Routes[l.Prefix] = nil
		} else {
			d.Routes[l.Prefix] = &desired.Route{Prefix: l.Prefix, Kind: desired.Via, NextHops: l.NextHops, Weights: l.Weights}
		}
	}
	to.Want(d)
	if err := to.Apply(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

// kernelHas counts the IPv4 routes in a namespace.
func kernelHas(t testing.TB, ns *kerneltest.Namespace) (n int) {
	t.Helper()
	var b []byte
	var err error
	ns.Do(func() { b, err = os.ReadFile("/proc/thread-self/net/fib_triestat") })
	if err != nil {
		t.Fatal(err)
	}
	_, main, _ := strings.Cut(string(b), "Main:")
	for line := range strings.Lines(main) {
		if _, err := fmt.Sscanf(line, "\tPrefixes: %d", &n); err == nil {
			break
		}
	}
	return n
}
