package suite

import (
	"context"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	koratv1 "github.com/koratnet/korat/api/v1"
)

// TestRoutesMoveToAnotherTableUnderTraffic: on all nodes, to another metric and back,
// also while the agent of one is killed. What pods of other nodes and of this one send
// goes on.
func TestRoutesMoveToAnotherTableUnderTraffic(t *testing.T) {
	namespace(t, cluster, "tables")
	server := start(t, cluster, podOn("a1", "tables", "server", nil))
	for name, node := range map[string]string{"far": "b1", "near": "a1"} {
		start(t, cluster, podOn(node, "tables", name, nil))
		eventually(t, name+" reaches the server", func(context.Context) error { return reach(cluster, "tables/"+name, server) })
	}
	stops := map[string]func() (sent, lost int){}
	for _, name := range []string{"far", "near"} {
		stops[name] = pings(t, cluster, "tables/"+name, server)
	}
	c := &koratv1.BGPConfiguration{ObjectMeta: metav1.ObjectMeta{Name: koratv1.BGPConfigurationName}}
	t.Cleanup(func() { change(t, c, func() { c.Spec.KernelRoutes = koratv1.KernelRoutes{} }) })
	for i, to := range []koratv1.KernelRoutes{{Table: 200}, {Table: 300, Metric: 50}, {Metric: 50}, {Table: 200}, {}} {
		change(t, c, func() { c.Spec.KernelRoutes = to })
		if i%2 == 1 {
			if err := cluster.KillAgent(t.Context(), "a1"); err != nil {
				t.Fatal(err)
			}
			if err := cluster.StartAgent(t.Context(), "a1"); err != nil {
				t.Fatal(err)
			}
		}
		for _, node := range []string{"a1", "b1"} {
			eventually(t, fmt.Sprintf("all routes of %s in %+v", node, to), func(context.Context) error { return inPlace(t, node, to) })
		}
	}
	for name, stop := range stops {
		if sent, lost := stop(); lost > 0 {
			t.Errorf("%d of %d pings of %s were lost", lost, sent, name)
		}
	}
}

// inPlace reports what of a node's routes is not where it belongs.
func inPlace(t *testing.T, node string, to koratv1.KernelRoutes) error {
	table := to.Table
	if table == 0 {
		table = koratv1.DefaultRouteTable
	}
	in := fmt.Sprintf("table %d ", table)
	routes := strings.TrimSpace(sh(t, cluster, node, "ip", "-o", "-N", "route", "show", "table", "all", "proto", "112"))
	for line := range strings.Lines(routes) {
		line = strings.TrimSpace(line) + " "
		if table != koratv1.DefaultRouteTable && !strings.Contains(line, in) || table == koratv1.DefaultRouteTable && strings.Contains(line, "table ") {
			return fmt.Errorf("elsewhere: %s", line)
		}
		if got := strings.Contains(line, fmt.Sprintf("metric %d ", to.Metric)); got != (to.Metric != 0) {
			return fmt.Errorf("with another metric: %s", line)
		}
	}
	rules := strings.Count(sh(t, cluster, node, "ip", "rule", "show", "protocol", "112"), "112")
	if strings.Count(routes, "\n") < 2 || (rules > 0) != (table != koratv1.DefaultRouteTable) {
		return fmt.Errorf("%d rules and the routes\n%s", rules, routes)
	}
	return nil
}

// TestNodesThatServeSaySo in the condition by which pods are scheduled, and an agent that
// ends takes nothing back.
func TestNodesThatServeSaySo(t *testing.T) {
	condition := func(ctx context.Context, node string) (*corev1.NodeCondition, error) {
		n := &corev1.Node{}
		if err := cluster.Client.Get(ctx, client.ObjectKey{Name: node}, n); err != nil {
			return nil, err
		}
		for _, c := range n.Status.Conditions {
			if c.Type == corev1.NodeNetworkUnavailable {
				return &c, nil
			}
		}
		return nil, fmt.Errorf("%s has no such condition", node)
	}
	var before *corev1.NodeCondition
	serves := func(ctx context.Context) (err error) {
		if before, err = condition(ctx, "a1"); err == nil && (before.Status != corev1.ConditionFalse || before.Reason != "KoratServes") {
			err = fmt.Errorf("the node says %+v", before)
		}
		return err
	}
	eventually(t, "a1 serves", serves)
	since := before.LastTransitionTime
	if err := cluster.StopAgent(t.Context(), "a1"); err != nil {
		t.Fatal(err)
	}
	if err := serves(t.Context()); err != nil {
		t.Errorf("while no agent runs: %v", err)
	}
	if err := cluster.StartAgent(t.Context(), "a1"); err != nil {
		t.Fatal(err)
	}
	namespace(t, cluster, "condition")
	start(t, cluster, podOn("a1", "condition", "after", nil)) // the new agent knows all by now
	if err := serves(t.Context()); err != nil || !before.LastTransitionTime.Equal(&since) {
		t.Errorf("after a restart the node says %+v (%v), which was so since %s", before, err, since)
	}
}
