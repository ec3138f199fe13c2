package eval

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"

	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/convert"
	"github.com/koratnet/korat/policy/selector"
)

var clusters = flag.Int("clusters", 2000, "number of random clusters of each second opinion")

// TestSecondOpinion compares the way that policies take with a naive reading of
// the API documentation, over random clusters and flows. Few distinct labels,
// addresses and ports make sure that things meet.
func TestSecondOpinion(t *testing.T) {
	const flows = 10
	allowed := 0
	for seed := range uint64(*clusters) {
		r := &random{rand.New(rand.NewPCG(seed, 0))}
		o := r.cluster()
		c := fromOpinion(o)
		for range flows {
			p, protocol := r.packet(o)
			want := o.allows(p.Src, p.Dst, protocol, int(p.DstPort))
			got := c.Verdict(p)
			if (got.Action == policy.Allow) != want {
				t.Fatalf("cluster %d, %+v: %+v; the other opinion is %v\n%s", seed, p, got, want, describe(o))
			}
			if want {
				allowed++
			}
		}
	}
	share := float64(allowed) / float64(*clusters*flows)
	t.Logf("%d flows agree, %.0f %% allowed", *clusters*flows, 100*share)
	if share < 0.1 || share > 0.9 {
		t.Errorf("%.0f %% of the flows are allowed: the random clusters say little", 100*share)
	}
}

// fromOpinion takes a cluster the usual way.
func fromOpinion(o *opinion) *Cluster {
	c := &Cluster{Namespaces: map[string]selector.Labels{}}
	for name, l := range o.namespaces {
		c.Namespaces[name] = selector.MakeLabels(l)
	}
	for _, p := range o.pods {
		c.Pods = append(c.Pods, Pod{
			Namespace: p.namespace, Name: p.name, Node: p.node, Addrs: p.addrs, Labels: selector.MakeLabels(p.labels),
			Account: p.account, Ports: p.named(),
		})
	}
	for _, np := range o.policies {
		p, _ := convert.NetworkPolicy(np)
		c.Policies = append(c.Policies, p)
	}
	return c
}

func (p *opinionPod) named() []policy.NamedPort {
	protocols := map[string]policy.Protocol{"TCP": policy.TCP, "UDP": policy.UDP}
	var out []policy.NamedPort
	for _, n := range p.ports {
		out = append(out, policy.NamedPort{Name: n.name, Protocol: protocols[n.protocol], Port: uint16(n.number)})
	}
	return out
}

func describe(o *opinion) string {
	text := ""
	for name, l := range o.namespaces {
		text += fmt.Sprintf("namespace %s %v\n", name, l)
	}
	for _, p := range o.pods {
		text += fmt.Sprintf("pod %s/%s %v %v %s %v\n", p.namespace, p.name, p.addrs, p.labels, p.account, p.ports)
	}
	for _, np := range o.policies {
		spec, err := yaml.Marshal(np.Spec)
		text += fmt.Sprintf("policy %s/%s (%v)\n%s", np.Namespace, np.Name, err, spec)
	}
	return text
}

// random draws clusters. Every draw may also be something that cannot be understood:
// ranges that are none, peers without content, protocols that nobody knows. And of
// every selector it notes what it means, in other words than those of the package that
// evaluates it. So it is not felix/dataplanetest's, which draws what packets between the
// sites of a node can ask.
type random struct{ *rand.Rand }

func pick[T any](r *random, from ...T) T { return from[r.IntN(len(from))] }

func (r *random) one(in int) bool { return r.IntN(in) == 0 }

// some returns a list of up to most items.
func some[T any](r *random, most int, item func() T) []T {
	var out []T
	for range r.IntN(most + 1) {
		out = append(out, item())
	}
	return out
}

func (r *random) labels() map[string]string {
	l := map[string]string{}
	for range r.IntN(4) {
		l[pick(r, "a", "b", "c")] = pick(r, "x", "y", "z", "")
	}
	return l
}

func (r *random) cluster() *opinion {
	o := &opinion{namespaces: map[string]map[string]string{}}
	for _, name := range []string{"n0", "n1", "n2"} {
		o.namespaces[name] = r.labels()
	}
	for i := range 2 + r.IntN(5) {
		o.pods = append(o.pods, opinionPod{
			namespace: pick(r, "n0", "n1", "n2"), name: fmt.Sprint("p", i), labels: r.labels(),
			addrs: []netip.Addr{r.addr4(i), r.addr6(i)}, account: pick(r, "x", "y"), ports: some(r, 2, r.namedPort),
		})
	}
	for i := range 1 + r.IntN(5) {
		o.policies = append(o.policies, r.policy(i))
	}
	return o
}

// addr4 and addr6 spread addresses over a few ranges, so that blocks tell them apart.
func (r *random) addr4(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(r.IntN(2)), byte(r.IntN(2)), byte(i + 1)})
}

func (r *random) addr6(i int) netip.Addr {
	return netip.AddrFrom16([16]byte{0xfd, 0, 0, byte(r.IntN(2)), 15: byte(i + 1)})
}

func (r *random) namedPort() opinionPort {
	return opinionPort{pick(r, "http", "dns"), pick(r, "TCP", "TCP", "UDP"), pick(r, 80, 81, 443)}
}

