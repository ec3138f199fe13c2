package eval

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"
	"sigs.k8s.io/yaml"

	v1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/convert"
	"github.com/koratnet/korat/policy/selector"
)

// TestSecondOpinionOfTiers is TestSecondOpinion for policies of all kinds in
// tiers. Staged ones are judged twice: as they are, and as if they were enforced.
func TestSecondOpinionOfTiers(t *testing.T) {
	const flows = 10
	allowed, different := 0, 0
	for seed := range uint64(*clusters) {
		r := &random{rand.New(rand.NewPCG(seed, 7))}
		o := r.tiered()
		c := fromTiers(t, o)
		for range flows {
			p, f := r.flow(o)
			got := c.Verdict(p)
			pending := got
			if got.Pending != nil {
				pending = *got.Pending
			}
			want, staged := o.allows(f, false), o.allows(f, true)
			if (got.Action == policy.Allow) != want || (pending.Action == policy.Allow) != staged {
				t.Fatalf("cluster %d, %s: %s, pending %s; the other opinion is %v, %v\n%s", seed, p, got, pending, want, staged, o)
			}
			if want {
				allowed++
			}
			if want != staged {
				different++
			}
		}
	}
	all := *clusters * flows
	t.Logf("%d flows agree, %d allowed, %d otherwise if staged policies were enforced", all, allowed, different)
	if allowed < all/10 || allowed > all*9/10 || different < all/100 {
		t.Error("the random clusters say little")
	}
}

// fromTiers takes a cluster the usual way.
func fromTiers(t *testing.T, o *tieredOpinion) *Cluster {
	t.Helper()
	c := fromOpinion(&o.opinion)
	c.Accounts, c.Tiers = map[policy.ServiceName]selector.Labels{}, policy.Tiers{}
	for ns := range o.namespaces {
		for _, account := range []string{"x", "y"} {
			c.Accounts[policy.ServiceName{Namespace: ns, Name: account}] = selector.MakeLabels(map[string]string{"a": account})
		}
	}
	add := func(p *policy.Policy, problems []convert.Problem) {
		if len(problems) > 0 {
			t.Fatalf("%s: %v", p.Key, problems)
		}
		c.Policies = append(c.Policies, p)
	}
	for name, spec := range o.tiers {
		tier, _ := convert.Tier(&v1.Tier{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec})
		c.Tiers[name] = tier
	}
	for _, p := range o.own {
		add(convert.KoratNetworkPolicy(p))
	}
	for _, p := range o.global {
		add(convert.GlobalNetworkPolicy(p))
	}
	for _, p := range o.clusters {
		add(convert.ClusterNetworkPolicy(p))
	}
	for _, s := range o.sets {
		c.NetworkSets = append(c.NetworkSets, policy.NetworkSet{Namespace: s.namespace, Labels: selector.MakeLabels(s.labels), Nets: s.nets})
	}
	for name, ends := range o.services {
		ns, n, _ := strings.Cut(name, "/")
		c.Services = append(c.Services, Service{policy.ServiceName{Namespace: ns, Name: n}, ends})
	}
	for addr, labels := range o.nodes {
		c.Nodes = append(c.Nodes, Node{Name: addr, Addrs: []netip.Addr{ip(addr)}, Labels: selector.MakeLabels(labels)})
	}
	return c
}

// String describes the cluster.
func (o *tieredOpinion) String() string {
	text := describe(&o.opinion) + fmt.Sprintf("sets %+v\nservices %v\nnodes %v\ntiers %+v\n", o.sets, o.services, o.nodes, o.tiers)
	spec := func(name string, s any) {
		y, err := yaml.Marshal(s)
		text += fmt.Sprintf("policy %s (%v)\n%s", name, err, y)
	}
	for _, p := range o.own {
		spec(p.Namespace+"/"+p.Name, p.Spec)
	}
	for _, p := range o.global {
		spec(p.Name, p.Spec)
	}
	for _, p := range o.clusters {
		spec(p.Name, p.Spec)
	}
	return text
}

