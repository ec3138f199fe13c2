package iptables

import (
	"testing"

	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// TestCriteriaMeanWhatTheySay allows to b what one rule matches, and asks packets
// that differ in the criterion.
func TestCriteriaMeanWhatTheySay(t *testing.T) {
	const tcp, udp, echo = policy.TCP, policy.UDP, policy.ICMP // echo is of either family
	type probe struct {
		from  string
		proto policy.Protocol
		src   uint16 // added to the port of the connection
		dst   uint16
		want  bool
	}
	port := func(p uint16) []ir.PortRange { return []ir.PortRange{{First: p, Last: p}} }
	cases := []struct {
		name   string
		rule   ir.Rule
		probes []probe
	}{
		{
			"not one protocol",
			ir.Rule{NotProtocols: []policy.Protocol{udp}},
			[]probe{{"a", tcp, 0, 1, true}, {"a", udp, 0, 1, false}, {"a", echo, 0, 1, true}},
		},
		{
			"not two protocols",
			ir.Rule{NotProtocols: []policy.Protocol{udp, tcp}},
			[]probe{{"a", tcp, 0, 1, false}, {"a", udp, 0, 1, false}, {"a", echo, 0, 1, true}},
		},
		{
			"a port of any protocol but one",
			ir.Rule{NotProtocols: []policy.Protocol{udp}, DstPorts: port(7)},
			[]probe{{"a", tcp, 0, 7, true}, {"a", tcp, 0, 8, false}, {"a", udp, 0, 7, false}, {"a", policy.SCTP, 0, 7, true}, {"a", echo, 0, 7, false}},
		},
		{
			"source ports",
			ir.Rule{Protocol: udp, SrcPorts: []ir.PortRange{{First: 30000, Last: 65535}}, DstPorts: port(7)},
			[]probe{{"a", udp, 20000, 7, true}, {"a", udp, 0, 7, false}, {"a", udp, 20000, 8, false}},
		},
		{
			"not in a set of addresses",
			ir.Rule{NotSrcSets: []ir.SetID{"hosts"}},
			[]probe{{"a", tcp, 0, 1, false}, {"outside", tcp, 0, 1, true}},
		},
		{
			"destination not in a set of addresses",
			ir.Rule{NotDstSets: []ir.SetID{"hosts"}},
			[]probe{{"a", tcp, 0, 1, true}},
		},
		{
			"in a set of addresses and ports",
			ir.Rule{DstPortSets: []ir.SetID{"services"}},
			[]probe{{"a", tcp, 0, 7, true}, {"a", tcp, 0, 8, false}, {"a", udp, 0, 7, false}, {"a", echo, 0, 7, false}},
		},
		{
			"not in a set of addresses and ports",
			ir.Rule{NotDstPortSets: []ir.SetID{"services"}},
			[]probe{{"a", tcp, 0, 7, false}, {"a", tcp, 0, 8, true}, {"a", udp, 0, 7, true}, {"a", echo, 0, 7, true}},
		},
		{
			"an ICMP type",
			ir.Rule{Protocol: policy.ICMP, Message: policy.Message{Compare: policy.MessageType, Type: 8}},
			[]probe{{"a", echo, 0, 1, true}, {"a", udp, 0, 1, false}},
		},
		{
			"another ICMP type",
			ir.Rule{Protocol: policy.ICMP, Message: policy.Message{Compare: policy.MessageTypeAndCode, Type: 8, Code: 1}},
			[]probe{{"a", echo, 0, 1, false}},
		},
		{
			"not an ICMP message",
			ir.Rule{Protocol: policy.ICMP, NotMessages: []policy.Message{{Compare: policy.MessageType, Type: 8}}},
			[]probe{{"a", echo, 0, 1, false}},
		},
		{
			"not another ICMP message",
			ir.Rule{Protocol: policy.ICMP, NotMessages: []policy.Message{{Compare: policy.MessageType, Type: 9}}},
			[]probe{{"a", echo, 0, 1, true}, {"a", udp, 0, 1, false}},
		},
		{"a note", ir.Rule{Action: policy.Log}, []probe{{"a", tcp, 0, 1, false}}},
	}
	eachFlavour(t, func(t *testing.T, w *world) {
		var hosts, services []ir.Member
		for _, is6 := range bothFamilies {
			service := one(w.sites["b"].addrs[is6])
			service.Protocol, service.Port = tcp, 7
			hosts, services = append(hosts, one(w.sites["a"].addrs[is6])), append(services, service)
		}
		w.loadSets(sets{"hosts": setOf(ir.Addrs, hosts...), "services": setOf(ir.AddrPorts, services...)})
		for _, c := range cases {
			if c.rule.Action != policy.Log {
				c.rule.Action = policy.Allow
			}
			w.apply(w.policed(c.rule, inIPv6(c.rule)))
			for _, is6 := range bothFamilies {
				for _, p := range c.probes {
					if p.proto == echo && is6 {
						p.proto = policy.ICMPv6
					}
					s := shot{p.from, "b", w.fresh(p.from, "b", is6, p.proto, p.dst)}
					s.src += p.src
					w.expect(p.want, s)
				}
			}
			if t.Failed() {
				t.Fatalf("so it is for %s", c.name)
			}
		}
	})
}

// inIPv6 returns the rule about ICMPv6 that says what r says about ICMP.
func inIPv6(r ir.Rule) ir.Rule {
	if r.Protocol != policy.ICMP {
		return r
	}
	r.Protocol = policy.ICMPv6
	six := func(m *policy.Message) {
		if m.Type == 8 {
			m.Type = echoRequest6
		}
	}
	six(&r.Message)
	r.NotMessages = append([]policy.Message(nil), r.NotMessages...)
	for i := range r.NotMessages {
		six(&r.NotMessages[i])
	}
	return r
}
