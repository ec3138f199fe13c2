package calc

import (
	"slices"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/compile"
)

// hosts says for each host endpoint of this node which programs decide at which
// point of a packet's way.
type hosts struct {
	dirty set
	said  said[string, desired.HostEndpoint]
}

func newHosts() hosts {
	return hosts{dirty: set{}, said: newSaid[string](sameHost)}
}

func (h *hosts) drain(in *table[event.HostEndpoint], subjects *subjects, policies *policies) {
	for name := range subjects.hosts.dirtyThings { // changed host endpoints are among them
		h.dirty.add(name)
	}
	policies.mark(h.dirty, &subjects.hosts)
	for name := range h.dirty {
		if _, _, here := subjects.hosts.things.Get(name); !here {
			h.said.say(name, nil)
			continue
		}
		active := policies.inOrder(subjects.hosts.byThing[name])
		chains := func(at policy.Hook) desired.Chains {
			return desired.Chains{
				Ingress: compile.HostChain(active, policy.Ingress, policies.tiers, at),
				Egress:  compile.HostChain(active, policy.Egress, policies.tiers, at),
			}
		}
		ep := in.now[name]
		h.said.say(name, &desired.HostEndpoint{
			Name: name, Interface: ep.Interface, Addrs: ep.Addrs,
			Normal: chains(policy.Normal), Forward: chains(policy.NormalAndForward),
			PreDNAT: chains(policy.PreDNAT), Untracked: chains(policy.Untracked),
		})
	}
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
