package calc

import (
	"iter"

	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/policy"
)

// services knows the endpoint slices of every service.
type services struct {
	in     *inputs
	slices relation // service → names of its slices
}

func newServices(in *inputs) services { return services{in: in, slices: relation{}} }

func (s *services) drain() {
	for name, was := range s.in.slices.was {
		if was != nil {
			s.slices.remove(was.Service.String(), name)
		}
		if is := s.in.slices.now[name]; is != nil {
			s.slices.add(is.Service.String(), name)
		}
	}
}

// ends iterates the endpoints of a service.
func (s *services) ends(service policy.ServiceName) iter.Seq[ends] {
	return func(yield func(ends) bool) {
		for name := range s.slices[service.String()] {
			if !yield(sliceEnds(s.in.slices.now[name])) {
				return
			}
		}
	}
}

func sliceEnds(s *event.EndpointSlice) ends { return ends{addrs: s.Addrs, ports: s.Ports} }