func (r *random) tiered() *tieredOpinion {
	o := &tieredOpinion{
		opinion: *r.cluster(), tiers: map[string]v1.TierSpec{}, services: map[string][]ServiceEnd{},
		nodes:   map[string]map[string]string{"10.1.0.50": {"a": "x"}, "10.1.0.51": {}},
		selects: map[string]func(map[string]string) bool{"all()": func(map[string]string) bool { return true }},
	}
	o.policies = o.policies[:r.IntN(len(o.policies)+1)]
	for _, name := range []string{"t1", "t2"} {
		spec := v1.TierSpec{DefaultAction: pick(r, v1.TierDeny, v1.TierPass, v1.TierPass, "")}
		if !r.one(4) {
			spec.Order = new(pick(r, 5.0, 2_000_000, 20_000_000))
		}
		o.tiers[name] = spec
	}
	for range 3 {
		o.sets = append(o.sets, opinionSet{pick(r, "", "n0", "n1"), r.labels(), some(r, 2, func() netip.Prefix { return netip.MustParsePrefix(r.net()) })})
	}
	for _, name := range []string{"n0/s", "n1/s"} {
		o.services[name] = some(r, 3, func() ServiceEnd {
			return ServiceEnd{pick(r, o.pods...).addrs[r.IntN(2)], pick(r, policy.TCP, policy.UDP), pick(r, uint16(80), 81)}
		})
	}
	for i := range 1 + r.IntN(5) {
		switch r.IntN(3) {
		case 0:
			p := &v1.NetworkPolicy{}
			p.Namespace, p.Name = pick(r, "n0", "n1", "n2"), fmt.Sprint("own", i)
			p.Spec.PolicySpec = r.spec(o, false)
			o.own = append(o.own, p)
		case 1:
			p := &v1.GlobalNetworkPolicy{}
			p.Name, p.Spec.PolicySpec = fmt.Sprint("global", i), r.spec(o, true)
			if r.one(2) {
				p.Spec.NamespaceSelector = r.text(o)
			}
			o.global = append(o.global, p)
		case 2:
			o.clusters = append(o.clusters, r.clusterPolicy(i))
		}
	}
	return o
}

// text draws a selector, and notes what it means.
func (r *random) text(o *tieredOpinion) string {
	k, v := pick(r, "a", "b", "c"), pick(r, "x", "y", "z", "")
	text, means := "all()", func(map[string]string) bool { return true }
	switch r.IntN(7) {
	case 0:
		text = fmt.Sprintf("%s == '%s'", k, v)
		means = func(l map[string]string) bool { got, ok := l[k]; return ok && got == v }
	case 1:
		text = fmt.Sprintf("%s != '%s'", k, v)
		means = func(l map[string]string) bool { got, ok := l[k]; return !ok || got != v }
	case 2:
		text = fmt.Sprintf("has(%s)", k)
		means = func(l map[string]string) bool { _, ok := l[k]; return ok }
	case 3:
		text = fmt.Sprintf("!has(%s)", k)
		means = func(l map[string]string) bool { _, ok := l[k]; return !ok }
	case 4:
		text = fmt.Sprintf("%s in {'x', '%s'}", k, v)
		means = func(l map[string]string) bool { got, ok := l[k]; return ok && (got == "x" || got == v) }
	case 5:
		text = fmt.Sprintf("a == 'x' && (has(%s) || b starts with '%s')", k, v)
		means = func(l map[string]string) bool {
			_, ok := l[k]
			b, have := l["b"]
			return l["a"] == "x" && (ok || have && strings.HasPrefix(b, v))
		}
	}
	o.selects[text] = means
	return text
}