func (r *random) policy(i int) *networkingv1.NetworkPolicy {
	np := &networkingv1.NetworkPolicy{}
	np.Namespace, np.Name = pick(r, "n0", "n1", "n2"), fmt.Sprint("np", i)
	np.Spec.PodSelector = *r.subject()
	np.Spec.PolicyTypes = pick(r, nil, nil, []networkingv1.PolicyType{"Ingress"},
		[]networkingv1.PolicyType{"Egress"}, []networkingv1.PolicyType{"Egress", "Ingress"})
	np.Spec.Ingress = some(r, 2, func() networkingv1.NetworkPolicyIngressRule {
		return networkingv1.NetworkPolicyIngressRule{From: some(r, 3, r.peer), Ports: some(r, 3, r.port)}
	})
	np.Spec.Egress = some(r, 2, func() networkingv1.NetworkPolicyEgressRule {
		return networkingv1.NetworkPolicyEgressRule{To: some(r, 3, r.peer), Ports: some(r, 3, r.port)}
	})
	return np
}

// subject draws broad selectors, so that policies and pods meet often.
func (r *random) subject() *metav1.LabelSelector {
	if r.one(2) {
		return &metav1.LabelSelector{}
	}
	return r.selector()
}

func (r *random) selector() *metav1.LabelSelector {
	s := &metav1.LabelSelector{}
	if r.one(2) {
		s.MatchLabels = map[string]string{pick(r, "a", "b", "c"): pick(r, "x", "y", "z", "")}
	}
	if r.one(2) {
		op := pick(r, metav1.LabelSelectorOpIn, metav1.LabelSelectorOpNotIn, metav1.LabelSelectorOpExists, metav1.LabelSelectorOpDoesNotExist)
		e := metav1.LabelSelectorRequirement{Key: pick(r, "a", "b", "c"), Operator: op}
		if op == metav1.LabelSelectorOpIn || op == metav1.LabelSelectorOpNotIn {
			e.Values = append([]string{pick(r, "x", "y")}, some(r, 2, func() string { return pick(r, "x", "z", "") })...)
		}
		s.MatchExpressions = append(s.MatchExpressions, e)
	}
	return s
}

func (r *random) peer() networkingv1.NetworkPolicyPeer {
	if r.one(30) {
		return networkingv1.NetworkPolicyPeer{}
	}
	if r.one(3) {
		return networkingv1.NetworkPolicyPeer{IPBlock: r.block()}
	}
	p := networkingv1.NetworkPolicyPeer{}
	if r.one(2) {
		p.NamespaceSelector = r.selector()
	}
	if p.NamespaceSelector == nil || r.one(2) {
		p.PodSelector = r.selector()
	}
	return p
}

func (r *random) block() *networkingv1.IPBlock {
	if r.one(3) {
		b := &networkingv1.IPBlock{CIDR: pick(r, "::/0", "fd00::/16", "fd00:0::/32", "fd00:1::/32")}
		b.Except = some(r, 1, func() string { return pick(r, "fd00:1::/32", "fd00:0::3/128", "10.0.0.0/8") })
		return b
	}
	b := &networkingv1.IPBlock{CIDR: pick(r, "0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/16", "10.1.0.7/16", "10.0.1.0/24", "10.0.0.2/32", "10.0.0.0/33")}
	b.Except = some(r, 2, func() string {
		return pick(r, "10.0.0.0/16", "10.0.0.0/24", "10.1.1.0/24", "10.0.0.3/32", "10.0.0.0/8", "fd00::/8", "10.1")
	})
	return b
}

func (r *random) port() networkingv1.NetworkPolicyPort {
	p := networkingv1.NetworkPolicyPort{}
	if !r.one(3) {
		p.Protocol = new(pick(r, corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP, "GRE"))
	}
	if !r.one(5) {
		p.Port = new(pick(r, intstr.FromInt32(80), intstr.FromInt32(81), intstr.FromInt32(443), intstr.FromInt32(1), intstr.FromString("http"), intstr.FromString("dns")))
	}
	if r.one(3) {
		p.EndPort = new(pick(r, int32(81), 90, 65535, 80))
	}
	return p
}

// packet draws a flow between pods, or between a pod and an address outside.
func (r *random) packet(o *opinion) (Packet, corev1.Protocol) {
	family := r.IntN(2)
	end := func() netip.Addr {
		if r.one(4) {
			return []netip.Addr{r.addr4(50 + r.IntN(2)), r.addr6(50)}[family]
		}
		return pick(r, o.pods...).addrs[family]
	}
	p := Packet{Src: end(), Dst: end()}
	protocol := pick(r, corev1.ProtocolTCP, corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP, "ICMP")
	p.Protocol = map[corev1.Protocol]policy.Protocol{
		"TCP": policy.TCP, "UDP": policy.UDP, "SCTP": policy.SCTP, "ICMP": policy.ICMP,
	}[protocol]
	if p.Protocol.HasPorts() {
		p.DstPort = pick(r, uint16(80), 80, 81, 443, 1, 65535)
	}
	return p, protocol
}
