package eval

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// AnyInterface is the endpoint of every interface that has none of its own,
// those of pods and the loopback aside.
const AnyInterface = "*"

const loopback = "lo"

// Host is a node as packets find it: what its pods' and its host endpoints'
// policies, and the rules that hold for everybody, do to a packet that arrives,
// leaves or is passed on. It is the law for whatever enforces policy on a node.
//
// A packet meets these points, in this order. Each lets it go on or denies it.
//
//	AtSource      from a pod: the interface is known, the source is the pod's own,
//	              and it is no message of a router
//	AtUntracked   at host endpoints. Every packet is asked, whatever connection it
//	              belongs to
//	AtPreDNAT     of the interface it came through, with the destination it had then
//	AtHost        what ends or begins on the node
//	AtForward     what the node passes on: of the interface it came through, and of
//	              the one it leaves by
//	AtPod         egress of the pod it comes from, ingress of the pod it goes to
//	AtNode        from a pod to its own node
//	AtServices    what is passed on towards service addresses that nobody serves
//
// What a rule AtUntracked or AtPreDNAT allows is not asked again at the same host
// endpoint in the same direction. What AtUntracked allows is no part of any
// connection from there on: everybody else asks it as a new packet. From the node
// to its own pods everything passes, and traffic with neither pods nor host
// endpoints is nobody's concern.
type Host struct {
	Pods      map[string]*Attachment // by interface
	PodPrefix string                 // begins the name of every interface of a pod, known or not
	Endpoints map[string]*HostChains // by interface, or AnyInterface
	Services  []netip.Prefix         // addresses of services to which Rules.Loops applies
	Rules     HostRules
	Evaluator *Evaluator
}

// Attachment is a pod at its interface.
type Attachment struct {
	Addrs   []netip.Addr   // its own; with none of a family it is unknown in that family
	Sources []netip.Prefix // from which it may send beside them
	Endpoint
}

// HostChains are the chains of a host endpoint. What reaches the end of those
// AtUntracked and AtPreDNAT goes on, whatever their defaults say.
type HostChains struct{ Normal, Forward, PreDNAT, Untracked Endpoint }

// HostRules are what a node does beside policy.
type HostRules struct {
	// PodToHost: Deny drops what a pod sends to its own node and its policy allows,
	// all else lets it in.
	PodToHost policy.Action
	// Invalid: Allow asks policy about invalid packets as if they were new, all
	// else drops them.
	Invalid policy.Action
	// Loops: Deny drops what is passed on to an address of Services.
	Loops policy.Action
	// PodTunnels: pods may build tunnels.
	PodTunnels bool
	// FailsafeIn, by destination port of what comes in, and FailsafeOut, by that of
	// what goes out, pass host endpoints but for their Forward chains. AtUntracked
	// the other direction of these connections does too. So do the messages by which
	// IPv6 finds neighbours and routers.
	FailsafeIn, FailsafeOut []Failsafe
}

// Failsafe is traffic that host endpoints never stop.
type Failsafe struct {
	Protocol policy.Protocol
	Port     uint16
	Net      netip.Prefix // of the other side; the zero Prefix is everybody
}

// Way is how a packet crosses a node.
type Way struct {
	In, Out string // interfaces; empty where the node itself begins or takes the packet
	Packet  Packet // with the destination to which it goes in the end
	// Before is the destination that it had before translation; zero: the same.
	// What the node itself sent was to leave by BeforeOut then. A packet that
	// AtUntracked allows is not translated: its way is another.
	Before    netip.AddrPort
	BeforeOut string
}

// Point is where on its way a packet is judged.
type Point uint8

// The points, in the order of Host.
const (
	AtSource Point = iota
	AtUntracked
	AtPreDNAT
	AtHost
	AtForward
	AtPod
	AtNode
	AtServices
)

// Step is what was decided at one point.
type Step struct {
	At        Point            `json:"at"`
	Interface string           `json:"interface"`
	Direction policy.Direction `json:"direction"` // seen from the endpoint at Interface
	Decision  Decision         `json:"decision"`
}

func (s Step) denies() bool { return s.Decision.Action == policy.Deny }

// Crossing is the outcome of a way: the last step denies, or all let through.
type Crossing struct {
	Action policy.Action `json:"action"` // Allow or Deny
	Steps  []Step        `json:"steps"`
	// Untracked: connection tracking was switched off for the packet.
	Untracked bool `json:"untracked,omitempty"`
}

// Cross judges a packet on its way.
func (h *Host) Cross(w Way) Crossing {
	w.Packet.Src, w.Packet.Dst = w.Packet.Src.Unmap(), w.Packet.Dst.Unmap()
	c := &crossing{host: h, way: w, action: policy.Allow, in: h.endpoint(w.In), out: h.endpoint(w.Out)}
	if c.isPod(w.In) {
		c.source()
	}
	c.untracked()
	c.preDNAT()
	switch {
	case w.In != "" && w.Out != "":
		c.forward()
	case w.In != "":
		c.input()
	default:
		c.output()
	}
	return Crossing{Action: c.action, Steps: c.steps, Untracked: c.noTrack}
}

// endpoint returns the host endpoint of an interface, or nil.
func (h *Host) endpoint(iface string) *HostChains {
	if iface == "" || h.isPod(iface) {
		return nil
	}
	if own := h.Endpoints[iface]; own != nil {
		return own
	}
	if iface == loopback {
		return nil
	}
	return h.Endpoints[AnyInterface]
}

func (h *Host) isPod(iface string) bool {
	return iface != "" && h.PodPrefix != "" && strings.HasPrefix(iface, h.PodPrefix)
}

// pod returns who is at a pod's interface, for the family of a packet, or nil.
func (h *Host) pod(iface string, p Packet) *Attachment {
	a := h.Pods[iface]
	if a == nil || !slices.ContainsFunc(a.Addrs, func(own netip.Addr) bool { return own.Is4() == p.Dst.Is4() }) {
		return nil
	}
	return a
}

// failsafe reports whether one end of a packet is a port that stays open to the
// other end.
func failsafe(list []Failsafe, p policy.Protocol, port uint16, other netip.Addr) bool {
	return p.HasPorts() && slices.ContainsFunc(list, func(f Failsafe) bool {
		return f.Protocol == p && f.Port == port && (!f.Net.IsValid() || f.Net.Contains(other))
	})
}

// decidedByRule reports whether a chain that only denies and allows by rules said so.
func (d Decision) decidedByRule() bool { return d.Cause == ByRule || d.Cause == ByMissing }

// withoutEnd returns a chain that leaves open what no rule decides.
func withoutEnd(c ir.Chain) ir.Chain {
	c.Default = policy.Allow
	return c
}