func (r *random) spec(o *tieredOpinion, global bool) v1.PolicySpec {
	s := v1.PolicySpec{Tier: pick(r, "default", "default", "t1", "t2", "kube-admin", "kube-baseline")}
	if !r.one(4) {
		s.Order = new(pick(r, 1.0, 1000, 1000, 2000))
	}
	s.Enforcement = pick(r, "", v1.Enforced, v1.Staged)
	if r.one(2) {
		s.Selector = r.text(o)
	}
	if r.one(6) {
		s.ServiceAccountSelector = r.text(o)
	}
	s.Types = pick(r, nil, nil, []v1.PolicyType{"Ingress"}, []v1.PolicyType{"Egress"}, []v1.PolicyType{"Ingress", "Egress"})
	s.Ingress = some(r, 3, func() v1.Rule { return r.ownRule(o, true, global) })
	s.Egress = some(r, 3, func() v1.Rule { return r.ownRule(o, false, global) })
	return s
}

func (r *random) ownRule(o *tieredOpinion, ingress, global bool) v1.Rule {
	rule := v1.Rule{Action: pick(r, v1.ActionAllow, v1.ActionAllow, v1.ActionDeny, v1.ActionPass, v1.ActionLog), IPVersion: pick(r, int32(0), 0, 0, 0, 4, 6)}
	protocol := func() *intstr.IntOrString {
		return new(pick(r, intstr.FromString("TCP"), intstr.FromString("TCP"), intstr.FromInt32(17), intstr.FromString("ICMP")))
	}
	if r.one(2) {
		rule.Protocol = protocol()
	}
	if r.one(6) {
		rule.NotProtocol = protocol()
	}
	rule.Source, rule.Destination = r.end(o), r.end(o)
	if other := []*v1.RuleEnd{&rule.Destination, &rule.Source}[map[bool]int{true: 1}[ingress]]; r.one(8) {
		*other = v1.RuleEnd{Services: &v1.ServiceMatch{Name: "s"}}
		if global || r.one(2) {
			other.Services.Namespace = "n0"
		}
	}
	if rule.Protocol != nil && rule.Protocol.StrVal == "ICMP" {
		if r.one(2) {
			rule.ICMP = &v1.ICMPMatch{Type: pick(r, int32(0), 8)}
		}
		if r.one(3) {
			rule.NotICMP = &v1.ICMPMatch{Type: pick(r, int32(0), 8)}
		}
	} else if rule.Protocol != nil {
		rule.Destination.Ports, rule.Destination.NotPorts = r.ports(2), r.ports(6)
		rule.Source.Ports, rule.Source.NotPorts = r.ports(6), r.ports(8)
	}
	return rule
}

// ports draws a list one time in so many, else none.
func (r *random) ports(in int) []intstr.IntOrString {
	if !r.one(in) {
		return nil
	}
	return append(some(r, 2, r.ownPort), r.ownPort())
}

func (r *random) ownPort() intstr.IntOrString {
	return pick(r, intstr.FromInt32(80), intstr.FromInt32(81), intstr.FromString("81:500"), intstr.FromString("http"), intstr.FromString("dns"))
}

func (r *random) net() string {
	return pick(r, "0.0.0.0/0", "::/0", "10.0.0.0/8", "10.0.0.0/16", "10.1.0.0/16", "10.0.0.0/24", "10.0.0.2/32", "fd00::/16", "fd00:1::/32")
}

func (r *random) end(o *tieredOpinion) v1.RuleEnd {
	var e v1.RuleEnd
	if r.one(2) {
		return e
	}
	net := func() v1.Net { return v1.Net(r.net()) }
	if r.one(4) {
		e.Nets = append(some(r, 2, net), net())
	}
	if r.one(6) {
		e.NotNets = append(some(r, 2, net), net())
	}
	if r.one(2) {
		e.Selector = r.text(o)
	}
	if r.one(5) {
		e.NotSelector = r.text(o)
	}
	if r.one(3) {
		if e.NamespaceSelector = r.text(o); r.one(4) {
			e.NamespaceSelector = "global()"
		}
	}
	if r.one(8) {
		e.ServiceAccounts = &v1.ServiceAccountMatch{Names: []string{pick(r, "x", "y")}}
		if r.one(2) {
			e.ServiceAccounts = &v1.ServiceAccountMatch{Selector: r.text(o)}
		}
	}
	return e
}

