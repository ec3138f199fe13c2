package flow

import (
	"fmt"
	"log/slog"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/flow/wire"
	"github.com/koratnet/korat/felix/kernel/nflog"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

var (
	web   = netip.MustParseAddr("10.0.0.1")
	db    = netip.MustParseAddr("10.0.0.2")
	other = netip.MustParseAddr("10.9.9.9")
)

func key4(kind policy.Kind, namespace, name string) policy.Key {
	return policy.Key{Kind: kind, Namespace: namespace, Name: name}
}

var (
	allow = key4(policy.KubernetesNetworkPolicy, "shop", "db-allow")
	block = key4(policy.GlobalNetworkPolicy, "", "block")
)

func chainOf(d policy.Direction, tier string, keys ...policy.Key) ir.Chain {
	t := ir.Tier{Name: tier, End: policy.Deny}
	for _, k := range keys {
		t.Programs = append(t.Programs, ir.ProgramID{Policy: k, Direction: d})
	}
	return ir.Chain{Tiers: []ir.Tier{t}, Default: policy.Deny}
}

// world has two pods and the node's uplink, whose policies deny everything.
func world() desired.Delta {
	open := ir.Chain{Default: policy.Allow}
	programs := map[ir.ProgramID]*ir.Program{}
	for _, k := range []policy.Key{allow, block} {
		for _, d := range policy.Directions {
			id := ir.ProgramID{Policy: k, Direction: d}
			programs[id] = &ir.Program{ID: id, Rules: []ir.Rule{{Origin: 3}}}
		}
	}
	return desired.Delta{
		Programs: programs,
		Endpoints: map[string]*desired.Endpoint{
			"korweb": {Interface: "korweb", Pod: "shop/web", Addrs: []netip.Addr{web}, Ingress: open, Egress: chainOf(policy.Egress, "default", block)},
			"kordb":  {Interface: "kordb", Pod: "shop/db", Addrs: []netip.Addr{db}, Ingress: chainOf(policy.Ingress, "default", allow), Egress: open},
		},
		HostEndpoints: map[string]*desired.HostEndpoint{
			"eth0": {Name: "uplink", Interface: "eth0", Forward: desired.Chains{
				Ingress: chainOf(policy.Ingress, "host", block), Egress: chainOf(policy.Egress, "host", block),
			}},
		},
	}
}

func recorder(t *testing.T) (*Recorder, *prometheus.Registry) {
	t.Helper()
	reg := prometheus.NewRegistry()
	r := New(Config{Node: "a1", Registry: reg, Log: slog.New(slog.DiscardHandler)})
	r.Want(world())
	return r, reg
}

// ifaces are the interfaces of the tests' node, by number.
func ifaces(index int) string { return []string{"", "korweb", "kordb", "eth0"}[index] }

func packet(reason desired.Reason, in, out int) nflog.Packet {
	return nflog.Packet{Prefix: reason.Tag(), In: in, Out: out, Src: web, Dst: db, Protocol: policy.TCP, SrcPort: 40000, DstPort: 5432}
}

func rule(n int) *int { return &n }

func TestReasonsGetTheirWordsBack(t *testing.T) {
	for name, c := range map[string]struct {
		reason  desired.Reason
		in, out int
		want    wire.Reason
	}{
		"a rule of the source's policy": {
			desired.Reason{Cause: desired.ByRule, Direction: policy.Egress, Policy: block, Rule: 3},
			1, 2,
			wire.Reason{Cause: "rule", Direction: "egress", Endpoint: "shop/web", Policy: "gnp/block", Rule: rule(3)},
		},
		"the end of a tier of the destination": {
			desired.Reason{Cause: desired.EndOfTier, Direction: policy.Ingress, Tier: "default"},
			1, 2,
			wire.Reason{Cause: "tier", Direction: "ingress", Endpoint: "shop/db", Tier: "default", Policies: []string{"knp/shop/db-allow"}},
		},
		"a tier of the uplink, asked about a pod's packet": {
			desired.Reason{Cause: desired.EndOfTier, Direction: policy.Egress, Tier: "host"},
			1, 3,
			wire.Reason{Cause: "tier", Direction: "egress", Endpoint: "eth0", Tier: "host", Policies: []string{"gnp/block"}},
		},
		"a packet for the node": {
			desired.Reason{Cause: desired.ByRule, Direction: policy.Ingress, Policy: block, Rule: 3},
			3, 0,
			wire.Reason{Cause: "rule", Direction: "ingress", Endpoint: "eth0", Policy: "gnp/block", Rule: rule(3)},
		},
		"a forged source": {
			desired.Reason{Cause: desired.Forged, Direction: policy.Egress},
			1, 0,
			wire.Reason{Cause: "forged", Direction: "egress", Endpoint: "shop/web"},
		},
		"a loop": {
			desired.Reason{Cause: desired.Loop},
			3, 3,
			wire.Reason{Cause: "loop", Endpoint: "eth0"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			r, _ := recorder(t)
			r.note([]nflog.Packet{packet(c.reason, c.in, c.out)}, 0, ifaces)
			drops, _, _ := r.news(0)
			if len(drops) != 1 {
				t.Fatalf("%d drops", len(drops))
			}
			if diff := cmp.Diff(c.want, drops[0].Reason); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestATagThatNobodyKnowsIsTold(t *testing.T) {
	r, _ := recorder(t)
	for _, prefix := range []string{"", ":", "korat:rule:i:0123456789abcdef:1", "korat:rule:i:", "somebody else's"} {
		p := packet(desired.Reason{}, 1, 2)
		p.Prefix = prefix
		r.note([]nflog.Packet{p}, 0, ifaces)
	}
	drops, _, _ := r.news(0)
	for _, d := range drops {
		if diff := cmp.Diff(wire.Reason{Cause: "other", Endpoint: "shop/web"}, d.Reason); diff != "" {
			t.Error(diff)
		}
	}
	if len(drops) != 5 {
		t.Errorf("%d drops", len(drops))
	}
}

func TestWhatIsAlikeIsCountedTogether(t *testing.T) {
	r, reg := recorder(t)
	tier := desired.Reason{Cause: desired.EndOfTier, Direction: policy.Ingress, Tier: "default"}
	for i := range 5 {
		p := packet(tier, 1, 2)
		p.SrcPort += uint16(i)
		r.note([]nflog.Packet{p}, 2, ifaces)
	}
	p := packet(tier, 1, 2)
	p.DstPort++
	r.note([]nflog.Packet{p}, 0, ifaces)
	drops, summary, _ := r.news(0)
	if len(drops) != 2 || drops[0].Count != 5 || drops[0].SrcPort != 40004 || drops[1].Count != 1 {
		t.Errorf("drops are %+v", drops)
	}
	if d := drops[0]; d.SrcPod != "shop/web" || d.DstPod != "shop/db" || d.In != "korweb" || d.Out != "kordb" || d.Node != "a1" || d.Protocol != "TCP" || d.Last.Before(d.First) {
		t.Errorf("drop is %+v", d)
	}
	if summary.Looked != 6 || summary.Missed != 10 {
		t.Errorf("summary is %+v", summary)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if n := len(f.GetMetric()); n != 1 {
			t.Errorf("%s has %d series: ports and names must not be labels", f.GetName(), n)
		}
	}
}

func TestWordsFollowThePolicies(t *testing.T) {
	r, _ := recorder(t)
	tier := desired.Reason{Cause: desired.EndOfTier, Direction: policy.Ingress, Tier: "default"}
	r.note([]nflog.Packet{packet(tier, 1, 2)}, 0, ifaces)
	now := *world().Endpoints["kordb"]
	now.Ingress = chainOf(policy.Ingress, "default", allow, block)
	r.Want(desired.Delta{Endpoints: map[string]*desired.Endpoint{"kordb": &now}})
	r.note([]nflog.Packet{packet(tier, 1, 2)}, 0, ifaces)
	drops, _, _ := r.news(0)
	if len(drops) != 1 || drops[0].Count != 2 || len(drops[0].Reason.Policies) != 2 || drops[0].First.After(drops[0].Last) {
		t.Errorf("drops are %+v", drops)
	}
}

func TestTheLastDropsAreRememberedAndNoMore(t *testing.T) {
	r, _ := recorder(t)
	tag := desired.Reason{Cause: desired.Invalid, Direction: policy.Egress}
	send := func(port int) {
		p := packet(tag, 1, 2)
		p.DstPort = uint16(port)
		r.note([]nflog.Packet{p}, 0, ifaces)
	}
	for port := range maxDrops {
		send(port)
	}
	send(0) // 1 is the oldest now
	_, _, version := r.news(0)
	send(maxDrops)
	drops, summary, _ := r.news(0)
	if len(drops) != maxDrops || summary.Evicted != 1 || len(r.ring.byKey) != maxDrops {
		t.Errorf("%d drops, %d evicted, %d keys", len(drops), summary.Evicted, len(r.ring.byKey))
	}
	if drops[0].DstPort != 2 || drops[len(drops)-2].DstPort != 0 || drops[len(drops)-1].DstPort != maxDrops {
		t.Errorf("order is %d … %d %d", drops[0].DstPort, drops[len(drops)-2].DstPort, drops[len(drops)-1].DstPort)
	}
	if news, _, _ := r.news(version); len(news) != 1 || news[0].DstPort != maxDrops {
		t.Errorf("news are %+v", news)
	}
}

func TestNamesOutliveTheirPolicyForAWhile(t *testing.T) {
	x := newIndex()
	program := func(n int) (ir.ProgramID, string) {
		id := ir.ProgramID{Policy: key4(policy.NetworkPolicy, "shop", fmt.Sprint("p", n)), Direction: policy.Ingress}
		return id, desired.Reason{Cause: desired.ByRule, Direction: policy.Ingress, Policy: id.Policy, Rule: 1}.Tag()
	}
	change := func(n int, p *ir.Program) {
		id, _ := program(n)
		x.want(desired.Delta{Programs: map[ir.ProgramID]*ir.Program{id: p}})
	}
	known := func(n int) bool {
		_, tag := program(n)
		_, ok := x.reason(tag)
		return ok
	}
	change(1, &ir.Program{})
	change(1, nil)
	change(2, &ir.Program{})
	change(2, nil)
	change(2, &ir.Program{})
	if !known(1) || !known(2) {
		t.Error("a policy that just went has no name")
	}
	for n := range maxGone {
		change(n+10, &ir.Program{})
		change(n+10, nil)
	}
	if known(1) || !known(2) || !known(10) || len(x.programs) != maxGone+1 {
		t.Errorf("after many came and went: 1 %t, 2 %t, 10 %t, %d known", known(1), known(2), known(10), len(x.programs))
	}
}

func TestAnAddressThatMovesBelongsToItsNewPod(t *testing.T) {
	x := newIndex()
	x.want(world())
	x.want(desired.Delta{Endpoints: map[string]*desired.Endpoint{
		"korweb": nil,
		"kornew": {Interface: "kornew", Pod: "shop/new", Addrs: []netip.Addr{web}},
	}})
	if x.pods[web] != "shop/new" || x.pods[db] != "shop/db" {
		t.Errorf("pods are %v", x.pods)
	}
	x.want(desired.Delta{Endpoints: map[string]*desired.Endpoint{"kornew": nil, "kordb": nil}})
	if len(x.pods) != 0 {
		t.Errorf("pods are %v", x.pods)
	}
}

func TestFilter(t *testing.T) {
	r, _ := recorder(t)
	tag := desired.Reason{Cause: desired.Invalid, Direction: policy.Egress}
	foreign := packet(tag, 3, 2)
	foreign.Src = other
	forged := packet(desired.Reason{Cause: desired.Forged, Direction: policy.Egress}, 1, 0)
	forged.Src = other
	forged.Dst = other
	r.note([]nflog.Packet{foreign, forged}, 0, ifaces)
	drops, _, _ := r.news(0)
	for name, c := range map[string]struct {
		filter map[string][]string
		want   int
	}{
		"all":           {nil, 2},
		"a pod":         {map[string][]string{"pod": {"shop/db"}}, 1},
		"who denied":    {map[string][]string{"pod": {"shop/web"}}, 1},
		"an address":    {map[string][]string{"addr": {"10.9.9.9"}}, 2},
		"one of two":    {map[string][]string{"addr": {"10.0.0.2"}, "pod": {"shop/nobody"}}, 1},
		"nobody at all": {map[string][]string{"pod": {"shop/nobody"}}, 0},
	} {
		f, err := filterOf(c.filter)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, d := range drops {
			if f.wants(d) {
				n++
			}
		}
		if n != c.want {
			t.Errorf("%s: %d drops, want %d", name, n, c.want)
		}
	}
	if _, err := filterOf(map[string][]string{"addr": {"nonsense"}}); err == nil {
		t.Error("nonsense is an address")
	}
}
