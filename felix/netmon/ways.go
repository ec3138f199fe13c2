package netmon

import (
	"maps"

	"github.com/koratnet/korat/felix/event"
)

// Ways returns how the kernel reaches the addresses of the other nodes, by their names,
// as it said when it was asked last. It is safe for concurrent use.
func (r *Reaches) Ways() map[string][]event.Reach {
	r.mu.Lock()
	nodes := maps.Clone(r.nodes)
	r.mu.Unlock()
	r.looking.Lock()
	defer r.looking.Unlock()
	out := map[string][]event.Reach{}
	for name, addrs := range nodes {
		for _, a := range addrs {
			if reach, known := r.known[a]; known {
				out[name] = append(out[name], reach)
			}
		}
	}
	return out
}
