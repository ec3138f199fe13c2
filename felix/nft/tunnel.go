package nft

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/nftables"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// The base chains of tunnels. They are there only where the node has one.
const (
	tunnelIn  = "tunnel-prerouting"  // before all that asks of sources and connections
	tunnelOut = "tunnel-output"      // the same for packets that leave
	tunnelNAT = "tunnel-postrouting" // for what the node itself sends through tunnels
)

// prioTunnel stands before prioRaw: whose packets they are that a tunnel carries is
// asked of what is around them first.
const prioTunnel = prioRaw - 5

// tunnels are this node's ends of tunnels.
type tunnels map[desired.TunnelKind]desired.TunnelDevice

// want takes in what changed and reports whether something did.
func (t tunnels) want(changes map[desired.TunnelKind]*desired.TunnelDevice) bool {
	for kind, d := range changes {
		if delete(t, kind); d != nil {
			t[kind] = *d
		}
	}
	return len(changes) > 0
}

func (t tunnels) sorted() []desired.TunnelDevice {
	return slices.SortedFunc(maps.Values(t), func(a, b desired.TunnelDevice) int { return cmp.Compare(a.Kind, b.Kind) })
}

// of returns the ends whose packets are of a family.
func (t tunnels) of(f ir.Family) []desired.TunnelDevice {
	return slices.DeleteFunc(t.sorted(), func(d desired.TunnelDevice) bool { return family(d.Kind) != f })
}

func family(kind desired.TunnelKind) ir.Family {
	if kind.Is6() {
		return ir.IPv6
	}
	return ir.IPv4
}

// carriesIn matches what carries packets of a tunnel to this node.
func carriesIn(d desired.TunnelDevice) word { return around(d, destination) }

// carriesFromNodes is carriesIn of what has the source of a node.
func carriesFromNodes(d desired.TunnelDevice) word {
	return slices.Concat(carriesIn(d), fromNodes(family(d.Kind)))
}

// carriesHere is carriesFromNodes where packets to others are under way too.
func carriesHere(d desired.TunnelDevice) word {
	return slices.Concat(carriesIn(d), toHere(), fromNodes(family(d.Kind)))
}

// carriesOut matches what carries packets of a tunnel from this node to others.
func carriesOut(d desired.TunnelDevice) word {
	port := destination
	if d.SendsFromPort() {
		port = source
	}
	return slices.Concat(around(d, port), toNodes(family(d.Kind)))
}

// around matches what carries packets of a tunnel and has its port on one side.
func around(d desired.TunnelDevice, port side) word {
	number, udp := d.UDPPort()
	if !udp {
		return append(ofFamily(family(d.Kind)), ofProtocol(ipInIP)...)
	}
	return slices.Concat(ofProtocol(policy.UDP), port.at(number), ofFamily(family(d.Kind)))
}

// fromNodes matches packets with the source of a node.
func fromNodes(f ir.Family) word {
	return source.inSet(f, desired.SetName(desired.NodesSet, f), false)
}

func toNodes(f ir.Family) word {
	return destination.inSet(f, desired.SetName(desired.NodesSet, f), false)
}

// toHere and fromHere match packets with an address of this node.
func toHere() word   { return hasLocal(&expr.Fib{FlagDADDR: true}) }
func fromHere() word { return hasLocal(&expr.Fib{FlagSADDR: true}) }

func hasLocal(of *expr.Fib) word {
	of.Register, of.ResultADDRTYPE = reg, true
	return word{of, is(number(unix.RTN_LOCAL)...)}
}

// chains returns the base chains: nobody but nodes puts packets into a tunnel, no
// connection is tracked of what carries them, and the node is seen inside under its
// address inside, whatever address its programs use: answers come back through the
// tunnel then. That is named, as masquerading ends connections that move to another
// interface, and keys take turns.
func (t tunnels) chains(s style) []nftables.Chain {
	stranger := s.deny(desired.Reason{Cause: desired.Tunnel, Direction: policy.Ingress})
	var in, leave, nat []nftables.Rule
	for _, d := range t.sorted() {
		f, is := family(d.Kind), carriesIn(d)
		in = append(in, rule(carriesHere(d), word{&expr.Notrack{}}, accept))
		for _, p := range s.sources {
			if f.Is(p.Addr()) {
				in = append(in, rule(is, toHere(), source.within(p, expr.CmpOpEq), word{&expr.Notrack{}}, accept))
			}
		}
		in = append(in, rule(is, toHere(), stranger))
		leave = append(leave, rule(carriesOut(d), word{&expr.Notrack{}}))
		if d.Addr.IsValid() {
			nat = append(nat, rule(out(d.Kind.Device()), not(d.Addr), fromHere(), translate(f, d.Addr, ir.PortRange{})))
		}
	}
	return []nftables.Chain{
		filterChain(tunnelIn, nftables.Prerouting, prioTunnel, in),
		filterChain(tunnelOut, nftables.Output, prioTunnel, leave),
		baseChain(tunnelNAT, nftables.NAT, nftables.Postrouting, prioSourceNAT, nat),
	}
}

// not matches packets of another source.
func not(a netip.Addr) word {
	f := familyOf(a)
	return word{source.loadAddr(f, addrSize(f), reg), isNot(a.AsSlice()...)}
}

// carriers let through what carries packets of tunnels between nodes, carriesFromNodes,
// carriesHere or carriesOut, before host endpoints are asked: the node would be cut off from
// the pods of others.
func (t tunnels) carriers(carry func(desired.TunnelDevice) word) (rules []nftables.Rule) {
	for _, d := range t.sorted() {
		rules = append(rules, rule(carry(d), accept))
	}
	return rules
}

// writeTunnels writes the chains of tunnels, or takes them away.
func (f *Firewall) writeTunnels() {
	if len(f.style.ends) > 0 {
		f.sets.need(desired.NodesSet)
	}
	for _, c := range f.style.ends.chains(f.style) {
		f.chains.wantIf(len(f.style.ends) > 0 && len(c.Rules) > 0, c)
	}
}
