package eval_test

import (
	"net/netip"
	"testing"

	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/eval"
	"github.com/koratnet/korat/policy/selector"
)

func TestAClusterAsksTheHostEndpointsOfBothNodes(t *testing.T) {
	hosts := policy.Scope{Pods: selector.Equals("role", "edge"), Things: policy.HostEndpoints}
	closed := func(name string, hook policy.Hook, types policy.Direction, ports ...policy.Port) *policy.Policy {
		p := &policy.Policy{
			Key: policy.Key{Kind: policy.GlobalNetworkPolicy, Name: name}, Tier: policy.DefaultTier, Hook: hook, Subject: hosts, Types: types,
		}
		if len(ports) > 0 {
			p.Ingress = []policy.Rule{{Action: policy.Allow, Ports: ports}}
			p.Egress = p.Ingress
		}
		return p
	}
	web := policy.Port{Protocol: policy.TCP, First: 80, Last: 80}
	for _, c := range []struct {
		name     string
		policies []*policy.Policy
		src, dst string
		port     uint16
		want     policy.Action
	}{
		{"a node without policy is closed", nil, "192.0.2.9", "192.168.0.1", 80, policy.Deny},
		{"but for what keeps it alive", nil, "192.0.2.9", "192.168.0.1", 22, policy.Allow},
		{"and for its pods", nil, "192.0.2.9", "10.0.0.1", 80, policy.Allow},
		{"and what they send", nil, "10.0.0.1", "192.0.2.9", 80, policy.Allow},
		{"its own packets stay", nil, "192.168.0.1", "192.0.2.9", 80, policy.Deny},
		{"pods reach their node", nil, "10.0.0.1", "192.168.0.1", 80, policy.Allow},
		{"a rule opens", []*policy.Policy{closed("web", policy.Normal, policy.Ingress, web)}, "192.0.2.9", "192.168.0.1", 80, policy.Allow},
		{"what is passed on is closed by its own hook", []*policy.Policy{closed("fwd", policy.NormalAndForward, policy.Ingress)}, "192.0.2.9", "10.0.0.1", 80, policy.Deny},
		{"of the other direction", []*policy.Policy{closed("fwd", policy.NormalAndForward, policy.Egress)}, "10.0.0.1", "192.0.2.9", 80, policy.Deny},
		{"between nodes both are asked", []*policy.Policy{closed("fwd", policy.NormalAndForward, policy.Egress)}, "10.0.0.1", "10.0.0.2", 80, policy.Deny},
		{"before translation it is final", []*policy.Policy{closed("pre", policy.PreDNAT, policy.Ingress, web)}, "192.0.2.9", "192.168.0.1", 80, policy.Allow},
	} {
		cluster := eval.Cluster{
			Namespaces: map[string]selector.Labels{"x": nil},
			Nodes:      []eval.Node{{Name: "n1", Addrs: addrs("192.168.0.1")}, {Name: "n2", Addrs: addrs("192.168.0.2")}},
			Pods: []eval.Pod{
				{Namespace: "x", Name: "a", Node: "n1", Addrs: addrs("10.0.0.1")}, {Namespace: "x", Name: "b", Node: "n2", Addrs: addrs("10.0.0.2")},
			},
			HostEndpoints: []policy.HostEndpoint{{
				Name: "edge", Node: "n1", Interface: eval.AnyInterface, Labels: selector.MakeLabels(map[string]string{"role": "edge"}),
			}},
			Rules:    eval.HostRules{FailsafeIn: []eval.Failsafe{{Protocol: policy.TCP, Port: 22}}},
			Policies: c.policies,
		}
		p := eval.Packet{Src: addr(c.src), Dst: addr(c.dst), Protocol: policy.TCP, SrcPort: 40000, DstPort: c.port}
		if got := cluster.Verdict(p); got.Action != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		if got := cluster.Asker().Verdict(p); got.Action != c.want {
			t.Errorf("%s: the asker says %s, want %s", c.name, got, c.want)
		}
	}
}

func addrs(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range list {
		out = append(out, addr(s))
	}
	return out
}
