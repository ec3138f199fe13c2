package eval

import (
	"math/rand/v2"
	"testing"

	"k8s.io/apimachinery/pkg/util/intstr"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	v1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/convert"
)

// TestBadInputIsNeverMorePermissiveThanNone breaks one thing in a random
// policy. What then passes must also pass without what was broken: the rule, or
// the policy where it is about the whole.
func TestBadInputIsNeverMorePermissiveThanNone(t *testing.T) {
	const flows = 8
	asked, closed := 0, 0
	for seed := range uint64(*clusters / 2) {
		r := &random{rand.New(rand.NewPCG(seed, 9))}
		o := r.tiered()
		broken, without, what := r.broken(t, o)
		if what == "" {
			continue
		}
		for range flows {
			p, _ := r.flow(o)
			asked++
			got, none := broken.Verdict(p), without.Verdict(p)
			if got.Action == policy.Allow && none.Action != policy.Allow {
				t.Fatalf("cluster %d, %s with %s: %s; without it %s\n%s%+v", seed, p, what, got, none, o, broken.Policies[len(broken.Policies)-1])
			}
			if got.Action != none.Action {
				closed++
			}
		}
	}
	t.Logf("%d flows, %d closed by what was broken", asked, closed)
	if asked < *clusters || closed < asked/100 {
		t.Error("the random clusters say little")
	}
}

// broken breaks one policy of o and returns the cluster with it, and the one
// without what is broken of it.
func (r *random) broken(t *testing.T, o *tieredOpinion) (with, without *Cluster, what string) {
	t.Helper()
	var bad, rest *policy.Policy
	var problems []convert.Problem
	switch {
	case len(o.clusters) > 0 && r.one(2):
		p, q := o.clusters[0].DeepCopy(), o.clusters[0].DeepCopy()
		o.clusters = o.clusters[1:]
		if what = r.breakCluster(p, q); what == "" {
			return nil, nil, ""
		}
		bad, problems = convert.ClusterNetworkPolicy(p)
		rest, _ = convert.ClusterNetworkPolicy(q)
	case len(o.global) > 0:
		p := o.global[0]
		o.global = o.global[1:]
		p.Spec.Types = []v1.PolicyType{v1.PolicyTypeIngress, v1.PolicyTypeEgress} // which do not depend on rules
		q := p.DeepCopy()
		var keep bool
		what, keep = r.breakGlobal(p, q)
		bad, problems = convert.GlobalNetworkPolicy(p)
		if keep {
			rest, _ = convert.GlobalNetworkPolicy(q)
		}
	default:
		return nil, nil, ""
	}
	if len(problems) == 0 {
		t.Fatalf("%s was not found in %+v", what, bad)
	}
	with, without = fromTiers(t, o), fromTiers(t, o)
	with.Policies = append(with.Policies, bad)
	if rest != nil {
		without.Policies = append(without.Policies, rest)
	}
	return with, without, what
}

// breakCluster breaks a rule of p and takes it out of rest.
func (r *random) breakCluster(p, rest *cnp.ClusterNetworkPolicy) string {
	if n := len(p.Spec.Egress); n > 0 {
		i := r.IntN(n)
		rule := &p.Spec.Egress[i]
		rest.Spec.Egress = append(rest.Spec.Egress[:i:i], rest.Spec.Egress[i+1:]...)
		return r.breakEgress(rule)
	}
	if n := len(p.Spec.Ingress); n > 0 {
		i := r.IntN(n)
		p.Spec.Ingress[i].From = append(p.Spec.Ingress[i].From, cnp.ClusterNetworkPolicyIngressPeer{})
		rest.Spec.Ingress = append(rest.Spec.Ingress[:i:i], rest.Spec.Ingress[i+1:]...)
		return "an ingress peer from the future"
	}
	return ""
}

func (r *random) breakEgress(rule *cnp.ClusterNetworkPolicyEgressRule) string {
	switch r.IntN(4) {
	case 0:
		rule.To = append(rule.To, cnp.ClusterNetworkPolicyEgressPeer{})
		return "an egress peer from the future"
	case 1:
		rule.To = []cnp.ClusterNetworkPolicyEgressPeer{{Networks: []cnp.CIDR{"10.0.0.0/99"}}}
		return "a network that is none"
	case 2:
		rule.Action = "Sing"
		return "an action from the future"
	}
	rule.To = nil
	return "no peers"
}

// breakGlobal breaks a rule of p and takes it out of rest, or breaks the whole,
// so that there is nothing to keep.
func (r *random) breakGlobal(p, rest *v1.GlobalNetworkPolicy) (what string, keep bool) {
	n := len(p.Spec.Ingress)
	if n == 0 || r.one(5) {
		p.Spec.Selector = "a =="
		return "a selector that is none", false
	}
	i := r.IntN(n)
	rest.Spec.Ingress = append(rest.Spec.Ingress[:i:i], rest.Spec.Ingress[i+1:]...)
	rule := &p.Spec.Ingress[i]
	switch r.IntN(6) {
	case 0:
		rule.Source.Nets = append(rule.Source.Nets, "10.0.0.0/99")
	case 1:
		rule.Source.NotNets = append(rule.Source.NotNets, "x")
	case 2:
		rule.Source.NotSelector = "has("
	case 3:
		rule.Protocol = new(intstr.FromString("GRE"))
	case 4:
		rule.Destination.Ports = append(rule.Destination.Ports, intstr.FromString("9:5"))
	case 5:
		rule.Action = "Sing"
	}
	return "a rule that is none", true
}
