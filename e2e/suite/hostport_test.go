package suite

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// TestItem12HostPortsReachPodsAndPolicySeesThePodsPort chains the portmap plugin
// behind ours: its translation happens first, so that a policy names the port of
// the pod and sees the real client.
func TestItem12HostPortsReachPodsAndPolicySeesThePodsPort(t *testing.T) {
	namespace(t, cluster, "ports")
	p := podOn("a1", "ports", "web", map[string]string{"app": "web"})
	p.Spec.Containers[0].Ports[0].HostPort = 8080
	start(t, cluster, p)
	var node corev1.Node
	if err := cluster.Client.Get(t.Context(), client.ObjectKey{Name: "a1"}, &node); err != nil {
		t.Fatal(err)
	}
	host := netip.AddrPortFrom(netip.MustParseAddr(node.Status.Addresses[1].Address), 8080)
	outside := cluster.Topology.Hosts[0]
	asked := func(want bool) func(context.Context) error {
		return func(context.Context) error {
			reply, err := cluster.Ask(outside.Name, "tcp", host, 500*time.Millisecond)
			switch {
			case want && err == nil && !outside.Subnet.Contains(reply.Client.Addr()):
				return fmt.Errorf("the pod sees %s, expected an address of %s", reply.Client, outside.Subnet)
			case want == (err == nil):
				return nil
			}
			return errors.Join(fmt.Errorf("answered: %t, expected %t", err == nil, want), err)
		}
	}
	eventually(t, "host port without policy", asked(true))
	policy := func(name string, port int32) *networkingv1.NetworkPolicy {
		return &networkingv1.NetworkPolicy{
			ObjectMeta: metav1.ObjectMeta{Namespace: "ports", Name: name},
			Spec: networkingv1.NetworkPolicySpec{Ingress: []networkingv1.NetworkPolicyIngressRule{{
				Ports: []networkingv1.NetworkPolicyPort{{Port: &intstr.IntOrString{IntVal: port}}},
				From:  []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: outside.Subnet.String()}}},
			}}},
		}
	}
	create(t, cluster, policy("node-port", 8080))
	eventually(t, "a policy that names the port of the node", asked(false))
	create(t, cluster, policy("pod-port", 80))
	eventually(t, "a policy that names the port of the pod", asked(true))
}
