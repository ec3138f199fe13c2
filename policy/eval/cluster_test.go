package eval

import (
	"net/netip"
	"testing"

	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
	"github.com/koratnet/korat/policy/selector"
)

// closedShop is a cluster in which nothing may reach the shop but pods of
// namespaces that are not labelled as strangers.
func closedShop() *Cluster {
	scope := policy.Scope{Namespaces: selector.Not(selector.Has("stranger"))}
	return &Cluster{
		Namespaces: map[string]selector.Labels{"shop": nil, "ops": nil},
		Pods: []Pod{
			{Namespace: "shop", Name: "web", Node: "n1", Addrs: []netip.Addr{ip("10.0.0.1"), ip("fd00::1")}},
			{Namespace: "ops", Name: "shell", Node: "n2", Addrs: []netip.Addr{ip("10.0.0.2"), ip("fd00::2")}},
			{Namespace: "unheard", Name: "ghost", Node: "n2", Addrs: []netip.Addr{ip("10.0.0.3")}},
		},
		Nodes: []Node{{Name: "n1", Addrs: []netip.Addr{ip("192.168.0.1")}}, {Name: "n2", Addrs: []netip.Addr{ip("192.168.0.2")}}},
		Policies: []*policy.Policy{{
			Key:     policy.Key{Namespace: "shop", Name: "np"},
			Tier:    policy.DefaultTier,
			Subject: policy.Scope{Namespace: "shop"},
			Types:   policy.Ingress,
			Ingress: []policy.Rule{{Action: policy.Allow, Peers: []policy.Peer{{}, {Scope: &scope}}, Ports: []policy.Port{{Protocol: policy.TCP}}}},
		}},
	}
}

func TestClusterVerdict(t *testing.T) {
	c := closedShop()
	for _, w := range []struct{ name, src, dst, want string }{
		{"a pod that is a peer", "10.0.0.2", "10.0.0.1", "Allow (egress: Allow, because no policy decides; ingress: Allow by knp/shop/np, ingress rule 0)"},
		{"the same by IPv6", "fd00::2", "fd00::1", "Allow (egress: Allow, because no policy decides; ingress: Allow by knp/shop/np, ingress rule 0)"},
		{"the same in the IPv4-mapped form", "::ffff:10.0.0.2", "::ffff:10.0.0.1", "Allow (egress: Allow, because no policy decides; ingress: Allow by knp/shop/np, ingress rule 0)"},
		{"43: a pod whose namespace is not known yet", "10.0.0.3", "10.0.0.1", "Deny (egress: Allow, because no policy decides; ingress: Deny, because no rule of knp/shop/np matches)"},
		{"41: the pod's own node", "192.168.0.1", "10.0.0.1", "Allow (egress: not a pod; ingress: from the pod's own node)"},
		{"41: another node", "192.168.0.2", "10.0.0.1", "Deny (egress: not a pod; ingress: Deny, because no rule of knp/shop/np matches)"},
		{"42: the pod itself", "10.0.0.1", "10.0.0.1", "Allow (egress: from the pod to itself; ingress: from the pod to itself)"},
		{"the pod's own node from the pod", "10.0.0.1", "192.168.0.1", "Allow (egress: Allow, because no policy decides; ingress: not a pod)"},
		{"outside", "203.0.113.1", "10.0.0.1", "Deny (egress: not a pod; ingress: Deny, because no rule of knp/shop/np matches)"},
	} {
		p := Packet{Src: ip(w.src), Dst: ip(w.dst), Protocol: policy.TCP, DstPort: 80}
		if got := c.Verdict(p).String(); got != w.want {
			t.Errorf("%s: %s: %s\nwant %s", w.name, p, got, w.want)
		}
	}
	if p := c.Pod("ops", "shell"); p == nil || p.Addrs[0] != ip("10.0.0.2") || c.Pod("shop", "shell") != nil {
		t.Errorf("Pod finds %v", p)
	}
}

func TestDecisionsReadLikeSentences(t *testing.T) {
	for want, d := range map[string]Decision{
		"Deny by default":                              {},
		"Allow, because no policy decides":             {Action: policy.Allow},
		"Allow, because the connection is established": {Action: policy.Allow, Cause: ByState, State: Established},
		"Deny, because the connection is invalid":      {Cause: ByState, State: Invalid},
		"Deny, because knp/a is not known":             {Cause: ByMissing, Program: ir.ProgramID{Policy: policy.Key{Name: "a"}}},
		"Deny, because no rule of knp/a matches":       {Cause: ByTierEnd, Trace: []TierTrace{{Programs: []ProgramTrace{{ID: program("a")}}}}},
		"Allow by knp/n/a, egress rule 2":              {Action: policy.Allow, Cause: ByRule, Origin: 2, Rule: 5, Program: ir.ProgramID{Policy: policy.Key{Namespace: "n", Name: "a"}, Direction: policy.Egress}},
	} {
		if got := d.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	p := Packet{Src: ip("10.0.0.1"), Dst: ip("10.0.0.2"), Protocol: policy.ICMP, State: Related}
	if got, want := p.String(), "10.0.0.1 -> 10.0.0.2 ICMP (related)"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
