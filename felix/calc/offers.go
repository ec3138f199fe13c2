package calc

import (
	"net/netip"

	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/event"
)

// offers decides which addresses of services are told under which advertisement:
// those that are allowed, of services that it selects and that this node serves. Of
// the aggregates that every node announces advertisements know nothing; each may
// have prefixes shorter than an address, of which one service is enough.
type offers struct {
	advertised *advertised
	told       map[string][]desired.PathKey // by service
	count      map[desired.PathKey]int      // how many addresses want it
	said       said[desired.PathKey, bgp.Path]
}

func newOffers(a *advertised) offers {
	return offers{
		advertised: a, told: map[string][]desired.PathKey{}, count: map[desired.PathKey]int{},
		said: newSaid[desired.PathKey](identical[bgp.Path]),
	}
}

func (o *offers) drain(in *inputs) {
	dirty := map[string]struct{}{}
	for name := range in.services.was {
		dirty[name] = struct{}{}
	}
	for name, was := range in.slices.was {
		for _, s := range []*event.EndpointSlice{was, in.slices.now[name]} {
			if s != nil {
				dirty[s.Service.String()] = struct{}{}
			}
		}
	}
	_, self := in.nodes.was[o.advertised.node]
	if self || o.advertised.configured || len(in.advertisements.was) > 0 {
		// Whole, because a person changed what is announced, or the node.
		for name := range in.services.now {
			dirty[name] = struct{}{}
		}
	}
	if len(dirty) == 0 {
		return
	}
	mine := advertisements(in, in.nodes.now[o.advertised.node])
	touched := map[desired.PathKey]struct{}{}
	for name := range dirty {
		o.follow(name, o.want(in.services.now[name], mine), touched)
	}
	for k := range touched {
		if o.count[k] > 0 {
			o.said.say(k, &bgp.Path{Prefix: k.Prefix, Kind: k.Kind, Advertisement: k.Advertisement})
		} else {
			delete(o.count, k)
			o.said.say(k, nil)
		}
	}
}

// follow makes keys what a service wants to be told.
func (o *offers) follow(name string, keys []desired.PathKey, touched map[desired.PathKey]struct{}) {
	for _, k := range o.told[name] {
		o.count[k]--
		touched[k] = struct{}{}
	}
	for _, k := range keys {
		o.count[k]++
		touched[k] = struct{}{}
	}
	if o.told[name] = keys; len(keys) == 0 {
		delete(o.told, name)
	}
}

// want returns what is told of a service, a key as often as it has addresses of it.
func (o *offers) want(s *event.Service, mine map[string]*event.Advertisement) (keys []desired.PathKey) {
	if s == nil || o.advertised.excluded {
		return nil
	}
	for name, a := range mine {
		if a.Services == nil || !a.Services.Labels.Matches(s.Labels) {
			continue
		}
		eachAddress(s, func(addr netip.Addr, kind addressKind) {
			if !offered(a.Services, kind) || !o.advertised.allows(kind, single(addr)) || !o.advertised.serves(s, kind) {
				return
			}
			length := a.Services.Length6
			if addr.Is4() {
				length = a.Services.Length4
			}
			keys = append(keys, desired.PathKey{Prefix: netip.PrefixFrom(addr, length).Masked(), Kind: bgp.Services, Advertisement: name})
		})
	}
	return keys
}

func offered(a *event.AdvertisedServices, kind addressKind) bool {
	return [addressKinds]bool{a.ClusterIPs, a.ExternalIPs, a.LoadBalancerIPs}[kind]
}
