package eval

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// opinion is a second reading of the Kubernetes API documentation, sentence by
// sentence and over Kubernetes' own types. It shares nothing with the way that
// policies usually take, and is as naive as it can be, so that the two are
// unlikely to be wrong together.
type opinion struct {
	namespaces map[string]map[string]string
	pods       []opinionPod
	policies   []*networkingv1.NetworkPolicy
}

type opinionPod struct {
	namespace, name, node string
	labels                map[string]string
	addrs                 []netip.Addr
	account               string
	ports                 []opinionPort
}

// opinionPort is a container's port with a name.
type opinionPort struct {
	name, protocol string
	number         int
}

// allows: "For a connection from a source pod to a destination pod to be
// allowed, both the egress policy on the source pod and the ingress policy on
// the destination pod need to allow the connection."
func (o *opinion) allows(src, dst netip.Addr, protocol corev1.Protocol, port int) bool {
	from, to := o.at(src), o.at(dst)
	if from != nil && from == to {
		return true // "A pod cannot block access to itself"
	}
	return o.egressAllows(from, dst, protocol, port) && o.ingressAllows(to, src, protocol, port)
}

func (o *opinion) at(a netip.Addr) *opinionPod {
	for i := range o.pods {
		if slices.Contains(o.pods[i].addrs, a) {
			return &o.pods[i]
		}
	}
	return nil
}

// ingressAllows: "By default, a pod is non-isolated for ingress; all inbound
// connections are allowed. A pod is isolated for ingress if there is any
// NetworkPolicy that both selects the pod and has "Ingress" in its policyTypes."
func (o *opinion) ingressAllows(pod *opinionPod, peer netip.Addr, protocol corev1.Protocol, port int) bool {
	isolated := false
	for _, np := range o.policies {
		if pod == nil || np.Namespace != pod.namespace || !selects(&np.Spec.PodSelector, pod.labels) || !hasType(np, networkingv1.PolicyTypeIngress) {
			continue
		}
		isolated = true
		for _, r := range np.Spec.Ingress {
			if o.anyPeer(np.Namespace, r.From, peer) && o.anyPort(r.Ports, pod, protocol, port) {
				return true
			}
		}
	}
	return !isolated
}

func (o *opinion) egressAllows(pod *opinionPod, peer netip.Addr, protocol corev1.Protocol, port int) bool {
	isolated := false
	for _, np := range o.policies {
		if pod == nil || np.Namespace != pod.namespace || !selects(&np.Spec.PodSelector, pod.labels) || !hasType(np, networkingv1.PolicyTypeEgress) {
			continue
		}
		isolated = true
		for _, r := range np.Spec.Egress {
			if o.egressRule(np.Namespace, r, peer, protocol, port) {
				return true
			}
		}
	}
	return !isolated
}

// egressRule: names of ports are those of a destination that is a peer as a
// pod; a destination that is a peer by its address has none.
func (o *opinion) egressRule(namespace string, r networkingv1.NetworkPolicyEgressRule, a netip.Addr, protocol corev1.Protocol, port int) bool {
	if o.anyPeer(namespace, r.To, a) && o.anyPort(r.Ports, nil, protocol, port) {
		return true
	}
	pods := slices.DeleteFunc(slices.Clone(r.To), func(p networkingv1.NetworkPolicyPeer) bool { return p.IPBlock != nil })
	if len(r.To) > 0 && len(pods) == 0 {
		return false
	}
	return o.anyPeer(namespace, pods, a) && o.anyPort(r.Ports, o.at(a), protocol, port)
}

// hasType: "If no policyTypes are specified on a NetworkPolicy then by default
// Ingress will always be set and Egress will be set if the NetworkPolicy has any
// egress rules."
func hasType(np *networkingv1.NetworkPolicy, t networkingv1.PolicyType) bool {
	if len(np.Spec.PolicyTypes) == 0 {
		return t == networkingv1.PolicyTypeIngress || len(np.Spec.Egress) > 0
	}
	return slices.Contains(np.Spec.PolicyTypes, t)
}

