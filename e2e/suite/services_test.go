package suite

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	koratv1 "github.com/koratnet/korat/api/v1"
)

// balancers is the range of load balancers that the tests of services allow.
const balancers = "198.51.100.0/24"

// announceServices lets nodes announce services, singly or as an aggregate, and tell
// the routers of both racks.
func announceServices(t *testing.T, aggregation koratv1.Switch) {
	t.Helper()
	c := &koratv1.BGPConfiguration{ObjectMeta: metav1.ObjectMeta{Name: koratv1.BGPConfigurationName}}
	change(t, c, func() {
		c.Spec.ServiceLoadBalancerIPs = []koratv1.ServiceRange{{CIDR: balancers, Aggregation: aggregation}}
	})
	t.Cleanup(func() { change(t, c, func() { c.Spec.ServiceLoadBalancerIPs = nil }) })
	for _, name := range []string{"tor-a", "tor-b"} {
		p := &koratv1.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: name}}
		var before []koratv1.Advertise
		change(t, p, func() {
			before = slices.Clone(p.Spec.Advertise)
			p.Spec.Advertise = append(p.Spec.Advertise, koratv1.AdvertiseServices)
		})
		t.Cleanup(func() { change(t, p, func() { p.Spec.Advertise = before }) })
	}
}

// balancer makes a pool and a service of it, and returns the service's address.
func balancer(t *testing.T, ns string, policy corev1.ServiceExternalTrafficPolicy) netip.Addr {
	t.Helper()
	create(t, cluster, &koratv1.IPPool{ObjectMeta: metav1.ObjectMeta{Name: ns}, Spec: koratv1.IPPoolSpec{
		CIDR: "198.51.100.16/28", BlockSize: 32, AllowedUses: []koratv1.PoolUse{koratv1.UseLoadBalancer},
	}})
	class := koratv1.LoadBalancerClass
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "web"},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeLoadBalancer, LoadBalancerClass: &class, ExternalTrafficPolicy: policy,
			Ports: []corev1.ServicePort{{Port: 80}},
		},
	}
	create(t, cluster, s)
	var addr netip.Addr
	eventually(t, "address of the service", func(ctx context.Context) error {
		if err := cluster.Client.Get(ctx, client.ObjectKeyFromObject(s), s); err != nil {
			return err
		}
		if len(s.Status.LoadBalancer.Ingress) != 1 {
			return errors.New("none yet")
		}
		var err error
		addr, err = netip.ParseAddr(s.Status.LoadBalancer.Ingress[0].IP)
		return err
	})
	return addr
}

// serve says which nodes have backends of the service, in a slice of its own each,
// "NODE" or "NODE terminating".
func serve(t *testing.T, ns string, backends map[string]netip.Addr, states ...string) {
	t.Helper()
	for _, state := range states {
		node, how, _ := strings.Cut(state, " ")
		yes, no, ends := true, how == "", how == "terminating"
		port, protocol := int32(80), corev1.ProtocolTCP
		slice := &discoveryv1.EndpointSlice{
			TypeMeta: metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
			ObjectMeta: metav1.ObjectMeta{
				Namespace: ns, Name: "web-" + node,
				Labels: map[string]string{discoveryv1.LabelServiceName: "web", discoveryv1.LabelManagedBy: "suite"},
			},
			AddressType: discoveryv1.AddressTypeIPv4,
			Ports:       []discoveryv1.EndpointPort{{Port: &port, Protocol: &protocol}},
			Endpoints: []discoveryv1.Endpoint{{
				Addresses: []string{backends[node].String()}, NodeName: &node,
				Conditions: discoveryv1.EndpointConditions{Ready: &no, Serving: &yes, Terminating: &ends},
			}},
		}
		if err := cluster.Apply(t.Context(), slice); err != nil {
			t.Fatal(err)
		}
	}
}

// proxy does on a node what kube-proxy would: connections to the service go to a
// backend, those of the node's own programs too, and replies of one on another node
// come back this way.
func proxy(t *testing.T, node string, vip, backend netip.Addr) {
	t.Helper()
	rules := fmt.Sprintf(`table ip suiteproxy {
	chain prerouting { type nat hook prerouting priority dstnat; ip daddr %[1]s tcp dport 80 dnat to %[2]s; }
	chain output { type nat hook output priority -100; ip daddr %[1]s tcp dport 80 dnat to %[2]s; }
	chain postrouting { type nat hook postrouting priority srcnat; oifname eth0 ct status dnat masquerade; }
}`, vip, backend)
	sh(t, cluster, node, "nft", rules)
	t.Cleanup(func() { _, _ = try(context.Background(), cluster, node, "nft", "delete", "table", "ip", "suiteproxy") })
}

// nextHops returns the next hops of a router's kernel for an address, sorted.
func nextHops(ctx context.Context, router string, addr netip.Addr) ([]string, error) {
	out, err := try(ctx, cluster, router, "ip", "route", "show", addr.String())
	var hops []string
	words := strings.Fields(out)
	for i, w := range words {
		if w == "via" {
			hops = append(hops, words[i+1])
		}
	}
	slices.Sort(hops)
	return hops, err
}

func hasHops(router string, addr netip.Addr, want ...string) func(context.Context) error {
	return func(ctx context.Context) error {
		got, err := nextHops(ctx, router, addr)
		if err != nil || !slices.Equal(got, want) {
			return fmt.Errorf("%s sends %s to %v, want %v (%w)", router, addr, got, want, err)
		}
		return nil
	}
}

