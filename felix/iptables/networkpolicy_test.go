package iptables

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/compile"
	"github.com/koratnet/korat/policy/convert"
	"github.com/koratnet/korat/policy/eval"
	"github.com/koratnet/korat/policy/ir"
	"github.com/koratnet/korat/policy/match"
	"github.com/koratnet/korat/policy/selector"
)

// TestKernelAgreesWithNetworkPolicies takes random NetworkPolicies the whole way,
// through convert and compile into the kernel, and asks the packets. The site
// outside is a pod of another node here.
func TestKernelAgreesWithNetworkPolicies(t *testing.T) {
	for _, flavour := range []Flavour{NFT, Legacy} {
		t.Run(string(flavour), func(t *testing.T) {
			oneCPU(t)
			w := newWorld(t, flavour)
			w.apply(w.open())
			w.openMarkers()
			w.compareMany("sets of policies", w.compareCluster)
		})
	}
}

func (w *world) compareCluster(seed uint64) (passed, all int) {
	w.t.Helper()
	r := manifests{rand.New(rand.NewPCG(seed, 2))}
	c := r.cluster(w)
	d, sets := compiled(w, c)
	w.loadSets(sets)
	w.apply(d)
	var shots []shot
	for _, way := range ways {
		for range 6 {
			is6 := r.IntN(2) == 0
			proto := []policy.Protocol{policy.TCP, policy.UDP, policy.SCTP, policy.ICMP}[r.IntN(4)]
			if proto == policy.ICMP && is6 {
				proto = policy.ICMPv6
			}
			shots = append(shots, shot{way[0], way[1], w.fresh(way[0], way[1], is6, proto, 80+uint16(r.IntN(6)))})
		}
	}
	for i, arrived := range w.fire(shots) {
		p := shots[i].packet
		v := c.Verdict(p.asked())
		// The other node does its part there.
		want := (shots[i].from == "outside" || v.Egress.Action == policy.Allow) && (shots[i].to == "outside" || v.Ingress.Action == policy.Allow)
		if want {
			passed++
		}
		if arrived != want {
			w.t.Fatalf("-case=%d: %s: arrived %v, eval says %+v", seed, shots[i], arrived, v)
		}
	}
	return passed, len(shots)
}

// compiled does for two pods what the engine does for a node.
func compiled(w *world, c *eval.Cluster) (desired.Delta, sets) {
	d := w.open()
	d.Programs = map[ir.ProgramID]*ir.Program{}
	used := sets{}
	for _, p := range c.Policies {
		for _, dir := range policy.Directions {
			prog := compile.Compile(p, dir, compile.SetIDOf)
			d.Programs[prog.ID] = prog
			for _, s := range compile.Sets(p, dir) {
				var members []ir.Member
				for _, pod := range c.Pods {
					if selects(c, s.Scope, pod) {
						members = append(members, one(pod.Addrs[0]), one(pod.Addrs[1]))
					}
				}
				used[compile.SetIDOf(s)] = setOf(ir.Addrs, members...)
			}
		}
	}
	for _, pod := range c.Pods[:2] {
		var active []*policy.Policy
		for _, p := range c.Policies {
			if selects(c, p.Subject, pod) {
				active = append(active, p)
			}
		}
		slices.SortFunc(active, c.Tiers.Compare)
		e := d.Endpoints[w.sites[pod.Name].iface]
		e.Ingress, e.Egress = compile.Chain(active, policy.Ingress, c.Tiers), compile.Chain(active, policy.Egress, c.Tiers)
	}
	return d, used
}

func selects(c *eval.Cluster, s policy.Scope, p eval.Pod) bool {
	return match.Matches(s, match.Namespace{Name: p.Namespace, Labels: c.Namespaces[p.Namespace], Known: true}, p.Labels)
}

// manifests draws NetworkPolicies.
type manifests struct{ *rand.Rand }