// anyPeer: "Items in this list are combined using a logical OR operation. If
// this field is empty or missing, this rule matches all sources."
func (o *opinion) anyPeer(namespace string, peers []networkingv1.NetworkPolicyPeer, a netip.Addr) bool {
	for _, p := range peers {
		if p.IPBlock != nil && p.PodSelector == nil && p.NamespaceSelector == nil && inBlock(p.IPBlock, a) {
			return true
		}
		if p.IPBlock == nil && o.podPeer(namespace, p, a) {
			return true
		}
	}
	return len(peers) == 0
}

// podPeer: "If namespaceSelector is also set, then the NetworkPolicyPeer as a
// whole selects the pods matching podSelector in the namespaces selected by
// namespaceSelector. Otherwise it selects the pods matching podSelector in the
// policy's own namespace."
func (o *opinion) podPeer(namespace string, p networkingv1.NetworkPolicyPeer, a netip.Addr) bool {
	pod := o.at(a)
	if pod == nil || p.PodSelector == nil && p.NamespaceSelector == nil {
		return false
	}
	if p.PodSelector != nil && !selects(p.PodSelector, pod.labels) {
		return false
	}
	if p.NamespaceSelector == nil {
		return pod.namespace == namespace
	}
	labels, exists := o.namespaces[pod.namespace]
	return exists && selects(p.NamespaceSelector, labels)
}

// inBlock: "except is a slice of CIDRs that should not be included within an IPBlock."
func inBlock(b *networkingv1.IPBlock, a netip.Addr) bool {
	cidr, err := netip.ParsePrefix(b.CIDR)
	if err != nil || !cidr.Contains(a) {
		return false
	}
	for _, text := range b.Except {
		if e, err := netip.ParsePrefix(text); err != nil || e.Contains(a) {
			return false
		}
	}
	return true
}

// anyPort: "Each item in this list is combined using a logical OR. If this field
// is empty or missing, this rule matches all ports (traffic not restricted by port)."
// A port that is a name is the number that pod, if there is one, gives that name.
func (o *opinion) anyPort(ports []networkingv1.NetworkPolicyPort, pod *opinionPod, protocol corev1.Protocol, port int) bool {
	for _, p := range ports {
		want := corev1.ProtocolTCP // "If not specified, this field defaults to TCP."
		if p.Protocol != nil {
			want = *p.Protocol
		}
		if want != protocol {
			continue
		}
		if p.Port == nil { // "If this field is not provided, this matches all port names and numbers."
			if p.EndPort == nil {
				return true
			}
			continue
		}
		if p.Port.StrVal != "" {
			if p.EndPort == nil && pod != nil && slices.Contains(pod.ports, opinionPort{p.Port.StrVal, string(protocol), port}) {
				return true
			}
			continue
		}
		last := p.Port.IntValue()
		if p.EndPort != nil { // "the range of ports from port to endPort, inclusive"
			last = int(*p.EndPort)
		}
		if p.Port.IntValue() <= port && port <= last {
			return true
		}
	}
	return len(ports) == 0
}

// selects: "The result of matchLabels and matchExpressions are ANDed. An empty
// label selector matches all objects."
func selects(s *metav1.LabelSelector, labels map[string]string) bool {
	for k, v := range s.MatchLabels {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	for _, r := range s.MatchExpressions {
		got, ok := labels[r.Key]
		holds := false
		switch r.Operator {
		case metav1.LabelSelectorOpIn:
			holds = ok && slices.Contains(r.Values, got)
		case metav1.LabelSelectorOpNotIn:
			holds = !ok || !slices.Contains(r.Values, got)
		case metav1.LabelSelectorOpExists:
			holds = ok
		case metav1.LabelSelectorOpDoesNotExist:
			holds = !ok
		}
		if !holds {
			return false
		}
	}
	return true
}
