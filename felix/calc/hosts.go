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
)

// hosts says for each interface of this node that a host endpoint stands for
// which programs decide at which point of a packet's way.
//
// A host endpoint stands for the interface that it names, which need not be
// there yet; without a name for those that have one of its addresses; or for
// all others. Of several that stand for one interface those that name it go
// before those that have its address, and then the one with the smallest name
// counts. Interfaces of pods are no host's, whatever an object says.
type hosts struct {
	dirty  set                              // names
	chains map[string]*desired.HostEndpoint // by name, of this node
	stands map[string]string                // interface → name
	said   said[string, desired.HostEndpoint]
}

func newHosts() hosts {
	return hosts{
		dirty: set{}, chains: map[string]*desired.HostEndpoint{}, stands: map[string]string{},
		said: newSaid[string](sameHost),
	}
}

func (h *hosts) drain(in *inputs, subjects *subjects, policies *policies) {
	for name := range subjects.hosts.dirtyThings { // changed host endpoints are among them
		h.dirty.add(name)
	}
	moved := len(h.dirty) > 0 || len(in.interfaces.was) > 0
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
	for iface, name := range h.stands { // a few, as place says
		if h.dirty.has(name) || was[iface] != name {
			ep := *h.chains[name]
			ep.Interface = iface
			h.said.say(iface, &ep)
		}
	}
}

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
func (h *hosts) place(in *inputs) map[string]string {
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
	return addressed
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
