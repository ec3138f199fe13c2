package calc

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/compile"
	"github.com/koratnet/korat/policy/ir"
)

// hosts says for each interface of this node that a host endpoint stands for
// which programs decide at which point of a packet's way.
//
// A host endpoint stands for the interface that it names, which need not be
// there yet; without a name for those that have one of its addresses; or for
// all others. Of several that stand for one interface those that name it go
// before those that have its address, and then the one with the smallest name
// counts. Interfaces of pods are no host's, whatever an object says.
//
// Nodes may send encrypted to each other what is not for pods. So that of the interface
// with the node's address, or to another node, also stands for those of WireGuard that
// have none of their own, but for what the node passes on.
type hosts struct {
	dirty  set                              // names
	chains map[string]*desired.HostEndpoint // by name, of this node
	stands map[string]stand                 // by interface
	wires  map[string]netip.Addr            // by interface of WireGuard here, around its packets
	said   said[string, desired.HostEndpoint]
}

// stand is which host endpoint stands for an interface.
type stand struct {
	name   string
	inside bool // of what is encrypted on the way through the interface that it is for
}

func newHosts() hosts {
	return hosts{
		dirty: set{}, chains: map[string]*desired.HostEndpoint{}, stands: map[string]stand{},
		said: newSaid[string](sameHost),
	}
}

func (h *hosts) drain(in *inputs, subjects *subjects, policies *policies, tunnels *tunnels) {
	for name := range subjects.hosts.dirtyThings { // changed host endpoints are among them
		h.dirty.add(name)
	}
	wires := tunnels.wires()
	moved := len(h.dirty) > 0 || len(in.interfaces.was) > 0 || !maps.Equal(wires, h.wires) || len(wires) > 0 && len(in.reach.was) > 0
	h.wires = wires
	policies.mark(h.dirty, &subjects.hosts)
	for name := range h.dirty {
		if _, _, here := subjects.hosts.things.Get(name); here {
			h.chains[name] = chainsOf(in.hosts.now[name], policies.inOrder(subjects.hosts.byThing[name]), policies.tiers)
		} else {
			delete(h.chains, name)
		}
	}
	was := h.stands
	if moved {
		h.stands = h.place(in)
	}
	for iface := range was {
		if _, still := h.stands[iface]; !still {
			h.said.say(iface, nil)
		}
	}
	for iface, s := range h.stands { // a few, as place says
		if h.dirty.has(s.name) || was[iface] != s {
			ep := *h.chains[s.name]
			if ep.Interface = iface; s.inside {
				ep.Forward = open
			}
			h.said.say(iface, &ep)
		}
	}
}

// open is what leaves alone what the node passes on.
var open = desired.Chains{Ingress: ir.Chain{Default: policy.Allow}, Egress: ir.Chain{Default: policy.Allow}}

func chainsOf(ep *event.HostEndpoint, active []*policy.Policy, tiers policy.Tiers) *desired.HostEndpoint {
	chains := func(at policy.Hook) desired.Chains {
		return desired.Chains{
			Ingress: compile.HostChain(active, policy.Ingress, tiers, at),
			Egress:  compile.HostChain(active, policy.Egress, tiers, at),
		}
	}
	return &desired.HostEndpoint{
		Name: ep.Name, Addrs: ep.Addrs,
		Normal: chains(policy.Normal), Forward: chains(policy.NormalAndForward),
		PreDNAT: chains(policy.PreDNAT), Untracked: chains(policy.Untracked),
	}
}

// place says who stands for which interface. It looks at all host endpoints and
// interfaces of this node: as many as it has network cards, or little more.
func (h *hosts) place(in *inputs) map[string]stand {
	named, addressed := map[string]string{}, map[string]string{}
	claim := func(of map[string]string, iface, name string) {
		if other, taken := of[iface]; !taken || name < other {
			of[iface] = name
		}
	}
	for name := range h.chains {
		ep := in.hosts.now[name]
		switch {
		case strings.HasPrefix(ep.Interface, desired.InterfacePrefix):
		case ep.Interface != "":
			claim(named, ep.Interface, name)
		default:
			for iface, i := range in.interfaces.now {
				if slices.ContainsFunc(i.Addrs, func(a netip.Addr) bool { return slices.Contains(ep.Addrs, a) }) {
					claim(addressed, iface, name)
				}
			}
		}
	}
	maps.Copy(addressed, named)
	stands := map[string]stand{}
	for wire, around := range h.wires {
		for iface := range carry(around, in) {
			name, stood := addressed[iface]
			if other, taken := stands[wire]; stood && (!taken || name < other.name) {
				stands[wire] = stand{name, true}
			}
		}
	}
	for iface, name := range addressed {
		stands[iface] = stand{name: name}
	}
	return stands
}

// carry are the interfaces by which what is encrypted comes and goes: that with the
// node's address, and those to other nodes.
func carry(around netip.Addr, in *inputs) map[string]struct{} {
	out := map[string]struct{}{}
	for iface, i := range in.interfaces.now {
		if slices.Contains(i.Addrs, around) {
			out[iface] = struct{}{}
		}
	}
	for _, r := range in.reach.now {
		if r.Addr.Is6() == around.Is6() {
			out[r.Interface] = struct{}{}
		}
	}
	return out
}

func (h *hosts) settle() { forget(&h.dirty) }

func sameHost(a, b *desired.HostEndpoint) bool {
	return a.Name == b.Name && a.Interface == b.Interface && slices.Equal(a.Addrs, b.Addrs) &&
		sameChains(a.Normal, b.Normal) && sameChains(a.Forward, b.Forward) &&
		sameChains(a.PreDNAT, b.PreDNAT) && sameChains(a.Untracked, b.Untracked)
}

func sameChains(a, b desired.Chains) bool {
	return sameChain(a.Ingress, b.Ingress) && sameChain(a.Egress, b.Egress)
}
