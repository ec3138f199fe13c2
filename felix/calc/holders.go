package calc

import (
	"net/netip"

	"github.com/koratnet/korat/felix/event"
)

// holders settles who holds an address when two local endpoints say they do:
// the newer attachment, because the older one is a sandbox whose end we have
// not heard of yet. The other keeps its veth, and nothing may come out of it
// with this address.
type holders struct {
	claims  map[netip.Addr]map[string]*event.Endpoint // by interface
	changed map[netip.Addr]struct{}                   // claims changed in this flush
}

func newHolders() holders {
	return holders{claims: map[netip.Addr]map[string]*event.Endpoint{}, changed: map[netip.Addr]struct{}{}}
}

func (h *holders) drain(in *table[event.Endpoint]) {
	for iface, was := range in.was {
		if was != nil {
			for _, a := range was.Addrs {
				delete(h.claims[a], iface)
				h.changed[a] = struct{}{}
			}
		}
	}
	for iface := range in.was {
		if is := in.now[iface]; is != nil {
			for _, a := range is.Addrs {
				if h.claims[a] == nil {
					h.claims[a] = map[string]*event.Endpoint{}
				}
				h.claims[a][iface] = is
				h.changed[a] = struct{}{}
			}
		}
	}
	for a := range h.changed {
		if len(h.claims[a]) == 0 {
			delete(h.claims, a)
		}
	}
}

// winner returns the interface of the endpoint that holds a: of the highest
// generation, and of equal ones the first by name.
func (h *holders) winner(a netip.Addr) (iface string, held bool) {
	var best *event.Endpoint
	for name, ep := range h.claims[a] {
		if best == nil || ep.Generation > best.Generation || ep.Generation == best.Generation && name < iface {
			iface, best = name, ep
		}
	}
	return iface, best != nil
}

func (h *holders) settle() { forget(&h.changed) }
