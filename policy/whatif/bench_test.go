package whatif

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/eval"
	"github.com/koratnet/korat/policy/selector"
)

// BenchmarkCompare closes one of 100 applications in a cluster of 2,000 pods and
// 100 policies.
func BenchmarkCompare(b *testing.B) {
	before, after := many(100, 20), many(100, 20)
	after.Policies[7].Ingress = nil
	for b.Loop() {
		if changes := Compare(before, after); len(changes) == 0 {
			b.Fatal("nothing changes")
		}
	}
}

func many(apps, replicas int) *eval.Cluster {
	c := &eval.Cluster{Namespaces: map[string]selector.Labels{"shop": nil}}
	addr := netip.MustParseAddr("10.0.0.0")
	for a := range apps {
		app := fmt.Sprint("app-", a)
		for r := range replicas {
			addr = addr.Next()
			c.Pods = append(c.Pods, eval.Pod{Namespace: "shop", Name: fmt.Sprint(app, "-", r), Node: "n", Addrs: []netip.Addr{addr}, Labels: labels("role", app)})
		}
		next := policy.Scope{Namespace: "shop", Pods: selector.Equals("role", fmt.Sprint("app-", a+1))}
		p := ingress(app, policy.Rule{
			Action: policy.Allow, Peers: []policy.Peer{{Scope: &next}},
			Ports: []policy.Port{{Protocol: policy.TCP, First: uint16(8000 + a%10), Last: uint16(8000 + a%10)}},
		})
		p.Key.Name = app
		c.Policies = append(c.Policies, p)
	}
	return c
}
