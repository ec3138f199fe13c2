package suite

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	koratv1 "github.com/koratnet/korat/api/v1"
)

// TestItem78ADrainedNodeIsLeftBeforeItsPodsGo: the router of the rack sends no more
// connections to a node that is drained, by its annotation or where it is asked for
// by cordon, while its backend still serves; and does again when it is not drained.
func TestItem78ADrainedNodeIsLeftBeforeItsPodsGo(t *testing.T) {
	namespace(t, cluster, "draining")
	announceServices(t, koratv1.SwitchDisabled)
	vip := balancer(t, "draining", corev1.ServiceExternalTrafficPolicyLocal)
	backends := map[string]netip.Addr{}
	for _, node := range []string{"a1", "a2"} {
		backends[node] = start(t, cluster, podOn(node, "draining", "on-"+node, nil))
		proxy(t, node, vip, backends[node])
	}
	serve(t, "draining", backends, "a1", "a2")
	eventually(t, "both nodes", hasHops("tor-a", vip, "10.101.0.11", "10.101.0.12"))

	c := &koratv1.BGPConfiguration{ObjectMeta: metav1.ObjectMeta{Name: koratv1.BGPConfigurationName}}
	change(t, c, func() { c.Spec.DrainOn = koratv1.DrainOnCordon })
	t.Cleanup(func() { change(t, c, func() { c.Spec.DrainOn = koratv1.DrainOnAnnotation }) })
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a1"}}
	restore := func() {
		change(t, node, func() {
			delete(node.Annotations, koratv1.DrainAnnotation)
			node.Spec.Unschedulable = false
		})
	}
	t.Cleanup(restore)
	outside := cluster.Topology.Hosts[0].Name
	for how, drain := range map[string]func(){
		"annotation": func() { metav1.SetMetaDataAnnotation(&node.ObjectMeta, koratv1.DrainAnnotation, "true") },
		"cordon":     func() { node.Spec.Unschedulable = true },
	} {
		stop := ask(t, outside, vip)
		change(t, node, drain)
		eventually(t, how+": the router leaves the node", hasHops("tor-a", vip, "10.101.0.12"))
		eventually(t, how+": the node says that it drains", isDraining("a1", true))
		if err := reach(cluster, outside, vip); err != nil {
			t.Errorf("%s: the service is gone with the node: %v", how, err)
		}
		restore()
		eventually(t, how+": the router comes back to the node", hasHops("tor-a", vip, "10.101.0.11", "10.101.0.12"))
		eventually(t, how+": the node says that it does not drain", isDraining("a1", false))
		// The router's hash moves the connection that is open at a change to the other
		// node, which knows nothing of it. There are two changes.
		if sent, failed := stop(); len(failed) > 2 {
			t.Errorf("%s: of %d connections %d failed, such as %v", how, sent, len(failed), failed[0])
		}
	}
}

func isDraining(node string, want bool) func(context.Context) error {
	return func(ctx context.Context) error {
		var nn koratv1.NodeNetwork
		if err := cluster.Client.Get(ctx, client.ObjectKey{Name: node}, &nn); err != nil {
			return err
		}
		if nn.Status.Draining != want {
			return fmt.Errorf("status.draining is %t, want %t", nn.Status.Draining, want)
		}
		return nil
	}
}

// TestItem78ANodeIsReadyWithoutAllOfItsPeers: an agent that starts while one of its
// peers does not answer becomes ready, and the session says why it is down.
func TestItem78ANodeIsReadyWithoutAllOfItsPeers(t *testing.T) {
	create(t, cluster, &koratv1.BGPPeer{
		ObjectMeta: metav1.ObjectMeta{Name: "dead"},
		Spec: koratv1.BGPPeerSpec{
			NodeSelector: "kubernetes.io/hostname == 'a2'", Address: "10.101.0.77", ASNumber: 65177, Advertise: []koratv1.Advertise{koratv1.AdvertiseBlocks},
		},
	})
	if err := cluster.KillAgent(t.Context(), "a2"); err != nil {
		t.Fatal(err)
	}
	if err := cluster.StartAgent(t.Context(), "a2"); err != nil { // waits until it is ready
		t.Fatal(err)
	}
	eventually(t, "the session is told as down", func(ctx context.Context) error {
		var nn koratv1.NodeNetwork
		if err := cluster.Client.Get(ctx, client.ObjectKey{Name: "a2"}, &nn); err != nil {
			return err
		}
		for _, s := range nn.Status.Sessions {
			if s.Address == "10.101.0.77" && s.State != koratv1.SessionEstablished {
				return nil
			}
		}
		return fmt.Errorf("sessions are %+v", nn.Status.Sessions)
	})
	if _, err := cluster.AgentGet(t.Context(), "a2", "/readyz"); err != nil {
		t.Errorf("the agent is not ready: %v", err)
	}
}

// TestItem76RoutesComeBackWhenALinkDoes: the kernel drops routes when a link goes
// down, and tells nobody of those of IPv4. They are back when the link is, without
// routes of others being touched, also one to the same prefix.
func TestItem76RoutesComeBackWhenALinkDoes(t *testing.T) {
	namespace(t, cluster, "flap")
	from, to := start(t, cluster, podOn("a1", "flap", "p", nil)), start(t, cluster, podOn("b1", "flap", "q", nil))
	eventually(t, "path between the racks", func(context.Context) error { return reach(cluster, "flap/p", to) })
	before := settled(t, "a1", to.String()+" via ")
	ip := func(args ...string) string { return sh(t, cluster, "a1", append([]string{"ip"}, args...)...) }
	for _, route := range [][]string{
		{to.String(), "dev", "mgmt0", "proto", "static", "metric", "77"}, // less preferred than ours
		{"203.0.113.0/24", "dev", "mgmt0", "proto", "static"},
	} {
		ip(append([]string{"route", "add"}, route...)...)
		t.Cleanup(func() {
			_, _ = try(context.Background(), cluster, "a1", append([]string{"ip", "route", "del"}, route...)...)
		})
	}
	others := ip("route", "show", "proto", "static")
	sh(t, cluster, "a1", "sysctl", "-q", "-w", "net.ipv6.conf.eth0.keep_addr_on_down=1")
	defaults := map[string]string{"-4": ip("-4", "route", "show", "default"), "-6": ip("-6", "route", "show", "default")}

	ip("link", "set", "eth0", "down")
	if now := ip("route", "show", "proto", "112"); strings.Contains(now, "dev eth0") {
		t.Errorf("with the link down there are routes over it:\n%s", now)
	}
	ip("link", "set", "eth0", "up")
	for family, route := range defaults { // which somebody else keeps
		if words := strings.Fields(route); len(words) > 0 {
			ip(slices.Concat([]string{family, "route", "replace"}, words)...)
		}
	}
	back := time.Now()
	eventually(t, "what is ours is back", func(context.Context) error {
		if now := desiredOf(t, "a1"); now != before {
			return fmt.Errorf("it was\n%s\nand is\n%s", before, now)
		}
		return nil
	})
	t.Logf("back after %s", time.Since(back).Round(time.Millisecond))
	eventually(t, "path between the racks, again", func(context.Context) error { return reach(cluster, "flap/p", to) })
	eventually(t, "path back, again", func(context.Context) error { return reach(cluster, "flap/q", from) })
	if now := ip("route", "show", "proto", "static"); now != others {
		t.Errorf("routes of others were\n%s\nand are\n%s", others, now)
	}
}
