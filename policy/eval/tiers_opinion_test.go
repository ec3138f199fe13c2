package eval

import (
	"cmp"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	v1 "github.com/koratnet/korat/api/v1"
)

// tieredOpinion is a second reading of the documentation of tiers, of our own
// kinds and of ClusterNetworkPolicy, over the API's types and as naive as
// opinion, whose pods and Kubernetes policies it has.
type tieredOpinion struct {
	opinion
	tiers    map[string]v1.TierSpec // beside those that are always there
	own      []*v1.NetworkPolicy
	global   []*v1.GlobalNetworkPolicy
	clusters []*cnp.ClusterNetworkPolicy
	sets     []opinionSet
	services map[string][]ServiceEnd // by namespace/name
	nodes    map[string]map[string]string
	// selects tells what the texts of selectors mean, as they were drawn.
	selects map[string]func(map[string]string) bool
}

// opinionSet is a network set; without a namespace it is global.
type opinionSet struct {
	namespace string
	labels    map[string]string
	nets      []netip.Prefix
}

// flow is a packet in the words of the API.
type flow struct {
	src, dst         netip.Addr
	protocol         string // TCP, UDP, SCTP, ICMP
	srcPort, dstPort int
	icmpType         int
}

func (f flow) hasPorts() bool { return f.protocol != "ICMP" }

// ranked is a policy with its place: its rules say what they do about a flow.
type ranked struct {
	tier      string
	tierOrder float64
	pass      bool // the tier ends with Pass
	order     float64
	name      string // breaks ties; no two policies of the random clusters have the same
	staged    bool
	rules     []func(flow) string // Allow, Deny, Pass, or "" to go on
}

// allows: a packet passes if the egress policy of its source and the ingress
// policy of its destination let it.
func (o *tieredOpinion) allows(f flow, withStaged bool) bool {
	from, to := o.at(f.src), o.at(f.dst)
	if from != nil && from == to {
		return true
	}
	return o.decide(o.selecting(from, false), f, withStaged) && o.decide(o.selecting(to, true), f, withStaged)
}

// decide asks tier by tier, policy by policy, rule by rule. "A tier is asked
// only if one of its policies selects the endpoint in that direction"; staged
// policies are as good as absent.
func (o *tieredOpinion) decide(policies []ranked, f flow, withStaged bool) bool {
	slices.SortFunc(policies, func(a, b ranked) int {
		return cmp.Or(cmp.Compare(a.tierOrder, b.tierOrder), strings.Compare(a.tier, b.tier),
			cmp.Compare(a.order, b.order), strings.Compare(a.name, b.name))
	})
	for i := 0; i < len(policies); {
		tier, pass, asked, verdict := policies[i].tier, policies[i].pass, false, ""
		for ; i < len(policies) && policies[i].tier == tier; i++ {
			if policies[i].staged && !withStaged {
				continue
			}
			asked = true
			for _, rule := range policies[i].rules {
				if verdict == "" {
					verdict = rule(f)
				}
			}
		}
		switch {
		case verdict == "Allow":
			return true
		case verdict == "Deny", asked && verdict == "" && !pass:
			return false
		}
	}
	return true
}

// selecting lists the policies that isolate the pod in one direction.
func (o *tieredOpinion) selecting(pod *opinionPod, ingress bool) []ranked {
	if pod == nil {
		return nil
	}
	var out []ranked
	for _, np := range o.policies {
		t := networkingv1.PolicyTypeEgress
		if ingress {
			t = networkingv1.PolicyTypeIngress
		}
		if np.Namespace == pod.namespace && selects(&np.Spec.PodSelector, pod.labels) && hasType(np, t) {
			out = append(out, ranked{
				tier: "default", tierOrder: 1_000_000, order: 1000, name: np.Name,
				rules: []func(flow) string{func(f flow) string { return o.kubernetes(np, ingress, f) }},
			})
		}
	}
	for _, p := range o.own {
		if p.Namespace == pod.namespace && o.picks(&p.Spec.PolicySpec, pod) {
			out = o.rank(out, p.Name, p.Namespace, &p.Spec.PolicySpec, ingress)
		}
	}
	for _, p := range o.global {
		if o.picks(&p.Spec.PolicySpec, pod) && (p.Spec.NamespaceSelector == "" || o.selects[p.Spec.NamespaceSelector](o.namespaces[pod.namespace])) {
			out = o.rank(out, p.Name, "", &p.Spec.PolicySpec, ingress)
		}
	}
	for _, p := range o.clusters {
		if o.subject(p, pod) {
			out = o.rankCluster(out, p, ingress)
		}
	}
	return out
}

