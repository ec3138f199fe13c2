package matrix

import (
	"context"
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/koratnet/korat/e2e/lab"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/convert"
	"github.com/koratnet/korat/policy/eval"
	"github.com/koratnet/korat/policy/selector"
)

// World is the cluster as policy/eval sees it, read from the API server.
func World(ctx context.Context, l *lab.Lab) (*eval.Cluster, error) {
	var (
		namespaces corev1.NamespaceList
		nodes      corev1.NodeList
		pods       corev1.PodList
		policies   networkingv1.NetworkPolicyList
	)
	if err := l.List(ctx, &namespaces, &nodes, &pods, &policies); err != nil {
		return nil, err
	}
	c := &eval.Cluster{Namespaces: map[string]selector.Labels{}}
	for _, n := range namespaces.Items {
		c.Namespaces[n.Name] = selector.MakeLabels(n.Labels)
	}
	for _, n := range nodes.Items {
		node := eval.Node{Name: n.Name}
		for _, a := range n.Status.Addresses {
			if a.Type == corev1.NodeInternalIP {
				node.Addrs = appendAddr(node.Addrs, a.Address)
			}
		}
		c.Nodes = append(c.Nodes, node)
	}
	for _, p := range pods.Items {
		if p.Spec.HostNetwork {
			continue
		}
		pod := eval.Pod{Namespace: p.Namespace, Name: p.Name, Node: p.Spec.NodeName, Labels: selector.MakeLabels(p.Labels)}
		for _, ip := range p.Status.PodIPs {
			pod.Addrs = appendAddr(pod.Addrs, ip.IP)
		}
		c.Pods = append(c.Pods, pod)
	}
	for i := range policies.Items {
		p, problems := convert.NetworkPolicy(&policies.Items[i])
		if len(problems) > 0 {
			return nil, fmt.Errorf("network policy %s: %v", p.Key, problems)
		}
		c.Policies = append(c.Policies, p)
	}
	return c, nil
}

func appendAddr(list []netip.Addr, text string) []netip.Addr {
	if a, err := netip.ParseAddr(text); err == nil {
		list = append(list, a)
	}
	return list
}

// protocols are the numbers of those that a Probe can have.
var protocols = map[string]policy.Protocol{"tcp": policy.TCP, "udp": policy.UDP, "icmp": policy.ICMP}

// Open says whether the probe gets through between the pair, by policy/eval.
func (p Probe) Open(world *eval.Cluster, pair Pair) bool {
	return world.Verdict(eval.Packet{
		Src: pair.From.Addr, Dst: pair.To.Addr, Protocol: protocols[p.Protocol], DstPort: p.Port,
	}).Action == policy.Allow
}
