package calc

import (
	"maps"
	"reflect"
	"slices"

	"github.com/koratnet/korat/felix/event"
)

// table holds the last value of every thing of one kind, and of each thing that
// changed since the last flush also what it was then: was is the list of dirty
// keys and the undo log of the stages in one. With both sides at hand a stage
// takes back exactly what it once added, without keeping a copy of its own.
type table[V any] struct {
	now  map[string]*V
	was  map[string]*V // nil value: did not exist
	same func(a, b *V) bool
	// flushed is false until the first flush: before it nothing was anything else,
	// so that what is marks itself.
	flushed bool
}

func newTable[V any](same func(a, b *V) bool) table[V] {
	return table[V]{now: map[string]*V{}, was: map[string]*V{}, same: same}
}

// put stores the state of one thing and marks it dirty.
func (t *table[V]) put(ev event.Event) {
	v, ok := any(ev.Value).(*V)
	if !ok && ev.Value != nil {
		panic("bug: event of another kind than its key: " + ev.Key.Name)
	}
	name := ev.Key.Name
	if t.flushed {
		if _, dirty := t.was[name]; !dirty {
			t.was[name] = t.now[name]
		}
	}
	if v == nil {
		delete(t.now, name)
	} else {
		t.now[name] = v
	}
}

// sift takes back the marks of things that are again what they were.
func (t *table[V]) sift() {
	if !t.flushed {
		t.flushed, t.was = true, make(map[string]*V, len(t.now))
		for name := range t.now {
			t.was[name] = nil
		}
		return
	}
	for name, was := range t.was {
		now := t.now[name]
		if was == now || was != nil && now != nil && t.same(was, now) {
			delete(t.was, name)
		}
	}
}

func (t *table[V]) settle() { forget(&t.was) }

// large is how many marks are more than daily business.
const large = 64

// forget empties a map of marks. Clearing and walking a map cost what it once
// held, so a map that was large, as after the first listing of all pods, is
// thrown away.
func forget[M ~map[K]V, K comparable, V any](m *M) {
	if len(*m) > large {
		*m = M{}
		return
	}
	clear(*m)
}

// inputs is all that the engine was told.
type inputs struct {
	pods       table[event.Pod]
	namespaces table[event.Namespace]
	policies   table[event.Policy]
	pools      table[event.Pool]
	blocks     table[event.Block]
	nodes      table[event.Node]
	networks   table[event.NodeNetwork]
	peers      table[event.Peer]
	bgp        table[event.BGP]
	endpoints  table[event.Endpoint] // by host interface
	learned    table[event.Learned]  // by the prefix's text

	tiers       table[event.Tier]
	networkSets table[event.NetworkSet]
	accounts    table[event.ServiceAccount]
	slices      table[event.EndpointSlice]
	services    table[event.Service]
	hosts       table[event.HostEndpoint]

	configurations table[event.NodeConfiguration]
	interfaces     table[event.LocalInterface]
	proxies        table[event.Proxy]

	reach       table[event.Reach]         // by the address's text
	tunnelAddrs table[event.TunnelAddress] // by interface
	tunnelKeys  table[event.TunnelKey]     // by interface
	turns       table[event.Turn]

	secrets        table[event.Secret]
	filters        table[event.Filter]
	advertisements table[event.Advertisement]
}