// kubernetes: the rules of a NetworkPolicy only allow.
func (o *tieredOpinion) kubernetes(np *networkingv1.NetworkPolicy, ingress bool, f flow) string {
	protocol := corev1.Protocol(f.protocol)
	if ingress {
		for _, r := range np.Spec.Ingress {
			if o.anyPeer(np.Namespace, r.From, f.src) && o.anyPort(r.Ports, o.at(f.dst), protocol, f.dstPort) {
				return "Allow"
			}
		}
		return ""
	}
	for _, r := range np.Spec.Egress {
		if o.egressRule(np.Namespace, r, f.dst, protocol, f.dstPort) {
			return "Allow"
		}
	}
	return ""
}

func (o *tieredOpinion) picks(s *v1.PolicySpec, pod *opinionPod) bool {
	return (s.Selector == "" || o.selects[s.Selector](pod.labels)) &&
		(s.ServiceAccountSelector == "" || o.selects[s.ServiceAccountSelector](map[string]string{"a": pod.account}))
}

func (o *tieredOpinion) rank(out []ranked, name, namespace string, s *v1.PolicySpec, ingress bool) []ranked {
	types := s.Types
	switch {
	case len(types) > 0:
	case len(s.Egress) == 0:
		types = []v1.PolicyType{v1.PolicyTypeIngress}
	case len(s.Ingress) == 0:
		types = []v1.PolicyType{v1.PolicyTypeEgress}
	default:
		types = []v1.PolicyType{v1.PolicyTypeIngress, v1.PolicyTypeEgress}
	}
	want, rules := v1.PolicyTypeEgress, s.Egress
	if ingress {
		want, rules = v1.PolicyTypeIngress, s.Ingress
	}
	if !slices.Contains(types, want) {
		return out
	}
	r := ranked{tier: s.Tier, tierOrder: math.Inf(1), order: math.Inf(1), name: name, staged: s.Enforcement == v1.Staged}
	if order, ok := map[string]float64{"kube-admin": 1000, "default": 1_000_000, "kube-baseline": 10_000_000}[s.Tier]; ok {
		r.tierOrder, r.pass = order, s.Tier != "default"
	} else if tier, ok := o.tiers[s.Tier]; ok {
		r.pass = tier.DefaultAction == v1.TierPass
		if tier.Order != nil {
			r.tierOrder = *tier.Order
		}
	}
	if s.Order != nil {
		r.order = *s.Order
	}
	for _, rule := range rules {
		r.rules = append(r.rules, func(f flow) string {
			if rule.Action != v1.ActionLog && o.ruleMatches(&rule, namespace, ingress, f) {
				return string(rule.Action)
			}
			return ""
		})
	}
	return append(out, r)
}

func (o *tieredOpinion) ruleMatches(r *v1.Rule, namespace string, ingress bool, f flow) bool {
	is := func(p *intstr.IntOrString) bool {
		numbers := map[string]string{"6": "TCP", "17": "UDP", "132": "SCTP", "1": "ICMP"}
		return p.StrVal == f.protocol || numbers[strconv.Itoa(int(p.IntVal))] == f.protocol
	}
	switch {
	case r.IPVersion == 4 && !f.src.Is4(), r.IPVersion == 6 && f.src.Is4():
		return false
	case r.Protocol != nil && !is(r.Protocol), r.NotProtocol != nil && is(r.NotProtocol):
		return false
	case r.ICMP != nil && int(r.ICMP.Type) != f.icmpType, r.NotICMP != nil && int(r.NotICMP.Type) == f.icmpType:
		return false
	}
	return o.endMatches(&r.Source, namespace, f.src, f, f.srcPort, ingress && r.Source.Services != nil) &&
		o.endMatches(&r.Destination, namespace, f.dst, f, f.dstPort, false)
}