// TestItem77OutsideReachesALocalServiceUntilItsLastBackend: routers share the
// connections of an outside host between the nodes that serve, which see its
// address. A node is left while its backend still serves: no connection is refused.
func TestItem77OutsideReachesALocalServiceUntilItsLastBackend(t *testing.T) {
	namespace(t, cluster, "local-service")
	announceServices(t, koratv1.SwitchDisabled)
	vip := balancer(t, "local-service", corev1.ServiceExternalTrafficPolicyLocal)
	backends := map[string]netip.Addr{
		"a1": start(t, cluster, podOn("a1", "local-service", "on-a1", nil)),
		"a2": start(t, cluster, podOn("a2", "local-service", "on-a2", nil)),
		"b1": start(t, cluster, podOn("b1", "local-service", "on-b1", nil)),
	}
	for node, backend := range backends {
		proxy(t, node, vip, backend)
	}
	serve(t, "local-service", backends, "a1", "a2", "b1")
	eventually(t, "two nodes of the rack", hasHops("tor-a", vip, "10.101.0.11", "10.101.0.12"))
	eventually(t, "the node of the other rack", hasHops("tor-b", vip, "10.102.0.11"))

	outside := cluster.Topology.Hosts[0]
	asked := map[string]bool{}
	eventually(t, "answers of both nodes of the rack", func(context.Context) error {
		r, err := cluster.Ask(outside.Name, "tcp", netip.AddrPortFrom(vip, 80), time.Second)
		if err != nil {
			return err
		}
		if !outside.Subnet.Contains(r.Client.Addr()) {
			return fmt.Errorf("%s sees %s, expected the host outside", r.Server, r.Client)
		}
		if asked[r.Server] = true; len(asked) < 2 {
			return fmt.Errorf("answers of %v alone", asked)
		}
		return nil
	})
	if err := reach(cluster, "b1", vip); err != nil {
		t.Errorf("the node itself does not reach the service: %v", err)
	}

	stop := ask(t, outside.Name, vip)
	begun := time.Now()
	serve(t, "local-service", backends, "a2 terminating")
	eventually(t, "tor-a leaves the node whose backend terminates", hasHops("tor-a", vip, "10.101.0.11"))
	t.Logf("left after %s", time.Since(begun).Round(time.Millisecond))
	remove(t, cluster, podOn("a2", "local-service", "on-a2", nil))
	remove(t, cluster, &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "local-service", Name: "web-a2"}})

	serve(t, "local-service", backends, "b1 terminating")
	eventually(t, "nothing but the ready backend is left", hasHops("tor-b", vip, "10.103.0.1"))
	serve(t, "local-service", backends, "a1 terminating")
	eventually(t, "the last backends serve to their end", func(ctx context.Context) error {
		return errors.Join(hasHops("tor-a", vip, "10.101.0.11")(ctx), hasHops("tor-b", vip, "10.102.0.11")(ctx))
	})
	// A router that gets or loses a next hop moves the connection that is open at this
	// moment to another node, which knows nothing of it. There are four such changes.
	if sent, failed := stop(); len(failed) > 4 {
		t.Errorf("of %d connections %d failed, such as %v", sent, len(failed), failed[0])
	}
}

// ask opens connections to the service one after another until stop, which says how
// many it were and what went wrong.
func ask(t *testing.T, from string, vip netip.Addr) (stop func() (sent int, failed []error)) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	var sent int
	var failed []error
	go func() {
		defer close(done)
		for ; ctx.Err() == nil; sent++ {
			if _, err := cluster.Ask(from, "tcp", netip.AddrPortFrom(vip, 80), 5*time.Second); err != nil {
				failed = append(failed, err)
			}
		}
	}()
	return func() (int, []error) {
		cancel()
		<-done
		return sent, failed
	}
}

// TestItem65UnservedAddressesOfServicesDoNotLoop: every node announces the range, and
// a packet for an address in it that nobody serves ends at the first node.
func TestItem65UnservedAddressesOfServicesDoNotLoop(t *testing.T) {
	namespace(t, cluster, "aggregate")
	announceServices(t, koratv1.SwitchEnabled)
	unserved := netip.MustParseAddr("198.51.100.9")
	eventually(t, "the range in the rack's router", func(ctx context.Context) error {
		out, err := try(ctx, cluster, "tor-a", "ip", "route", "show", balancers)
		if err != nil || strings.Count(out, "via") < 2 {
			return fmt.Errorf("tor-a has %q (%w)", out, err)
		}
		return nil
	})
	outside := cluster.Topology.Hosts[0].Name
	for _, from := range []string{outside, "a1", "b1"} {
		out, err := try(t.Context(), cluster, from, "ping", "-c", "2", "-i", "0.2", "-W", "1", unserved.String())
		if err == nil || strings.Contains(out, "Time to live exceeded") || strings.Contains(out, "TTL") && strings.Contains(out, "exceeded") {
			t.Errorf("from %s: an address that nobody serves answers, or its packets loop:\n%s", from, out)
		}
	}
	vip := balancer(t, "aggregate", corev1.ServiceExternalTrafficPolicyCluster)
	backend := start(t, cluster, podOn("b1", "aggregate", "on-b1", nil))
	for _, node := range []string{"a1", "a2", "b1", "b2"} {
		proxy(t, node, vip, backend)
	}
	serve(t, "aggregate", map[string]netip.Addr{"b1": backend}, "b1")
	for _, from := range []string{outside, "a1", "b1"} {
		eventually(t, "the service from "+from, func(context.Context) error { return reach(cluster, from, vip) })
	}
	if hops, err := nextHops(t.Context(), "tor-a", vip); err != nil || len(hops) > 0 {
		t.Errorf("tor-a has a route of its own to %s: %v (%v)", vip, hops, err)
	}
}
