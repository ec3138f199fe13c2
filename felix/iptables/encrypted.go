package iptables

import (
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// clearChain is where packets go of pools that never travel in clear, in raw those
// that come and in mangle those that leave.
const clearChain = "KORAT-CLEAR"

// clearIn returns what drops packets that claim to come from such a pool, or from any
// or a node to one, and come in clear: out of no tunnel that encrypts, and from no pod
// or program here.
func (s style) clearIn() (rules []rule, chains []chain) {
	return s.clear("src", "dst", "-i", policy.Ingress, "lo")
}

// clearOut returns what drops packets that would leave in clear for such a pool, or
// from one for any pool or a node. Routes to pods lead none of them out: this holds
// where a route of somebody else does, and where the way to a node is not encrypted.
func (s style) clearOut() (rules []rule, chains []chain) {
	return s.clear("dst", "src", "-o", policy.Egress)
}

// inClear matches what does not leave by a tunnel of the node that encrypts, "" where it
// has none. The names of two begin with that of the first.
func (s style) inClear() string {
	for _, d := range s.tunnelEnds {
		if d.Kind.Encapsulation() == desired.WireGuard {
			first, _ := desired.TunnelOf(desired.WireGuard, d.Kind.Is6())
			return "! -o " + first.Device() + "+"
		}
	}
	return ""
}

// clear denies packets that have such a pool at the far end, of this node's view, or
// any or a node there and such a pool at the near one: of all interfaces but those of
// pods, of tunnels that encrypt, and others.
func (s style) clear(far, near, flag string, d policy.Direction, others ...string) (rules []rule, chains []chain) {
	if !s.closed {
		return nil, nil
	}
	passes := specs(flag + " " + anyPod + " -j RETURN")
	for _, kind := range desired.TunnelKinds {
		if kind.Encapsulation() == desired.WireGuard && kind.Is6() == (s.family == ir.IPv6) {
			others = append(others, kind.Device())
		}
	}
	for _, name := range others {
		passes = append(passes, specs(flag+" "+name+" -j RETURN")...)
	}
	rules = specs(
		s.member(desired.EncryptedSet, far)+" -j "+clearChain,
		s.member(desired.EncryptedSet, near)+" "+s.member(desired.InsideSet, far)+" -j "+clearChain,
		s.member(desired.EncryptedSet, near)+" "+s.member(desired.NodesSet, far)+" -j "+clearChain)
	return rules, []chain{newChain(clearChain, append(passes, s.deny(desired.Reason{Cause: desired.Clear, Direction: d}).when("")))}
}