// endMatches: "an address matches if it satisfies every criterion that is set".
func (o *tieredOpinion) endMatches(e *v1.RuleEnd, namespace string, a netip.Addr, f flow, port int, portless bool) bool {
	contains := func(n v1.Net) bool { return netip.MustParsePrefix(string(n)).Contains(a) }
	if len(e.Nets) > 0 && !slices.ContainsFunc(e.Nets, contains) || slices.ContainsFunc(e.NotNets, contains) {
		return false
	}
	if e.Services != nil {
		ns := e.Services.Namespace
		if ns == "" {
			ns = namespace
		}
		served := func(s ServiceEnd) bool {
			return s.Addr == a && (portless || s.Protocol.String() == f.protocol && int(s.Port) == port)
		}
		if !slices.ContainsFunc(o.services[ns+"/"+e.Services.Name], served) {
			return false
		}
	}
	positive := e.Selector != "" || e.NamespaceSelector != "" || e.ServiceAccounts != nil
	if positive && !o.anyThing(e, namespace, a, e.Selector, e.ServiceAccounts, nil) {
		return false
	}
	if e.NotSelector != "" && o.anyThing(e, namespace, a, e.NotSelector, nil, nil) {
		return false
	}
	one := func(p intstr.IntOrString) bool {
		first, last, isRange := strings.Cut(p.StrVal, ":")
		switch {
		case p.Type == intstr.Int:
			return int(p.IntVal) == port
		case isRange:
			from, _ := strconv.Atoi(first)
			to, _ := strconv.Atoi(last)
			return from <= port && port <= to
		}
		named := func(pod *opinionPod) bool { return slices.Contains(pod.ports, opinionPort{p.StrVal, f.protocol, port}) }
		if positive {
			return o.anyThing(e, namespace, a, e.Selector, e.ServiceAccounts, named)
		}
		pod := o.at(a)
		return pod != nil && named(pod)
	}
	return (len(e.Ports) == 0 || slices.ContainsFunc(e.Ports, one)) && !slices.ContainsFunc(e.NotPorts, one)
}

// anyThing reports whether the address belongs to something that the selectors
// choose, where they look; with named, to a pod of which that is true.
func (o *tieredOpinion) anyThing(e *v1.RuleEnd, namespace string, a netip.Addr, text string, accounts *v1.ServiceAccountMatch, named func(*opinionPod) bool) bool {
	looks := func(ns string) bool {
		switch {
		case e.NamespaceSelector == "global()":
			return ns == ""
		case e.NamespaceSelector != "":
			return ns != "" && o.selects[e.NamespaceSelector](o.namespaces[ns])
		}
		return namespace == "" || ns == namespace
	}
	chosen := func(labels map[string]string) bool { return text == "" || o.selects[text](labels) }
	if pod := o.at(a); pod != nil && looks(pod.namespace) && chosen(pod.labels) && (named == nil || named(pod)) {
		if accounts == nil {
			return true
		}
		if (len(accounts.Names) == 0 || slices.Contains(accounts.Names, pod.account)) &&
			(accounts.Selector == "" || o.selects[accounts.Selector](map[string]string{"a": pod.account})) {
			return true
		}
	}
	return accounts == nil && named == nil && slices.ContainsFunc(o.sets, func(s opinionSet) bool {
		return looks(s.namespace) && chosen(s.labels) && within(s.nets, a)
	})
}

