package matrix

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/eval"
	"github.com/koratnet/korat/policy/selector"
)

func ends(names ...string) []End {
	var out []End
	for i, n := range names {
		out = append(out, End{Name: n, Addr: netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)})})
	}
	return out
}

func TestBlameNamesTheFirstPairsAndCountsAll(t *testing.T) {
	results := map[Pair]error{}
	for _, p := range Pairs(ends("a", "b", "c")) {
		results[p] = nil
	}
	judge := func(_ Pair, err error) error { return err }
	if err := blame(results, judge); err != nil {
		t.Error(err)
	}
	for p := range results {
		results[p] = errors.New("closed")
	}
	err := blame(results, judge)
	if err == nil || !strings.HasPrefix(err.Error(), "6 of 6 pairs: a -> b: closed; a -> c: closed; b -> a: closed; b -> c: closed") || strings.Contains(err.Error(), "c -> a") {
		t.Errorf("error is %v", err)
	}
}

func TestOpenAsksTheEvaluatorForBothEnds(t *testing.T) {
	e := ends("ns/a", "ns/b", "outside")
	world := &eval.Cluster{
		Namespaces: map[string]selector.Labels{"ns": nil},
		Pods: []eval.Pod{
			{Namespace: "ns", Name: "a", Addrs: []netip.Addr{e[0].Addr}},
			{Namespace: "ns", Name: "b", Addrs: []netip.Addr{e[1].Addr}, Labels: selector.MakeLabels(map[string]string{"app": "b"})},
		},
		Policies: []*policy.Policy{{
			Key:     policy.Key{Kind: policy.KubernetesNetworkPolicy, Namespace: "ns", Name: "only-tcp-80"},
			Tier:    policy.DefaultTier,
			Subject: policy.Scope{Namespace: "ns", Pods: selector.Equals("app", "b")},
			Types:   policy.Ingress,
			Ingress: []policy.Rule{{Action: policy.Allow, Ports: []policy.Port{{Protocol: policy.TCP, First: 80, Last: 80}}}},
		}},
	}
	for _, c := range []struct {
		probe Probe
		pair  Pair
		want  bool
	}{
		{Probe{Protocol: "tcp", Port: 80}, Pair{e[0], e[1]}, true},
		{Probe{Protocol: "tcp", Port: 81}, Pair{e[0], e[1]}, false},
		{Probe{Protocol: "udp", Port: 80}, Pair{e[2], e[1]}, false},
		{Probe{Protocol: "icmp"}, Pair{e[2], e[1]}, false},
		{Probe{Protocol: "icmp"}, Pair{e[1], e[0]}, true},
	} {
		if got := c.probe.Open(world, c.pair); got != c.want {
			t.Errorf("%s %s: open is %v", c.probe, c.pair, got)
		}
	}
}
