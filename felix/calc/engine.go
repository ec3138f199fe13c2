package calc

import (
	"maps"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/event"
)

// Config is what the engine needs to know before the first event.
type Config struct {
	Node string // Kubernetes name of the node that it works for; not empty
}

// Engine turns events into desired state. It is owned by one goroutine; its
// methods are not safe for concurrent use.
type Engine struct {
	in    inputs
	heard event.Source // who has told all it knows

	settings   settings
	labels     labels
	services   services
	advertised advertised
	offers     offers
	subjects   subjects
	policies   policies
	sets       sets
	programs   programs
	uses       uses
	holders    holders
	floats     floats
	endpoints  endpoints
	hosts      hosts
	pools      pools
	learnable  learnable
	ranges     ranges
	blocks     blocks
	routes     routes
	paths      paths
	speaker    speaker
	tunnels    tunnels

	complete, learned words[bool]
}

// New returns an engine that knows nothing.
func New(cfg Config) *Engine {
	if cfg.Node == "" {
		panic("bug: calc.New without a node name")
	}
	e := &Engine{in: newInputs()}
	e.settings = newSettings(cfg.Node)
	e.labels = newLabels(&e.in, cfg.Node)
	e.services = newServices(&e.in)
	e.advertised = newAdvertised(cfg.Node, &e.services)
	e.offers = newOffers(&e.advertised)
	e.subjects = newSubjects(&e.in, &e.labels)
	e.policies = newPolicies(&e.in)
	e.sets = newSets(&e.labels, &e.services)
	e.programs = newPrograms()
	e.uses = newUses()
	e.holders = newHolders()
	e.floats = newFloats(&e.in, &e.labels)
	e.endpoints = newEndpoints()
	e.hosts = newHosts()
	e.pools = newPools()
	e.learnable = newLearnable(&e.pools, &e.advertised)
	e.ranges = newRanges()
	e.blocks = newBlocks(cfg.Node)
	e.routes = newRoutes()
	e.paths = newPaths(cfg.Node)
	e.speaker = newSpeaker(cfg.Node)
	e.tunnels = newTunnels(cfg.Node)
	e.complete.same, e.learned.same = identicalValues[bool], identicalValues[bool]
	return e
}

// Put says that a thing is now what ev says. It stores the value and marks its
// key dirty; the work is done by Flush, once for however many events. The value
// is kept and must not be changed any more.
func (e *Engine) Put(ev event.Event) { e.in.put(ev) }

// Synced says that src has told all it knew at its start. src may name several.
func (e *Engine) Synced(src event.Source) { e.heard |= src }

// Flush returns what changed in what is desired since the last Flush; the
// receiver owns the Delta. It is empty when nothing changed.
//
// Until the API server has told all it knows, Flush says nothing at all: half a
// list of policies would open what a policy not heard of yet closes, half a list
// of pods would shrink sets that the kernel still holds from before a restart.
func (e *Engine) Flush() desired.Delta {
	if e.heard&event.API == 0 {
		return desired.Delta{}
	}
	e.in.sift()
	e.settings.drain(&e.in)       // how the data plane behaves
	e.labels.drain()              // pods, sets, hosts, nodes → things with labels and addresses
	e.services.drain()            // endpoint slices → services
	e.subjects.drain()            // policies' subjects × local endpoints
	e.policies.drain(&e.subjects) // active here, tiers in order
	e.sets.drain(&e.policies)     // peers of active policies × all things → members
	e.programs.drain(&e.policies) // recompile only changed policies
	e.uses.drain(&e.policies, &e.subjects)
	e.holders.drain(&e.in.endpoints)
	e.floats.drain(&e.holders) // floating addresses → local endpoints, or other nodes
	e.endpoints.drain(&e.in.endpoints, &e.holders, &e.floats, &e.subjects, &e.policies)
	e.pools.drain(&e.in.pools)
	e.advertised.drain(&e.in) // addresses of services that this node serves
	e.offers.drain(&e.in)
	e.ranges.drain(&e.in, &e.settings, &e.advertised) // pools, nodes and services, for translating addresses
	e.learnable.drain(&e.in)
	e.blocks.drain(&e.in.blocks, &e.floats)
	e.speaker.drain(&e.in)
	e.tunnels.drain(&e.in, &e.settings, &e.blocks, &e.speaker) // in what packets reach other nodes
	e.hosts.drain(&e.in, &e.subjects, &e.policies, &e.tunnels)
	e.routes.drain(&e.in, &e.learnable, &e.blocks, &e.holders, &e.floats, &e.tunnels, &e.speaker)
	e.paths.drain(&e.in, &e.blocks, &e.holders, &e.floats) // what we say to our neighbours
	d := e.take()
	if e.settings.again {
		e.repeat(&d)
	}
	e.settle()
	return d
}

// settle forgets all dirty marks, at once.
func (e *Engine) settle() {
	e.in.settle()
	e.settings.settle()
	e.labels.settle()
	e.subjects.settle()
	e.policies.settle()
	e.holders.settle()
	e.floats.settle()
	e.endpoints.settle()
	e.hosts.settle()
	e.advertised.settle()
	e.pools.settle()
	e.learnable.settle()
	e.blocks.settle()
	e.routes.settle()
	e.tunnels.settle()
	e.speaker.settle()
	e.paths.settle()
}

// take gathers the news of all stages.
func (e *Engine) take() desired.Delta {
	const local = event.API | event.CNI
	e.complete.say(e.heard&local == local)
	e.learned.say(e.heard&(local|event.Neighbours) == local|event.Neighbours)
	return desired.Delta{
		Endpoints:      e.endpoints.said.take(),
		HostEndpoints:  e.hosts.said.take(),
		Programs:       e.programs.said.take(),
		Policies:       e.uses.said.take(),
		Sets:           e.ranges.take(e.sets.take()),
		Routes:         e.routes.said.take(),
		Paths:          union(union(e.paths.said.take(), e.advertised.said.take()), e.offers.said.take()),
		Tunnels:        e.tunnels.devices.take(),
		TunnelPeers:    e.tunnels.ends.take(),
		EncryptedPeers: e.tunnels.encrypted.take(),
		Rules:          e.tunnels.rules.take(),
		Ways:           e.tunnels.ways.take(),
		MTU:            e.tunnels.mtu.take(),
		Speaker:        e.speaker.said.take(),
		Closed:         e.speaker.closed.take(),
		Pools:          e.pools.cidrs.take(),
		Settings:       e.settings.said.take(),
		Complete:       e.complete.take() != nil,
		Learned:        e.learned.take() != nil,
	}
}

// union adds b to a; both may be nil.
func union[K comparable, V any](a, b map[K]V) map[K]V {
	if a == nil {
		return b
	}
	maps.Copy(a, b)
	return a
}
