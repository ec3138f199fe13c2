package compile

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
	"github.com/koratnet/korat/policy/selector"
)

// TestCompileWholeLanguage compiles rules that Kubernetes' NetworkPolicy cannot say.
func TestCompileWholeLanguage(t *testing.T) {
	db := policy.Scope{Namespace: "shop", Pods: selector.Equals("app", "db")} // the subject
	web := policy.Scope{Namespace: "shop", Pods: selector.Equals("app", "web")}
	http := policy.PortName{Protocol: policy.TCP, Name: "http"}
	set := func(s policy.Set) []ir.SetID { return []ir.SetID{name(s)} }
	named := []policy.Port{{Protocol: policy.TCP, Name: "http"}}
	api := policy.ServiceName{Namespace: "shop", Name: "api"}
	echo := policy.Message{Compare: policy.MessageType, Type: 8}
	tcp := func(first, last uint16) policy.Port {
		return policy.Port{Protocol: policy.TCP, First: first, Last: last}
	}
	for _, c := range []struct {
		name      string
		rule      policy.Rule
		direction policy.Direction
		want      []ir.Rule
	}{
		{
			"37: names of ports are those of the subject on ingress",
			policy.Rule{Ports: append(named, tcp(80, 80)), Peers: []policy.Peer{{Scope: &web}}},
			policy.Ingress,
			[]ir.Rule{
				{Protocol: policy.TCP, SrcSets: set(policy.Set{Scope: web}), DstPorts: []ir.PortRange{{First: 80, Last: 80}}},
				{Protocol: policy.TCP, SrcSets: set(policy.Set{Scope: web}), DstPortSets: set(policy.Set{Scope: db, Port: http})},
			},
		},
		{
			"37: names of ports are those of the peers on egress",
			policy.Rule{Ports: named, Peers: []policy.Peer{{Scope: &web}, {Nets: nets("10.0.0.0/8")}}},
			policy.Egress,
			[]ir.Rule{{Protocol: policy.TCP, DstPortSets: set(policy.Set{Scope: web, Port: http})}},
		},
		{
			"37: names of ports are those of any pod where egress has no peers",
			policy.Rule{Ports: named},
			policy.Egress,
			[]ir.Rule{{Protocol: policy.TCP, DstPortSets: set(policy.Set{Port: http})}},
		},
		{
			"all ports of the protocol swallow its names",
			policy.Rule{Ports: append(named, policy.Port{Protocol: policy.TCP})},
			policy.Egress,
			[]ir.Rule{{Protocol: policy.TCP}},
		},
		{
			"excluded ports leave ranges",
			policy.Rule{Ports: []policy.Port{{Protocol: policy.TCP}}, NotPorts: []policy.Port{tcp(80, 90), tcp(443, 443)}},
			policy.Ingress,
			[]ir.Rule{{Protocol: policy.TCP, DstPorts: []ir.PortRange{{First: 0, Last: 79}, {First: 91, Last: 442}, {First: 444, Last: 65535}}}},
		},
		{
			"excluded ports may leave nothing",
			policy.Rule{Ports: []policy.Port{tcp(80, 90)}, NotPorts: []policy.Port{tcp(1, 85), tcp(85, 65535)}},
			policy.Ingress, nil,
		},
		{
			"excluded names are no members",
			policy.Rule{Ports: []policy.Port{{Protocol: policy.TCP}}, NotPorts: named},
			policy.Ingress,
			[]ir.Rule{{Protocol: policy.TCP, NotDstPortSets: set(policy.Set{Scope: db, Port: http})}},
		},
		{
			"an excluded protocol",
			policy.Rule{NotPorts: []policy.Port{{Protocol: policy.UDP}, {Protocol: policy.TCP}}},
			policy.Ingress,
			[]ir.Rule{{NotProtocols: []policy.Protocol{policy.TCP, policy.UDP}}},
		},
		{
			"an excluded port of any traffic",
			policy.Rule{NotPorts: []policy.Port{tcp(80, 65535)}},
			policy.Ingress,
			[]ir.Rule{
				{Protocol: policy.TCP, DstPorts: []ir.PortRange{{First: 0, Last: 79}}},
				{NotProtocols: []policy.Protocol{policy.TCP}},
			},
		},
		{"everything excluded", policy.Rule{NotPorts: []policy.Port{{}}}, policy.Ingress, nil},
		{
			"messages",
			policy.Rule{Ports: []policy.Port{{Protocol: policy.ICMP, Message: echo}, {Protocol: policy.TCP, Message: echo}}},
			policy.Ingress,
			[]ir.Rule{{Protocol: policy.ICMP, Message: echo}},
		},
		{
			"excluded messages",
			policy.Rule{Ports: []policy.Port{{Protocol: policy.ICMP}}, NotPorts: []policy.Port{{Protocol: policy.ICMP, Message: echo}}},
			policy.Ingress,
			[]ir.Rule{{Protocol: policy.ICMP, NotMessages: []policy.Message{echo}}},
		},
		{
			"source ports go with their protocol",
			policy.Rule{Ports: []policy.Port{tcp(80, 80), {Protocol: policy.UDP}}, SrcPorts: []policy.Port{tcp(1, 1023)}},
			policy.Ingress,
			[]ir.Rule{{Protocol: policy.TCP, SrcPorts: []ir.PortRange{{First: 1, Last: 1023}}, DstPorts: []ir.PortRange{{First: 80, Last: 80}}}},
		},
		{
			"56: a service has ports as a destination",
			policy.Rule{Peers: []policy.Peer{{Service: api}}},
			policy.Egress,
			[]ir.Rule{{DstPortSets: set(policy.Set{Service: api})}},
		},
		{
			"56: and none as a source",
			policy.Rule{Peers: []policy.Peer{{Service: api}}},
			policy.Ingress,
			[]ir.Rule{{SrcSets: set(policy.Set{Service: api, Portless: true})}},
		},
		{
			"both ends and what they must not be",
			policy.Rule{
				IPVersion: 4,
				Peers:     []policy.Peer{{Scope: &web, NotScope: &db, Nets: nets("10.0.0.0/8", "fd00::/8"), Except: nets("10.1.0.0/16", "fd00:1::/32")}},
				Own:       []policy.Peer{{Except: nets("10.9.0.0/16")}, {Nets: nets("fd00::/8")}},
			},
			policy.Egress,
			[]ir.Rule{{
				Family: ir.IPv4, DstSets: set(policy.Set{Scope: web}), NotDstSets: set(policy.Set{Scope: db}),
				DstNets: nets("10.0.0.0/8"), NotDstNets: nets("10.1.0.0/16"), NotSrcNets: nets("10.9.0.0/16"),
			}},
		},
		{"families that do not meet", policy.Rule{Peers: []policy.Peer{{Nets: nets("::/0")}}, Own: []policy.Peer{{Nets: nets("10.0.0.0/8")}}}, policy.Ingress, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := &policy.Policy{Key: policy.Key{Name: "p"}, Types: c.direction, Subject: db}
			p.Ingress, p.Egress = []policy.Rule{c.rule}, []policy.Rule{c.rule}
			got := Compile(p, c.direction, name)
			if diff := cmp.Diff(c.want, got.Rules, comparable); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			checkSets(t, p, c.direction, got)
		})
	}
}

