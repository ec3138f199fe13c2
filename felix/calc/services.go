package calc

import (
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

// each visits the endpoints of a service.
func (s *services) each(service policy.ServiceName, visit func(ends)) {
	for name := range s.slices[service.String()] {
		visit(sliceEnds(s.in.slices.now[name]))
	}
}

func sliceEnds(s *event.EndpointSlice) ends { return ends{addrs: s.Addrs, ports: s.Ports} }