func (r manifests) cluster(w *world) *eval.Cluster {
	c := &eval.Cluster{Namespaces: map[string]selector.Labels{}}
	for _, ns := range []string{"x", "y"} {
		c.Namespaces[ns] = selector.MakeLabels(map[string]string{"team": ns})
	}
	for _, name := range []string{"a", "b", "outside"} {
		s := w.sites[name]
		pod := eval.Pod{
			Namespace: r.pick("x", "y"), Name: name, Node: "here", Addrs: []netip.Addr{s.addrs[false], s.addrs[true]},
			Labels: selector.MakeLabels(map[string]string{"app": r.pick("web", "db"), "tier": r.pick("1", "2")}),
		}
		if name == "outside" {
			pod.Node = "there"
		}
		c.Pods = append(c.Pods, pod)
	}
	host := w.sites["host"].addrs
	c.Nodes = []eval.Node{{Name: "here", Addrs: []netip.Addr{host[false], host[true]}}}
	for i := range 1 + r.IntN(4) {
		p, problems := convert.NetworkPolicy(r.policy(i))
		if len(problems) > 0 {
			w.t.Fatalf("drew a bad policy: %v", problems)
		}
		c.Policies = append(c.Policies, p)
	}
	return c
}

func (r manifests) pick(from ...string) string { return from[r.IntN(len(from))] }

func (r manifests) policy(i int) *networkingv1.NetworkPolicy {
	np := &networkingv1.NetworkPolicy{}
	np.Namespace, np.Name = r.pick("x", "y"), fmt.Sprint("np", i)
	if r.IntN(2) == 0 {
		np.Spec.PodSelector = *r.selector()
	}
	np.Spec.PolicyTypes = [][]networkingv1.PolicyType{nil, {"Ingress"}, {"Egress"}, {"Ingress", "Egress"}}[r.IntN(4)]
	for range r.IntN(3) {
		np.Spec.Ingress = append(np.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: r.peers(), Ports: r.ports()})
	}
	for range r.IntN(3) {
		np.Spec.Egress = append(np.Spec.Egress, networkingv1.NetworkPolicyEgressRule{To: r.peers(), Ports: r.ports()})
	}
	return np
}

func (r manifests) selector() *metav1.LabelSelector {
	switch r.IntN(3) {
	case 0:
		return &metav1.LabelSelector{MatchLabels: map[string]string{"app": r.pick("web", "db")}}
	case 1:
		return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "tier", Operator: "NotIn", Values: []string{r.pick("1", "2")}}}}
	}
	return &metav1.LabelSelector{}
}

func (r manifests) peers() []networkingv1.NetworkPolicyPeer {
	var out []networkingv1.NetworkPolicyPeer
	for range r.IntN(4) {
		p := networkingv1.NetworkPolicyPeer{}
		switch r.IntN(4) {
		case 0:
			p.PodSelector = r.selector()
		case 1:
			p.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"team": r.pick("x", "y")}}
		case 2:
			p.PodSelector, p.NamespaceSelector = r.selector(), &metav1.LabelSelector{}
		case 3:
			p.IPBlock = r.block()
		}
		out = append(out, p)
	}
	return out
}

// blocks are drawn whole: an exception has to lie in its block.
var blocks = []string{
	`{cidr: 0.0.0.0/0}`, `{cidr: 0.0.0.0/0, except: [10.1.0.2/32, 192.168.0.0/16]}`, `{cidr: 10.1.0.0/24, except: [10.1.0.3/32]}`,
	`{cidr: 192.168.7.9/32}`, `{cidr: "::/0"}`, `{cidr: "::/0", except: ["fd07::/16"]}`, `{cidr: "fd01::/64", except: ["fd01::2/127"]}`,
}

func (r manifests) block() *networkingv1.IPBlock {
	var b networkingv1.IPBlock
	if err := yaml.Unmarshal([]byte(r.pick(blocks...)), &b); err != nil {
		panic("bug: " + err.Error())
	}
	return &b
}

func (r manifests) ports() []networkingv1.NetworkPolicyPort {
	var out []networkingv1.NetworkPolicyPort
	for range r.IntN(4) {
		p := networkingv1.NetworkPolicyPort{}
		if r.IntN(3) > 0 {
			p.Protocol = new([]corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP}[r.IntN(3)])
		}
		if r.IntN(4) > 0 {
			first := int32(80 + r.IntN(5))
			p.Port = new(intstr.FromInt32(first))
			if r.IntN(3) == 0 {
				p.EndPort = new(first + int32(r.IntN(3)))
			}
		}
		out = append(out, p)
	}
	return out
}
