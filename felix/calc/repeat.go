package calc

import (
	"maps"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy/ir"
)

// repeat makes d say everything that concerns a data plane, for one that begins
// now. What d says already, such as that something is gone, stays. It costs what
// the node holds, when a person chooses another backend or kube-proxy another mode.
func (e *Engine) repeat(d *desired.Delta) {
	all(&d.Endpoints, e.endpoints.said.last)
	all(&d.HostEndpoints, e.hosts.said.last)
	all(&d.Programs, e.programs.said.last)
	if d.Sets == nil {
		d.Sets = map[ir.SetID]*desired.SetChange{}
	}
	for id, set := range e.sets.sets {
		d.Sets[id] = set.whole()
	}
	for _, set := range e.ranges.all() {
		d.Sets[set.id] = set.whole()
	}
	all(&d.Tunnels, e.tunnels.devices.last)
	settings := e.settings.said.last
	d.Settings = &settings
	d.Complete, d.Learned = e.complete.last, e.learned.last
}

func all[K comparable, V any](into *map[K]*V, said map[K]*V) {
	if *into == nil {
		*into = make(map[K]*V, len(said))
	}
	maps.Copy(*into, said)
}
