package dataplanetest

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	v1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/convert"
)

// policy draws one of any kind, with its object in words. Problems are no error:
// what is made of an object that is not understood is judged as well.
func (d dice) policy(i int) (*policy.Policy, string) {
	var p *policy.Policy
	var spec any
	switch d.IntN(5) {
	case 0, 1:
		np := d.networkPolicy(i)
		p, _ = convert.NetworkPolicy(np)
		spec = np.Spec
	case 2:
		o := &v1.NetworkPolicy{}
		o.Namespace, o.Name, o.Spec.PolicySpec = d.namespace(), fmt.Sprint("own", i), d.spec(false)
		p, _ = convert.KoratNetworkPolicy(o)
		spec = o.Spec
	case 3:
		o := d.global(i)
		p, _ = convert.GlobalNetworkPolicy(o)
		spec = o.Spec
	case 4:
		o := d.clusterPolicy(i)
		p, _ = convert.ClusterNetworkPolicy(o)
		spec = o.Spec
	}
	return p, text("policy", p.Key.String(), spec)
}

func (d dice) networkPolicy(i int) *networkingv1.NetworkPolicy {
	np := &networkingv1.NetworkPolicy{}
	np.Namespace, np.Name = d.namespace(), fmt.Sprint("np", i)
	np.Spec.PodSelector = *d.subject()
	np.Spec.PolicyTypes = pick(d, nil, nil, []networkingv1.PolicyType{"Ingress"}, []networkingv1.PolicyType{"Egress"}, []networkingv1.PolicyType{"Egress", "Ingress"})
	np.Spec.Ingress = some(d, 2, func() networkingv1.NetworkPolicyIngressRule {
		return networkingv1.NetworkPolicyIngressRule{From: some(d, 3, d.peer), Ports: some(d, 3, d.port)}
	})
	np.Spec.Egress = some(d, 2, func() networkingv1.NetworkPolicyEgressRule {
		return networkingv1.NetworkPolicyEgressRule{To: some(d, 3, d.peer), Ports: some(d, 3, d.port)}
	})
	return np
}

// subject draws broad selectors, so that policies and pods meet often.
func (d dice) subject() *metav1.LabelSelector {
	if d.one(2) {
		return &metav1.LabelSelector{}
	}
	return d.labelSelector()
}

func (d dice) labelSelector() *metav1.LabelSelector {
	s := &metav1.LabelSelector{}
	if d.one(2) {
		s.MatchLabels = map[string]string{pick(d, "a", "b", "c"): pick(d, "x", "y", "z", "")}
	}
	if d.one(2) {
		op := pick(d, metav1.LabelSelectorOpIn, metav1.LabelSelectorOpNotIn, metav1.LabelSelectorOpExists, metav1.LabelSelectorOpDoesNotExist)
		e := metav1.LabelSelectorRequirement{Key: pick(d, "a", "b", "c"), Operator: op}
		if op == metav1.LabelSelectorOpIn || op == metav1.LabelSelectorOpNotIn {
			e.Values = append([]string{pick(d, "x", "y")}, some(d, 2, func() string { return pick(d, "x", "z", "") })...)
		}
		s.MatchExpressions = append(s.MatchExpressions, e)
	}
	return s
}

func (d dice) peer() networkingv1.NetworkPolicyPeer {
	p := networkingv1.NetworkPolicyPeer{}
	if d.one(3) {
		p.IPBlock = &networkingv1.IPBlock{CIDR: d.net()}
		p.IPBlock.Except = some(d, 2, d.net)
		return p
	}
	if d.one(2) {
		p.NamespaceSelector = d.labelSelector()
	}
	if p.NamespaceSelector == nil || d.one(2) {
		p.PodSelector = d.labelSelector()
	}
	return p
}

func (d dice) port() networkingv1.NetworkPolicyPort {
	p := networkingv1.NetworkPolicyPort{}
	if !d.one(3) {
		p.Protocol = new(pick(d, corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP))
	}
	if !d.one(5) {
		p.Port = new(pick(d, intstr.FromInt32(80), intstr.FromInt32(81), intstr.FromInt32(443), intstr.FromInt32(8080), intstr.FromString("http"), intstr.FromString("dns")))
		if p.Port.IntVal != 0 && d.one(3) {
			p.EndPort = new(max(pick(d, int32(81), 90, 9000), p.Port.IntVal))
		}
	}
	return p
}

// tierNames are those that policies name; t3 is not defined.
var tierNames = []string{"t1", "t2", "t3"}