func TestSetKinds(t *testing.T) {
	for _, c := range []struct {
		set  policy.Set
		want ir.SetKind
	}{
		{policy.Set{}, ir.Addrs},
		{policy.Set{Scope: policy.Scope{Things: policy.Nodes | policy.HostEndpoints}}, ir.Addrs},
		{policy.Set{Scope: policy.Scope{Things: policy.Pods | policy.GlobalNetworkSets}}, ir.Nets},
		{policy.Set{Port: policy.PortName{Name: "http"}, Scope: policy.Scope{Things: policy.Pods | policy.NetworkSets}}, ir.AddrPorts},
		{policy.Set{Service: policy.ServiceName{Name: "a"}}, ir.AddrPorts},
		{policy.Set{Service: policy.ServiceName{Name: "a"}, Portless: true}, ir.Addrs},
	} {
		if got := SetKindOf(c.set); got != c.want {
			t.Errorf("%s: %d, want %d", c.set, got, c.want)
		}
	}
}

func TestItem48TiersOfStagedPoliciesAreAbsent(t *testing.T) {
	staged := &policy.Policy{Key: policy.Key{Name: "s"}, Tier: policy.AdminTier, Types: policy.Ingress, Enforcement: policy.Staged}
	other := &policy.Policy{Key: policy.Key{Name: "e"}, Tier: policy.AdminTier, Types: policy.Egress}
	host := &policy.Policy{Key: policy.Key{Name: "h"}, Tier: policy.DefaultTier, Types: policy.Ingress, Hook: policy.PreDNAT}
	active := []*policy.Policy{staged, other, host}
	id := ir.ProgramID{Policy: staged.Key, Direction: policy.Ingress}
	want := ir.Chain{
		Default: policy.Allow,
		Pending: []ir.Tier{{Name: policy.AdminTier, Programs: []ir.ProgramID{id}, End: policy.Pass}},
	}
	if diff := cmp.Diff(want, Chain(active, policy.Ingress, nil)); diff != "" {
		t.Errorf("ingress (-want +got):\n%s", diff)
	}
	if got := Chain(active, policy.Egress, nil); len(got.Tiers) != 1 || got.Pending != nil {
		t.Errorf("egress: %v", got)
	}
}
