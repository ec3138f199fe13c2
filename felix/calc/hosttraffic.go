package calc

import (
	"net/netip"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy"
)

// hostRules are those that lead what this node itself sends to other nodes to the table
// of those that take it encrypted: with the node's address, which is all that they take
// as its own, or with none yet. What is passed on goes where it went.
//
//	11211  what carries packets, and tells whether the wire works: go on at 11215
//	11212  from the node's address: desired.HostTable
//	11213  of IPv6, from any other address: go on at 11215
//	11214  from no address yet: desired.HostTable
//	11215
func (t *tunnels) hostRules(in *inputs) map[desired.Rule]struct{} {
	rules := map[desired.Rule]struct{}{}
	for f, self := range t.self {
		kind, _ := desired.TunnelOf(desired.WireGuard, f == 1)
		if !t.encryption.ways.hosts || !t.uses(kind) {
			continue
		}
		every := netip.PrefixFrom(unbound[f].Addr(), 0)
		add := func(r desired.Rule) {
			r.Local = true
			rules[r] = struct{}{}
		}
		for _, r := range t.apart(kind, in) {
			r.Priority, r.From, r.Goto = desired.ApartRule, every, desired.PastHostRule
			add(r)
		}
		add(desired.Rule{Priority: desired.HostRule, From: single(self), Table: desired.HostTable})
		if kind.Is6() {
			// No prefix matches what has no source yet, and none at all matches everything.
			// So what has one is led on before, by the two halves of all.
			for _, half := range halves6 {
				add(desired.Rule{Priority: desired.BoundRule, From: half, Goto: desired.PastHostRule})
			}
		}
		add(desired.Rule{Priority: desired.UnboundRule, From: unbound[f], Table: desired.HostTable})
		add(desired.Rule{Priority: desired.PastHostRule, From: every})
	}
	return rules
}

// unbound is the source, of each family, in the rule for what has none.
var unbound = [2]netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 32), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}

var halves6 = []netip.Prefix{netip.MustParsePrefix("::/1"), netip.MustParsePrefix("8000::/1")}

// apart is what this node sends outside of all tunnels in the family of kind: what they
// are made of, BGP, BFD, and what the agent tries.
func (t *tunnels) apart(kind desired.TunnelKind, in *inputs) []desired.Rule {
	odd, speaker := kind+(desired.WireGuard4Odd-desired.WireGuard4), uint16(bgpPort)
	if cluster := in.bgp.now["default"]; cluster != nil && cluster.ListenPort != 0 {
		speaker = cluster.ListenPort
	}
	rules := []desired.Rule{
		{Mark: desired.ApartMark},
		{Protocol: policy.UDP, SourcePort: t.encryption.ways.port[kind]},
		{Protocol: policy.UDP, SourcePort: t.encryption.ways.port[odd]},
		{Protocol: policy.UDP, DestinationPort: desired.VXLANPort},
		{Protocol: policy.TCP, SourcePort: speaker},
		{Protocol: policy.TCP, DestinationPort: speaker},
	}
	for _, port := range bfdPorts {
		rules = append(rules, desired.Rule{Protocol: policy.UDP, DestinationPort: port})
	}
	if !kind.Is6() {
		rules = append(rules, desired.Rule{Protocol: ipInIP})
	}
	return rules
}

// ipInIP is the protocol of IP in IP (RFC 2003).
const ipInIP policy.Protocol = 4

// The ports of BGP (RFC 4271), where no other is configured, and of BFD (RFC 5881, RFC
// 5883).
const bgpPort = 179

var bfdPorts = []uint16{3784, 3785, 4784}