func (d dice) spec(global bool) v1.PolicySpec {
	s := v1.PolicySpec{Tier: pick(d, "default", "default", "t1", "t2", "t2", "t3", "kube-admin", "kube-baseline")}
	if !d.one(4) {
		s.Order = new(pick(d, 1.0, 1000, 1000, 2000))
	}
	s.Enforcement = pick(d, "", v1.Enforced, v1.Enforced, v1.Staged)
	if d.one(2) {
		s.Selector = d.selector()
	}
	if d.one(8) {
		s.ServiceAccountSelector = d.selector()
	}
	s.Types = pick(d, nil, nil, []v1.PolicyType{"Ingress"}, []v1.PolicyType{"Egress"}, []v1.PolicyType{"Ingress", "Egress"})
	s.Ingress = some(d, 3, func() v1.Rule { return d.rule(true, global) })
	s.Egress = some(d, 3, func() v1.Rule { return d.rule(false, global) })
	return s
}

// global draws one that may be of any hook; those that the API would refuse are
// made such as it takes.
func (d dice) global(i int) *v1.GlobalNetworkPolicy {
	p := &v1.GlobalNetworkPolicy{}
	p.Name, p.Spec.PolicySpec = fmt.Sprint("global", i), d.spec(true)
	switch d.IntN(6) {
	case 0, 1:
		p.Spec.NamespaceSelector = pick(d, "global()", "all()", d.selector())
	case 2:
		p.Spec.ApplyOnForward = true
	case 3:
		p.Spec.ApplyOnForward, p.Spec.PreDNAT = true, true
		p.Spec.Types, p.Spec.Egress = []v1.PolicyType{"Ingress"}, nil
	case 4:
		p.Spec.ApplyOnForward, p.Spec.DoNotTrack = true, true
	}
	if p.Spec.PreDNAT || p.Spec.DoNotTrack {
		p.Spec.NamespaceSelector = ""
		for _, rules := range [][]v1.Rule{p.Spec.Ingress, p.Spec.Egress} {
			for i := range rules {
				if rules[i].Action == v1.ActionPass {
					rules[i].Action = v1.ActionAllow
				}
			}
		}
	}
	return p
}

// hostPolicy draws one that selects most host endpoints and says something about
// many packets.
func (d dice) hostPolicy(i int) (*policy.Policy, string) {
	o := d.global(i)
	o.Name, o.Spec.Enforcement = fmt.Sprint("edge", i), ""
	if o.Spec.Selector = ""; d.one(4) {
		o.Spec.Selector = d.selector()
	}
	if o.Spec.Types = nil; !o.Spec.PreDNAT && !o.Spec.DoNotTrack && d.one(2) {
		o.Spec.NamespaceSelector = "global()"
	}
	some := v1.Rule{Action: pick(d, v1.ActionAllow, v1.ActionDeny)}
	if d.one(2) {
		some.Protocol = new(pick(d, intstr.FromString("TCP"), intstr.FromString("UDP")))
	}
	if o.Spec.Ingress = append(o.Spec.Ingress, some); !o.Spec.PreDNAT {
		o.Spec.Egress = append(o.Spec.Egress, some)
	}
	p, _ := convert.GlobalNetworkPolicy(o)
	return p, text("policy", p.Key.String(), o.Spec)
}

func (d dice) rule(ingress, global bool) v1.Rule {
	rule := v1.Rule{
		Action:    pick(d, v1.ActionAllow, v1.ActionAllow, v1.ActionAllow, v1.ActionDeny, v1.ActionPass, v1.ActionLog),
		IPVersion: pick(d, int32(0), 0, 0, 0, 4, 6),
	}
	protocol := func() *intstr.IntOrString {
		return new(pick(d, intstr.FromString("TCP"), intstr.FromString("TCP"), intstr.FromInt32(17), intstr.FromString("SCTP"), intstr.FromString("ICMP"), intstr.FromString("ICMPv6")))
	}
	if d.one(2) {
		rule.Protocol = protocol()
	}
	if d.one(6) {
		rule.NotProtocol = protocol()
	}
	rule.Source, rule.Destination = d.end(), d.end()
	other := &rule.Source
	if !ingress {
		other = &rule.Destination
	}
	if d.one(8) {
		*other = v1.RuleEnd{Services: &v1.ServiceMatch{Name: "s"}}
		if global || d.one(2) {
			other.Services.Namespace = "n0"
		}
	}
	switch {
	case rule.Protocol == nil:
	case rule.Protocol.StrVal == "ICMP" || rule.Protocol.StrVal == "ICMPv6":
		message := func(in int) *v1.ICMPMatch {
			if !d.one(in) {
				return nil
			}
			m := &v1.ICMPMatch{Type: pick(d, int32(echoRequest), timestampRequest, echoRequest6)}
			if d.one(3) {
				m.Code = new(pick(d, int32(0), 1))
			}
			return m
		}
		rule.ICMP, rule.NotICMP = message(2), message(4)
	default:
		rule.Destination.Ports, rule.Destination.NotPorts = d.ports(2), d.ports(6)
		rule.Source.Ports, rule.Source.NotPorts = d.sourcePorts(6), d.sourcePorts(8)
	}
	return rule
}