func (r *random) clusterPolicy(i int) *cnp.ClusterNetworkPolicy {
	p := &cnp.ClusterNetworkPolicy{}
	p.Name = fmt.Sprint("cluster", i)
	p.Spec.Tier, p.Spec.Priority = pick(r, cnp.AdminTier, cnp.BaselineTier), pick(r, int32(0), 1, 1, 1000)
	p.Spec.Subject.Namespaces = r.subject()
	if r.one(2) {
		p.Spec.Subject = cnp.ClusterNetworkPolicySubject{Pods: r.namespacedPod()}
	}
	action := func() cnp.ClusterNetworkPolicyRuleAction {
		return pick(r, cnp.ClusterNetworkPolicyRuleActionAccept, cnp.ClusterNetworkPolicyRuleActionDeny, cnp.ClusterNetworkPolicyRuleActionPass)
	}
	p.Spec.Ingress = some(r, 3, func() cnp.ClusterNetworkPolicyIngressRule {
		peer := func() (p cnp.ClusterNetworkPolicyIngressPeer) {
			if p.Namespaces = r.subject(); r.one(2) {
				p.Namespaces, p.Pods = nil, r.namespacedPod()
			}
			return p
		}
		return cnp.ClusterNetworkPolicyIngressRule{Action: action(), From: append(some(r, 1, peer), peer()), Protocols: some(r, 2, r.protocolMatch)}
	})
	p.Spec.Egress = some(r, 3, func() cnp.ClusterNetworkPolicyEgressRule {
		named := false
		rule := cnp.ClusterNetworkPolicyEgressRule{Action: action(), Protocols: some(r, 2, r.protocolMatch)}
		for _, m := range rule.Protocols {
			named = named || m.DestinationNamedPort != ""
		}
		peer := func() (p cnp.ClusterNetworkPolicyEgressPeer) {
			kinds := 4
			if named { // others have no names of ports
				kinds = 2
			}
			switch r.IntN(kinds) {
			case 0:
				p.Namespaces = r.subject()
			case 1:
				p.Pods = r.namespacedPod()
			case 2:
				p.Nodes = r.subject()
			case 3:
				p.Networks = []cnp.CIDR{cnp.CIDR(r.net())}
			}
			return p
		}
		rule.To = append(some(r, 1, peer), peer())
		return rule
	})
	return p
}

func (r *random) namespacedPod() *cnp.NamespacedPod {
	return &cnp.NamespacedPod{NamespaceSelector: *r.subject(), PodSelector: *r.selector()}
}

func (r *random) protocolMatch() cnp.ClusterNetworkPolicyProtocol {
	port := pick(r, nil, &cnp.Port{Number: 80}, &cnp.Port{Range: &cnp.PortRange{Start: 80, End: 443}})
	switch r.IntN(4) {
	case 0:
		return cnp.ClusterNetworkPolicyProtocol{UDP: &cnp.ClusterNetworkPolicyProtocolUDP{DestinationPort: port}}
	case 1:
		return cnp.ClusterNetworkPolicyProtocol{DestinationNamedPort: "http"}
	}
	return cnp.ClusterNetworkPolicyProtocol{TCP: &cnp.ClusterNetworkPolicyProtocolTCP{DestinationPort: port}}
}

// flow draws a packet, in both ways to say it.
func (r *random) flow(o *tieredOpinion) (Packet, flow) {
	p, protocol := r.packet(&o.opinion)
	f := flow{src: p.Src, dst: p.Dst, protocol: string(protocol), dstPort: int(p.DstPort), icmpType: -1}
	if protocol == corev1.Protocol("ICMP") {
		p.Type = pick(r, uint8(0), 8)
		f.icmpType = int(p.Type)
	} else {
		p.SrcPort = pick(r, uint16(80), 81, 5000, 5000)
		f.srcPort = int(p.SrcPort)
	}
	return p, f
}