func newInputs() inputs {
	return inputs{
		pods: newTable(func(a, b *event.Pod) bool {
			return a.Namespace == b.Namespace && a.Name == b.Name && a.UID == b.UID && a.Node == b.Node &&
				slices.Equal(a.Addrs, b.Addrs) && a.Labels.Equal(b.Labels) && a.Account == b.Account && slices.Equal(a.Ports, b.Ports) && sameFloating(a.Floating, b.Floating)
		}),
		namespaces: newTable(func(a, b *event.Namespace) bool { return a.Name == b.Name && a.Labels.Equal(b.Labels) }),
		// Policies are compared by their outputs: a changed one is compiled anew.
		policies: newTable(func(a, b *event.Policy) bool { return a.Policy == b.Policy }),
		pools:    newTable(identical[event.Pool]),
		blocks:   newTable(func(a, b *event.Block) bool { return a.Block == b.Block }),
		nodes: newTable(func(a, b *event.Node) bool {
			return a.Name == b.Name && a.Labels.Equal(b.Labels) && slices.Equal(a.Addrs, b.Addrs) && slices.Equal(a.Others, b.Others) &&
				a.Draining == b.Draining && a.Cordoned == b.Cordoned
		}),
		networks: newTable(func(a, b *event.NodeNetwork) bool {
			return a.Name == b.Name && a.ASN == b.ASN && a.Group == b.Group && a.Reflector == b.Reflector && slices.Equal(a.WireGuard, b.WireGuard)
		}),
		peers: newTable(func(a, b *event.Peer) bool { return reflect.DeepEqual(a, b) }),
		// The one configuration is edited by people.
		bgp: newTable(func(a, b *event.BGP) bool { return reflect.DeepEqual(a, b) }),
		endpoints: newTable(func(a, b *event.Endpoint) bool {
			return a.Handle == b.Handle && a.UID == b.UID && a.Interface == b.Interface && a.Generation == b.Generation && a.Rates == b.Rates &&
				slices.Equal(a.Addrs, b.Addrs) && slices.Equal(a.Sources, b.Sources)
		}),
		learned: newTable(func(a, b *event.Learned) bool {
			return a.Prefix == b.Prefix && slices.Equal(a.NextHops, b.NextHops) && slices.Equal(a.Weights, b.Weights)
		}),
		tiers: newTable(identical[event.Tier]),
		networkSets: newTable(func(a, b *event.NetworkSet) bool {
			return a.Namespace == b.Namespace && a.Name == b.Name && a.Labels.Equal(b.Labels) && slices.Equal(a.Nets, b.Nets)
		}),
		accounts: newTable(func(a, b *event.ServiceAccount) bool {
			return a.Namespace == b.Namespace && a.Name == b.Name && a.Labels.Equal(b.Labels)
		}),
		slices: newTable(func(a, b *event.EndpointSlice) bool {
			return a.Service == b.Service && slices.Equal(a.Addrs, b.Addrs) && slices.Equal(a.Ports, b.Ports) && slices.Equal(a.Backends, b.Backends)
		}),
		services: newTable(func(a, b *event.Service) bool {
			return a.ServiceName == b.ServiceName && a.Labels.Equal(b.Labels) && slices.Equal(a.ClusterIPs, b.ClusterIPs) && slices.Equal(a.ExternalIPs, b.ExternalIPs) &&
				slices.Equal(a.LoadBalancerIPs, b.LoadBalancerIPs) && a.InternalLocal == b.InternalLocal && a.ExternalLocal == b.ExternalLocal
		}),
		hosts: newTable(func(a, b *event.HostEndpoint) bool {
			return a.Name == b.Name && a.Node == b.Node && a.Interface == b.Interface && slices.Equal(a.Addrs, b.Addrs) &&
				a.Labels.Equal(b.Labels) && slices.Equal(a.Ports, b.Ports)
		}),
		// Settings are compared when they are put together.
		configurations: newTable(func(a, b *event.NodeConfiguration) bool { return a == b }),
		proxies:        newTable(identical[event.Proxy]),
		reach:          newTable(identical[event.Reach]),
		tunnelAddrs:    newTable(identical[event.TunnelAddress]),
		tunnelKeys:     newTable(identical[event.TunnelKey]),
		turns:          newTable(func(a, b *event.Turn) bool { return a.Odd == b.Odd && a.Hosts == b.Hosts && maps.Equal(a.Live, b.Live) }),
		// People edit these.
		secrets:        newTable(func(a, b *event.Secret) bool { return reflect.DeepEqual(a, b) }),
		filters:        newTable(func(a, b *event.Filter) bool { return reflect.DeepEqual(a, b) }),
		advertisements: newTable(func(a, b *event.Advertisement) bool { return reflect.DeepEqual(a, b) }),
		interfaces: newTable(func(a, b *event.LocalInterface) bool {
			return a.Name == b.Name && slices.Equal(a.Addrs, b.Addrs)
		}),
	}
}

func sameFloating(a, b *event.Floating) bool {
	return a == b || a != nil && b != nil && a.Created == b.Created && slices.Equal(a.Addrs, b.Addrs)
}

func identical[V comparable](a, b *V) bool { return *a == *b }

func (in *inputs) put(ev event.Event) {
	switch ev.Key.Kind {
	case event.PodKind:
		in.pods.put(ev)
	case event.NamespaceKind:
		in.namespaces.put(ev)
	case event.PolicyKind:
		in.policies.put(ev)
	case event.PoolKind:
		in.pools.put(ev)
	case event.BlockKind:
		in.blocks.put(ev)
	case event.NodeKind:
		in.nodes.put(ev)
	case event.NodeNetworkKind:
		in.networks.put(ev)
	case event.PeerKind:
		in.peers.put(ev)
	case event.BGPKind:
		in.bgp.put(ev)
	case event.EndpointKind:
		in.endpoints.put(ev)
	case event.LearnedKind:
		in.learned.put(ev)
	case event.TierKind:
		in.tiers.put(ev)
	case event.NetworkSetKind:
		in.networkSets.put(ev)
	case event.ServiceAccountKind:
		in.accounts.put(ev)
	case event.EndpointSliceKind:
		in.slices.put(ev)
	case event.ServiceKind:
		in.services.put(ev)
	case event.HostEndpointKind:
		in.hosts.put(ev)
	case event.NodeConfigurationKind:
		in.configurations.put(ev)
	case event.ProxyKind:
		in.proxies.put(ev)
	case event.LocalInterfaceKind:
		in.interfaces.put(ev)
	case event.ReachKind:
		in.reach.put(ev)
	case event.TunnelAddressKind:
		in.tunnelAddrs.put(ev)
	case event.TunnelKeyKind:
		in.tunnelKeys.put(ev)
	case event.TurnKind:
		in.turns.put(ev)
	case event.SecretKind:
		in.secrets.put(ev)
	case event.FilterKind:
		in.filters.put(ev)
	case event.AdvertisementKind:
		in.advertisements.put(ev)
	case event.ReservationKind: // concerns who hands out addresses, not who has them
	default:
		panic("bug: event of an unknown kind: " + ev.Key.Name)
	}
}

// marks are what all tables have in common.
type marks interface {
	sift()
	settle()
}

// tables lists all tables for what is done to every one, whatever its type.
func (in *inputs) tables() [27]marks {
	return [...]marks{
		&in.pods, &in.namespaces, &in.policies, &in.pools, &in.blocks, &in.nodes,
		&in.networks, &in.peers, &in.bgp, &in.endpoints, &in.learned,
		&in.tiers, &in.networkSets, &in.accounts, &in.slices, &in.services, &in.hosts,
		&in.configurations, &in.interfaces, &in.proxies,
		&in.reach, &in.tunnelAddrs, &in.tunnelKeys, &in.turns, &in.secrets, &in.filters, &in.advertisements,
	}
}

func (in *inputs) sift() {
	for _, t := range in.tables() {
		t.sift()
	}
}

func (in *inputs) settle() {
	for _, t := range in.tables() {
		t.settle()
	}
}