// ports draws a list one time in so many, else none. Some are longer than
// iptables has room for in a rule.
func (d dice) ports(in int) []intstr.IntOrString {
	if !d.one(in) {
		return nil
	}
	port := func() intstr.IntOrString {
		return pick(d, intstr.FromInt32(80), intstr.FromInt32(81), intstr.FromInt32(8080), intstr.FromInt32(22), intstr.FromString("81:500"),
			intstr.FromString("30000:31000"), intstr.FromString("http"), intstr.FromString("dns"))
	}
	list := append(some(d, 3, port), port())
	for i := range d.IntN(2) * d.IntN(2) * 20 {
		list = append(list, intstr.FromInt32(int32(1000+3*i)))
	}
	return list
}

func (d dice) sourcePorts(in int) []intstr.IntOrString {
	if !d.one(in) {
		return nil
	}
	return []intstr.IntOrString{pick(d, intstr.FromString("10000:30000"), intstr.FromString("30001:65535"), intstr.FromInt32(80))}
}

func (d dice) end() v1.RuleEnd {
	var e v1.RuleEnd
	if d.one(2) {
		return e
	}
	net := func() v1.Net { return v1.Net(d.net()) }
	if d.one(4) {
		e.Nets = append(some(d, 3, net), net())
	}
	if d.one(6) {
		e.NotNets = append(some(d, 2, net), net())
	}
	if d.one(2) {
		e.Selector = d.selector()
	}
	if d.one(5) {
		e.NotSelector = d.selector()
	}
	if d.one(3) {
		if e.NamespaceSelector = d.selector(); d.one(3) {
			e.NamespaceSelector = "global()"
		}
	}
	if d.one(8) {
		e.ServiceAccounts = &v1.ServiceAccountMatch{Names: []string{pick(d, "x", "y")}}
		if d.one(2) {
			e.ServiceAccounts = &v1.ServiceAccountMatch{Selector: d.selector()}
		}
	}
	return e
}

func (d dice) clusterPolicy(i int) *cnp.ClusterNetworkPolicy {
	p := &cnp.ClusterNetworkPolicy{}
	p.Name = fmt.Sprint("cluster", i)
	p.Spec.Tier, p.Spec.Priority = pick(d, cnp.AdminTier, cnp.BaselineTier), pick(d, int32(0), 1, 1, 1000)
	p.Spec.Subject.Namespaces = d.subject()
	if d.one(2) {
		p.Spec.Subject = cnp.ClusterNetworkPolicySubject{Pods: d.namespacedPod()}
	}
	action := func() cnp.ClusterNetworkPolicyRuleAction {
		return pick(d, cnp.ClusterNetworkPolicyRuleActionAccept, cnp.ClusterNetworkPolicyRuleActionDeny, cnp.ClusterNetworkPolicyRuleActionPass)
	}
	p.Spec.Ingress = some(d, 3, func() cnp.ClusterNetworkPolicyIngressRule {
		peer := func() (p cnp.ClusterNetworkPolicyIngressPeer) {
			if p.Namespaces = d.subject(); d.one(2) {
				p.Namespaces, p.Pods = nil, d.namespacedPod()
			}
			return p
		}
		return cnp.ClusterNetworkPolicyIngressRule{Action: action(), From: append(some(d, 1, peer), peer()), Protocols: some(d, 2, d.protocolMatch)}
	})
	p.Spec.Egress = some(d, 3, func() cnp.ClusterNetworkPolicyEgressRule {
		peer := func() (p cnp.ClusterNetworkPolicyEgressPeer) {
			switch d.IntN(4) {
			case 0:
				p.Namespaces = d.subject()
			case 1:
				p.Pods = d.namespacedPod()
			case 2:
				p.Nodes = d.subject()
			case 3:
				p.Networks = []cnp.CIDR{cnp.CIDR(d.net())}
			}
			return p
		}
		return cnp.ClusterNetworkPolicyEgressRule{Action: action(), To: append(some(d, 1, peer), peer()), Protocols: some(d, 2, d.protocolMatch)}
	})
	return p
}

func (d dice) namespacedPod() *cnp.NamespacedPod {
	return &cnp.NamespacedPod{NamespaceSelector: *d.subject(), PodSelector: *d.labelSelector()}
}

func (d dice) protocolMatch() cnp.ClusterNetworkPolicyProtocol {
	port := pick(d, nil, &cnp.Port{Number: 80}, &cnp.Port{Range: &cnp.PortRange{Start: 80, End: 443}})
	switch d.IntN(5) {
	case 0:
		return cnp.ClusterNetworkPolicyProtocol{UDP: &cnp.ClusterNetworkPolicyProtocolUDP{DestinationPort: port}}
	case 1:
		return cnp.ClusterNetworkPolicyProtocol{DestinationNamedPort: "http"}
	case 2:
		return cnp.ClusterNetworkPolicyProtocol{SCTP: &cnp.ClusterNetworkPolicyProtocolSCTP{DestinationPort: port}}
	}
	return cnp.ClusterNetworkPolicyProtocol{TCP: &cnp.ClusterNetworkPolicyProtocolTCP{DestinationPort: port}}
}
