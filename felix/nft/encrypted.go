package nft

import (
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/nftables"
	"github.com/koratnet/korat/policy"
)

// The base chains of pools whose packets never travel in clear. They are there only
// where there is one.
const (
	clearIn  = "clear-prerouting"
	clearOut = "clear-forward"
)

// encrypted are the interfaces of tunnels that encrypt, here or not.
func encrypted() (names []string) {
	for _, kind := range desired.TunnelKinds {
		if kind.Encapsulation() == desired.WireGuard {
			names = append(names, kind.Device())
		}
	}
	return names
}

// clear returns the base chains that drop what travels in clear and must not: what
// has such a pool at one end, and any pool or a node at the other. What comes does so
// through a tunnel that encrypts, or is no such packet. Routes to pods lead none of what
// leaves out: these hold where a route of somebody else does, and where the way to a
// node is not encrypted.
func (s style) clear() []nftables.Chain {
	come := []nftables.Rule{rule(in("lo"), accept), rule(fromPods(), accept)}
	leave := []nftables.Rule{rule(toPods(), accept)}
	for _, name := range encrypted() {
		come = append(come, rule(in(name), accept))
		leave = append(leave, rule(out(name), accept))
	}
	for _, f := range bothFamilies {
		inside, closed := desired.SetName(desired.InsideSet, f), desired.SetName(desired.EncryptedSet, f)
		came := s.deny(desired.Reason{Cause: desired.Clear, Direction: policy.Ingress})
		leaves := s.deny(desired.Reason{Cause: desired.Clear, Direction: policy.Egress})
		come = append(come,
			rule(ofFamily(f), source.inSet(f, closed, false), came),
			rule(ofFamily(f), destination.inSet(f, closed, false), source.inSet(f, inside, false), came),
			rule(ofFamily(f), destination.inSet(f, closed, false), fromNodes(f), came))
		leave = append(leave,
			rule(ofFamily(f), destination.inSet(f, closed, false), leaves),
			rule(ofFamily(f), source.inSet(f, closed, false), destination.inSet(f, inside, false), leaves),
			rule(ofFamily(f), source.inSet(f, closed, false), toNodes(f), leaves))
	}
	return []nftables.Chain{
		filterChain(clearIn, nftables.Prerouting, prioTunnel, come),
		filterChain(clearOut, nftables.Forward, prioFilter, leave),
	}
}

// writeClear writes these chains, or takes them away.
func (f *Firewall) writeClear() {
	closed := f.sets.any(desired.EncryptedSet)
	if closed {
		f.sets.need(desired.NodesSet)
	}
	for _, c := range f.style.clear() {
		f.chains.wantIf(closed, c)
	}
}