func (o *tieredOpinion) subject(p *cnp.ClusterNetworkPolicy, pod *opinionPod) bool {
	if s := p.Spec.Subject.Namespaces; s != nil {
		return selects(s, o.namespaces[pod.namespace])
	}
	s := p.Spec.Subject.Pods
	return selects(&s.NamespaceSelector, o.namespaces[pod.namespace]) && selects(&s.PodSelector, pod.labels)
}

// rankCluster: "CNPs with no ingress rules do not affect ingress traffic."
func (o *tieredOpinion) rankCluster(out []ranked, p *cnp.ClusterNetworkPolicy, ingress bool) []ranked {
	r := ranked{tier: "kube-admin", tierOrder: 1000, pass: true, order: float64(p.Spec.Priority), name: p.Name}
	if p.Spec.Tier == cnp.BaselineTier {
		r.tier, r.tierOrder = "kube-baseline", 10_000_000
	}
	add := func(action cnp.ClusterNetworkPolicyRuleAction, protocols []cnp.ClusterNetworkPolicyProtocol, peer func(flow) bool) {
		r.rules = append(r.rules, func(f flow) string {
			if !peer(f) || !o.protocolMatches(protocols, f) {
				return ""
			}
			if action == cnp.ClusterNetworkPolicyRuleActionAccept {
				return "Allow"
			}
			return string(action)
		})
	}
	if ingress {
		for _, rule := range p.Spec.Ingress {
			add(rule.Action, rule.Protocols, func(f flow) bool {
				return slices.ContainsFunc(rule.From, func(p cnp.ClusterNetworkPolicyIngressPeer) bool {
					return o.clusterPods(p.Namespaces, p.Pods, f.src)
				})
			})
		}
	} else {
		for _, rule := range p.Spec.Egress {
			add(rule.Action, rule.Protocols, func(f flow) bool {
				return slices.ContainsFunc(rule.To, func(p cnp.ClusterNetworkPolicyEgressPeer) bool {
					network := func(c cnp.CIDR) bool { return netip.MustParsePrefix(string(c)).Contains(f.dst) }
					labels, isNode := o.nodes[f.dst.String()]
					return o.clusterPods(p.Namespaces, p.Pods, f.dst) || slices.ContainsFunc(p.Networks, network) ||
						p.Nodes != nil && isNode && selects(p.Nodes, labels)
				})
			})
		}
	}
	if len(r.rules) == 0 {
		return out
	}
	return append(out, r)
}

func (o *tieredOpinion) clusterPods(namespaces *metav1.LabelSelector, pods *cnp.NamespacedPod, a netip.Addr) bool {
	pod := o.at(a)
	if pod == nil {
		return false
	}
	if namespaces != nil {
		return selects(namespaces, o.namespaces[pod.namespace])
	}
	return pods != nil && selects(&pods.NamespaceSelector, o.namespaces[pod.namespace]) && selects(&pods.PodSelector, pod.labels)
}

func (o *tieredOpinion) protocolMatches(list []cnp.ClusterNetworkPolicyProtocol, f flow) bool {
	number := func(p *cnp.Port) bool {
		return p == nil || p.Range == nil && int(p.Number) == f.dstPort ||
			p.Range != nil && int(p.Range.Start) <= f.dstPort && f.dstPort <= int(p.Range.End)
	}
	return len(list) == 0 || slices.ContainsFunc(list, func(p cnp.ClusterNetworkPolicyProtocol) bool {
		switch {
		case p.TCP != nil:
			return f.protocol == "TCP" && number(p.TCP.DestinationPort)
		case p.UDP != nil:
			return f.protocol == "UDP" && number(p.UDP.DestinationPort)
		case p.SCTP != nil:
			return f.protocol == "SCTP" && number(p.SCTP.DestinationPort)
		}
		pod := o.at(f.dst)
		return pod != nil && f.hasPorts() && slices.Contains(pod.ports, opinionPort{p.DestinationNamedPort, f.protocol, f.dstPort})
	})
}
