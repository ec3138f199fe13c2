package cluster_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/koratnet/korat/e2e/cluster"
	"github.com/koratnet/korat/e2e/cluster/conformance"
)

// daily are specs of upstream that say most in little time: policy of both
// directions, by pods, namespaces, prefixes and ports, and its changes.
const daily = `Netpol NetworkPolicy between server and client should (` +
	`support a 'default-deny-ingress' policy|support a 'default-deny-all' policy|` +
	`enforce policy based on Ports|enforce policy based on PodSelector and NamespaceSelector |` +
	`enforce except clause while egress access to server in CIDR block|` +
	`allow egress access to server in CIDR block|enforce updated policy|` +
	`allow ingress access on one named port|enforce egress policy allowing traffic to a server)`

// TestDaily is the part of the suite for every day: the chart is installed on a
// cluster whose pods wait, upstream's tests judge policy, and nothing is left after
// the removal.
func TestDaily(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	c := up(ctx, t, cluster.Options{Name: "tdaily", Images: []string{bin + "/cluster-images", bin + "/daily-images"}})
	called(t, c, imageTag(t, newest))
	p := newPage(t, c)
	waiting := startPod(ctx, t, c, "a1")
	p.run(ctx, p.commands("With Helm")[0])
	running(ctx, t, c, waiting)
	if err := c.ApplyNetwork(ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitInstalled(ctx); err != nil {
		t.Fatal(err)
	}

	result, err := conformance.Run(ctx, conformance.Options{
		Bin: bin, Kubeconfig: c.Kubeconfig(), Nodes: len(c.Topology.Nodes()),
		Focus: daily, Processes: 3, Report: filepath.Join(t.TempDir(), "report.json"), Output: t.Output(),
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range result.Failed {
		t.Error(s)
	}
	if want := 9; result.Passed+len(result.Failed) < want {
		t.Errorf("%s: want %d specs at least", result, want)
	}
	t.Log(result)
	p.run(ctx, "kubectl wait --for=delete namespaces --selector=e2e-framework --timeout=5m")
	remove(ctx, t, p, "a1", "b1")
}
