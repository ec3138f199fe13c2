package watch

import (
	"cmp"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/selector"
)

// service: one without addresses, headless or not assigned any yet, is nobody's
// to announce. A load balancer that rewrites destinations (ipMode Proxy) ends the
// connection itself, and kube-proxy knows nothing of its address.
func service(obj any) (string, event.Value) {
	s := obj.(*corev1.Service)
	name := namespacedName(s)
	v := &event.Service{
		ServiceName: policy.ServiceName{Namespace: s.Namespace, Name: s.Name}, Labels: selector.MakeLabels(s.Labels),
		InternalLocal: s.Spec.InternalTrafficPolicy != nil && *s.Spec.InternalTrafficPolicy == corev1.ServiceInternalTrafficPolicyLocal,
		ExternalLocal: s.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal,
	}
	if s.Spec.Type == corev1.ServiceTypeExternalName {
		return name, nil
	}
	for _, ip := range s.Spec.ClusterIPs {
		v.ClusterIPs = appendAddr(v.ClusterIPs, ip) // "None" does not parse
	}
	for _, ip := range s.Spec.ExternalIPs {
		v.ExternalIPs = appendAddr(v.ExternalIPs, ip)
	}
	for _, in := range s.Status.LoadBalancer.Ingress {
		if in.IPMode == nil || *in.IPMode == corev1.LoadBalancerIPModeVIP {
			v.LoadBalancerIPs = appendAddr(v.LoadBalancerIPs, in.IP)
		}
	}
	if len(v.ClusterIPs)+len(v.ExternalIPs)+len(v.LoadBalancerIPs) == 0 {
		return name, nil
	}
	return name, v
}

// backends sums up how the endpoints of a slice do, by node. What a slice leaves
// out is ready and not terminating, as its API says.
func backends(s *discoveryv1.EndpointSlice) []event.Backend {
	var all []event.Backend
	for _, e := range s.Endpoints {
		b := event.Backend{}
		if e.NodeName != nil {
			b.Node = *e.NodeName
		}
		ready := e.Conditions.Ready == nil || *e.Conditions.Ready
		serving := e.Conditions.Serving != nil && *e.Conditions.Serving || e.Conditions.Serving == nil && ready
		ends := e.Conditions.Terminating != nil && *e.Conditions.Terminating
		b.Ready, b.Ending = ready && !ends, (serving || ready) && ends
		i, found := slices.BinarySearchFunc(all, b, func(x, y event.Backend) int { return cmp.Compare(x.Node, y.Node) })
		if !found {
			all = slices.Insert(all, i, b)
			continue
		}
		all[i].Ready, all[i].Ending = all[i].Ready || b.Ready, all[i].Ending || b.Ending
	}
	return all
}

func serviceRanges(s *koratv1.BGPConfigurationSpec) event.ServiceRanges {
	return event.ServiceRanges{
		ClusterIPs:      rangesOf(s.ServiceClusterIPs),
		ExternalIPs:     rangesOf(s.ServiceExternalIPs),
		LoadBalancerIPs: rangesOf(s.ServiceLoadBalancerIPs),
	}
}

func rangesOf(list []koratv1.ServiceRange) []event.ServiceRange {
	var out []event.ServiceRange
	for _, r := range list {
		if cidr, err := netip.ParsePrefix(string(r.CIDR)); err == nil {
			out = append(out, event.ServiceRange{CIDR: cidr.Masked(), Aggregate: r.Aggregation != koratv1.SwitchDisabled})
		}
	}
	return out
}

func prefixesOf(list []koratv1.CIDR) []netip.Prefix {
	var out []netip.Prefix
	for _, c := range list {
		if p, err := netip.ParsePrefix(string(c)); err == nil {
			out = append(out, p.Masked())
		}
	}
	return out
}
