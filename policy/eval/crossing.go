package eval

import (
	"net/netip"
	"slices"

	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// crossing is a packet on its way. After a denial nothing is asked any more.
type crossing struct {
	host    *Host
	way     Way
	in, out *HostChains // of the interfaces, where they have host endpoints
	action  policy.Action
	steps   []Step
	noTrack bool
	// A rule before connection tracking or translation has let the packet in, or
	// out: that direction of a host endpoint is not asked again.
	letIn, letOut bool
}

func (c *crossing) isPod(iface string) bool { return c.host.isPod(iface) }

// step notes a decision.
func (c *crossing) step(at Point, d policy.Direction, iface string, decision Decision) {
	c.steps = append(c.steps, Step{at, iface, d, decision})
	if decision.Action == policy.Deny {
		c.action = policy.Deny
	}
}

func (c *crossing) denied() bool { return c.action == policy.Deny }

// by is a decision that is no chain's.
func (c *crossing) by(cause Cause, a policy.Action) Decision {
	return Decision{Action: a, Cause: cause, State: c.way.Packet.State}
}

// packet returns the packet as connection tracking lets it be seen.
func (c *crossing) packet() Packet {
	p := c.way.Packet
	if c.noTrack || p.State == Invalid && c.host.Rules.Invalid == policy.Allow {
		p.State = New
	}
	return p
}

// before returns the packet as it was before translation and tracking.
func (c *crossing) before() Packet {
	p := c.way.Packet
	if c.way.Before.IsValid() {
		p.Dst, p.DstPort = c.way.Before.Addr(), c.way.Before.Port()
	}
	return p
}

// Messages of ICMPv6 that pods send whatever policy says, that they never do, and
// without which a node loses its network.
var (
	neighbourTypes = []uint8{130, 131, 132, 133, 135, 136, 143}
	routerTypes    = []uint8{134, 137}
	hostTypes      = []uint8{130, 131, 132, 133, 134, 135, 136, 143}
)

func (c *crossing) source() {
	p := c.way.Packet
	pod := c.host.pod(c.way.In, p)
	switch {
	case p.Protocol == policy.ICMPv6 && slices.Contains(routerTypes, p.Type):
		c.step(AtSource, policy.Egress, c.way.In, c.by(ByRouter, policy.Deny))
	case c.neighbour():
	case pod == nil:
		c.step(AtSource, policy.Egress, c.way.In, c.by(ByUnknown, policy.Deny))
	case !slices.Contains(pod.Addrs, p.Src) && !within(pod.Sources, p.Src):
		c.step(AtSource, policy.Egress, c.way.In, c.by(ByForgery, policy.Deny))
	}
}

// neighbour reports whether the packet is how a pod and its node find each other.
func (c *crossing) neighbour() bool {
	p := c.way.Packet
	return c.way.Out == "" && c.isPod(c.way.In) && p.Protocol == policy.ICMPv6 && slices.Contains(neighbourTypes, p.Type)
}

// links reports whether p is how a node and its neighbours outside find each other:
// host endpoints let it pass like failsafes.
func links(p Packet) bool { return p.Protocol == policy.ICMPv6 && slices.Contains(hostTypes, p.Type) }

func (c *crossing) untracked() {
	rules, p := c.host.Rules, c.before()
	p.State = New
	if c.in != nil && asks(c.in.Untracked.Ingress) && !c.denied() {
		if links(p) {
			c.step(AtUntracked, policy.Ingress, c.way.In, c.by(ByNeighbour, policy.Allow))
		} else if failsafe(rules.FailsafeIn, p.Protocol, p.DstPort, p.Src) || failsafe(rules.FailsafeOut, p.Protocol, p.SrcPort, p.Src) {
			c.step(AtUntracked, policy.Ingress, c.way.In, c.by(ByFailsafe, policy.Allow))
		} else {
			c.letIn = c.early(AtUntracked, policy.Ingress, c.way.In, c.in.Untracked.Ingress, p)
			c.noTrack = c.letIn
		}
	}
	out, iface := c.out, c.way.Out
	if c.way.Before.IsValid() {
		out, iface = c.host.endpoint(c.way.BeforeOut), c.way.BeforeOut
	}
	if out != nil && asks(out.Untracked.Egress) && c.way.In == "" && !c.denied() {
		if links(p) {
			c.step(AtUntracked, policy.Egress, iface, c.by(ByNeighbour, policy.Allow))
		} else if failsafe(rules.FailsafeOut, p.Protocol, p.DstPort, p.Dst) || failsafe(rules.FailsafeIn, p.Protocol, p.SrcPort, p.Dst) {
			c.step(AtUntracked, policy.Egress, iface, c.by(ByFailsafe, policy.Allow))
		} else {
			c.letOut = c.early(AtUntracked, policy.Egress, iface, out.Untracked.Egress, p)
			c.noTrack = c.letOut
		}
	}
}

func (c *crossing) preDNAT() {
	if c.in == nil || !asks(c.in.PreDNAT.Ingress) || c.denied() || c.letIn {
		return
	}
	p := c.before()
	switch {
	case p.State == Established || p.State == Related:
		c.step(AtPreDNAT, policy.Ingress, c.way.In, c.by(ByState, policy.Allow))
	case links(p):
		c.step(AtPreDNAT, policy.Ingress, c.way.In, c.by(ByNeighbour, policy.Allow))
	case failsafe(c.host.Rules.FailsafeIn, p.Protocol, p.DstPort, p.Src):
		c.step(AtPreDNAT, policy.Ingress, c.way.In, c.by(ByFailsafe, policy.Allow))
	default:
		p.State = New
		c.letIn = c.early(AtPreDNAT, policy.Ingress, c.way.In, c.in.PreDNAT.Ingress, p)
	}
}

// asks reports whether a chain has anything to say.
func asks(c ir.Chain) bool { return len(c.Tiers) > 0 }

// early asks a chain whose end leaves everything open, and reports whether one
// of its rules let the packet through.
func (c *crossing) early(at Point, d policy.Direction, iface string, chain ir.Chain, p Packet) bool {
	decision := c.host.Evaluator.Chain(withoutEnd(chain), p)
	c.step(at, d, iface, decision)
	return decision.Action == policy.Allow && decision.decidedByRule()
}

func (c *crossing) input() {
	p := c.packet()
	if c.in != nil && !c.denied() && !c.letIn {
		if links(p) {
			c.step(AtHost, policy.Ingress, c.way.In, c.by(ByNeighbour, policy.Allow))
		} else if failsafe(c.host.Rules.FailsafeIn, p.Protocol, p.DstPort, p.Src) {
			c.step(AtHost, policy.Ingress, c.way.In, c.by(ByFailsafe, policy.Allow))
		} else {
			c.step(AtHost, policy.Ingress, c.way.In, c.host.Evaluator.Chain(c.in.Normal.Ingress, p))
		}
	}
	if !c.isPod(c.way.In) || c.denied() {
		return
	}
	if c.neighbour() {
		c.step(AtNode, policy.Egress, c.way.In, c.by(ByNeighbour, policy.Allow))
		return
	}
	c.fromPod(p)
	if !c.denied() && p.State == New && c.host.Rules.PodToHost == policy.Deny {
		c.step(AtNode, policy.Egress, c.way.In, c.by(ByPodToHost, policy.Deny))
	}
}

func (c *crossing) forward() {
	p := c.packet()
	if c.in != nil && !c.denied() && !c.letIn {
		c.step(AtForward, policy.Ingress, c.way.In, c.host.Evaluator.Chain(c.in.Forward.Ingress, p))
	}
	if c.isPod(c.way.In) && !c.denied() {
		c.fromPod(p)
	}
	if c.isPod(c.way.Out) && !c.denied() {
		c.toPod(p)
	}
	if c.out != nil && !c.denied() {
		c.step(AtForward, policy.Egress, c.way.Out, c.host.Evaluator.Chain(c.out.Forward.Egress, p))
	}
	lost := slices.ContainsFunc(c.host.Services, func(n netip.Prefix) bool { return n.Contains(p.Dst) })
	if lost && !c.denied() && c.host.Rules.Loops == policy.Deny {
		c.step(AtServices, policy.Ingress, c.way.In, c.by(ByLoop, policy.Deny))
	}
}

func (c *crossing) output() {
	p := c.packet()
	if c.out == nil || c.denied() || c.letOut {
		return
	}
	if links(p) {
		c.step(AtHost, policy.Egress, c.way.Out, c.by(ByNeighbour, policy.Allow))
		return
	}
	if failsafe(c.host.Rules.FailsafeOut, p.Protocol, p.DstPort, p.Dst) {
		c.step(AtHost, policy.Egress, c.way.Out, c.by(ByFailsafe, policy.Allow))
		return
	}
	c.step(AtHost, policy.Egress, c.way.Out, c.host.Evaluator.Chain(c.out.Normal.Egress, p))
}

// vxlan is the port of tunnels that a pod could build itself, and with them walk
// around its egress policy; so it could with IP in IP.
const (
	vxlan  = 4789
	ipInIP = policy.Protocol(4)
)

func (c *crossing) fromPod(p Packet) {
	d := c.host.Evaluator.Chain(c.host.pod(c.way.In, p).Egress, p)
	switch {
	case d.Cause == ByState:
	case !c.host.Rules.PodTunnels && (p.Protocol == ipInIP || p.Protocol == policy.UDP && p.DstPort == vxlan):
		d = c.by(ByTunnel, policy.Deny)
	case c.hairpin(p):
		d = c.by(ByItself, policy.Allow)
	}
	c.step(AtPod, policy.Egress, c.way.In, d)
}

func (c *crossing) toPod(p Packet) {
	pod := c.host.pod(c.way.Out, p)
	var d Decision
	switch {
	case pod == nil:
		d = c.by(ByUnknown, policy.Deny)
	case c.hairpin(p):
		d = c.by(ByItself, policy.Allow)
	default:
		d = c.host.Evaluator.Chain(pod.Ingress, p)
	}
	c.step(AtPod, policy.Ingress, c.way.Out, d)
}

// hairpin reports whether a pod reaches itself, through a service.
func (c *crossing) hairpin(p Packet) bool {
	if c.way.In != c.way.Out || p.State == Invalid {
		return false
	}
	pod := c.host.pod(c.way.In, p)
	return pod != nil && slices.Contains(pod.Addrs, p.Src) && slices.Contains(pod.Addrs, p.Dst)
}
