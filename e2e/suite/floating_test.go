package suite

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/felix/annotation"
)

// floater is a pod that has, had or will have the floating address, with its node.
type floater struct {
	pod  *corev1.Pod
	node string
	addr netip.Addr
}

// floaters makes a pool of floating addresses and two pods, the first of which, on
// a1, has the address that is returned; the second is on b2.
func floaters(t *testing.T, ns string, pool koratv1.IPPoolSpec) (address netip.Addr, first, second *floater) {
	t.Helper()
	pool.CIDR, pool.BlockSize, pool.AllowedUses = "203.0.113.0/28", 32, []koratv1.PoolUse{koratv1.UseFloating}
	create(t, cluster, &koratv1.IPPool{ObjectMeta: metav1.ObjectMeta{Name: ns}, Spec: pool})
	namespace(t, cluster, ns)
	first, second = &floater{node: "a1"}, &floater{node: "b2"}
	for _, f := range []*floater{first, second} {
		f.pod = podOn(f.node, ns, "on-"+f.node, map[string]string{"app": "floating"})
		f.addr = start(t, cluster, f.pod)
	}
	address = netip.MustParseAddr("203.0.113.7")
	first.takes(t, address)
	return address, first, second
}

// takes asks for the address in the pod's annotation.
func (f *floater) takes(t *testing.T, a netip.Addr) {
	t.Helper()
	change(t, f.pod, func() { metav1.SetMetaDataAnnotation(&f.pod.ObjectMeta, annotation.FloatingAddresses, a.String()) })
}

// leaves asks for it no more.
func (f *floater) leaves(t *testing.T) {
	t.Helper()
	change(t, f.pod, func() { delete(f.pod.Annotations, annotation.FloatingAddresses) })
}

// answeredBy waits until a pod answers at the floating address to all who ask.
func answeredBy(t *testing.T, f *floater, a netip.Addr, asking ...string) {
	t.Helper()
	for _, from := range asking {
		eventually(t, fmt.Sprintf("%s reaches %s at %s", from, f.pod.Name, a), func(context.Context) error {
			r, err := cluster.Ask(from, "tcp", netip.AddrPortFrom(a, 80), time.Second)
			if err == nil && r.Server != f.pod.Namespace+"/"+f.pod.Name {
				err = fmt.Errorf("%s answers", r.Server)
			}
			return err
		})
	}
}

// TestAFloatingAddressIsReachedThroughRoutersAndMoves: a host outside of the cluster,
// the node itself and pods of both racks reach it; policy is asked about the address
// of the pod; and when another pod has it, routers and nodes lead there and to nowhere
// else.
func TestAFloatingAddressIsReachedThroughRoutersAndMoves(t *testing.T) {
	a, first, second := floaters(t, "floats", koratv1.IPPoolSpec{})
	outside := cluster.Topology.Hosts[0].Name
	start(t, cluster, podOn("a2", "floats", "client", nil))
	asking := []string{outside, "floats/client", "floats/on-b2", "a1"}
	answeredBy(t, first, a, asking...)
	eventually(t, "the router of the rack leads to the node", hasHops("tor-a", a, "10.101.0.11"))

	seesTheAddressOfThePod(t, a, first, outside)

	begun := time.Now()
	first.leaves(t)
	second.takes(t, a)
	answeredBy(t, second, a, outside, "floats/client", "floats/on-a1", "b2")
	t.Logf("all reach the other pod after %s", time.Since(begun).Round(time.Millisecond))
	for router, hop := range map[string]string{"tor-b": "10.102.0.12", "tor-a": "10.103.0.2", "a1": "10.101.0.1", "a2": "10.101.0.1", "b1": "10.102.0.12"} {
		eventually(t, router+" leads there alone", hasHops(router, a, hop))
	}
}

// seesTheAddressOfThePod denies all to the pod but what a rule allows, which names
// the floating address and then the pod's own.
func seesTheAddressOfThePod(t *testing.T, a netip.Addr, f *floater, from string) {
	t.Helper()
	p := &koratv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: f.pod.Namespace, Name: "to-one-address"}}
	p.Spec.Selector, p.Spec.Types = "app == 'floating'", []koratv1.PolicyType{koratv1.PolicyTypeIngress}
	to := func(a netip.Addr) []koratv1.Rule {
		return []koratv1.Rule{{Action: koratv1.ActionAllow, Destination: koratv1.RuleEnd{Nets: []koratv1.Net{koratv1.Net(a.String() + "/32")}}}}
	}
	p.Spec.Ingress = to(a)
	create(t, cluster, p)
	for _, at := range []netip.Addr{f.addr, a} {
		eventually(t, "a rule that names the floating address allows nothing", func(context.Context) error {
			if reach(cluster, from, at) == nil {
				return fmt.Errorf("%s reaches %s", from, at)
			}
			return nil
		})
	}
	change(t, p, func() { p.Spec.Ingress = to(f.addr) })
	answeredBy(t, f, a, from)
	remove(t, cluster, p)
}

// TestAFloatingAddressNeedsNoBGP: where packets travel in VXLAN, nodes know from the
// API alone to which node it leads, and follow it when it moves.
func TestAFloatingAddressNeedsNoBGP(t *testing.T) {
	travel(t, koratv1.EncapsulationVXLAN)
	t.Cleanup(func() {
		travel(t, koratv1.EncapsulationNone)
		arrived(t, koratv1.EncapsulationNone)
	})
	arrived(t, koratv1.EncapsulationVXLAN)
	a, first, second := floaters(t, "silent", koratv1.IPPoolSpec{Encapsulation: koratv1.EncapsulationVXLAN, Announce: koratv1.SwitchDisabled})
	for _, node := range []string{"a2", "b1"} {
		start(t, cluster, podOn(node, "silent", "client-"+node, nil))
	}
	answeredBy(t, first, a, "silent/client-a2", "silent/client-b1", "silent/on-b2", "a1", "b1")
	inTunnels(t, a, "a2", "b1", "b2")

	begun := time.Now()
	first.leaves(t)
	second.takes(t, a)
	answeredBy(t, second, a, "silent/client-a2", "silent/client-b1", "silent/on-a1", "a1", "b2")
	t.Logf("all reach the other pod after %s", time.Since(begun).Round(time.Millisecond))
	inTunnels(t, a, "a1", "a2", "b1")

	second.leaves(t)
	for _, node := range []string{"a1", "a2", "b1", "b2"} {
		eventually(t, "no route is left on "+node, func(ctx context.Context) error {
			out, err := try(ctx, cluster, node, "ip", "route", "show", a.String())
			if err == nil && out != "" {
				err = errors.New(out)
			}
			return err
		})
	}
	if hops, err := nextHops(t.Context(), "tor-a", a); err != nil || len(hops) > 0 {
		t.Errorf("the router was told of %s: %v (%v)", a, hops, err)
	}
}

// inTunnels checks that the only route of nodes to a is one into VXLAN.
func inTunnels(t *testing.T, a netip.Addr, nodes ...string) {
	t.Helper()
	for _, node := range nodes {
		eventually(t, node+" reaches it in VXLAN", func(ctx context.Context) error {
			out, err := try(ctx, cluster, node, "ip", "route", "show", a.String())
			if err == nil && (strings.Count(out, "\n") != 1 || !strings.Contains(out, "dev vxlan4-korat")) {
				err = fmt.Errorf("its route is %q", out)
			}
			return err
		})
	}
}
