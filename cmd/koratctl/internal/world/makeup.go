package world

import (
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/eval"
	"github.com/koratnet/korat/policy/selector"
)

// Addresses that are made up come from ranges in which nothing real is: that of
// RFC 2544 for measurements, and that of RFC 3849 for documentation.
var (
	madeUpV4 = netip.MustParseAddr("198.18.0.0")
	madeUpV6 = netip.MustParseAddr("2001:db8:c0de::")
)

// makeUp adds what a cluster would have added to the objects of manifests.
func (w *World) makeUp() {
	v4, v6 := madeUpV4, madeUpV6
	next := func() []netip.Addr {
		v4, v6 = v4.Next(), v6.Next()
		w.MadeUp[v4], w.MadeUp[v6] = true, true
		return []netip.Addr{v4, v6}
	}
	for i := range w.Cluster.Nodes {
		if n := &w.Cluster.Nodes[i]; len(n.Addrs) == 0 && w.written["Node "+n.Name] {
			n.Addrs = next()
		}
	}
	for i := range w.Cluster.Pods {
		if p := &w.Cluster.Pods[i]; len(p.Addrs) == 0 && w.written["Pod "+p.Namespace+"/"+p.Name] {
			p.Addrs = next()
		}
	}
	for _, s := range w.selects {
		known := func(k eval.Service) bool { return k.ServiceName == s.name }
		if !slices.ContainsFunc(w.Cluster.Services, known) {
			w.Cluster.Services = append(w.Cluster.Services, w.endsOf(s))
		}
	}
}

// endsOf works out the endpoints of a Service.
func (w *World) endsOf(s serviceSelector) eval.Service {
	out := eval.Service{ServiceName: s.name}
	for i := range w.Cluster.Pods {
		p := &w.Cluster.Pods[i]
		if p.Namespace != s.name.Namespace || !hasAll(p.Labels, s.pods) {
			continue
		}
		for _, sp := range s.ports {
			protocol, port := protocolOf(sp.Protocol), uint16(sp.Port)
			switch {
			case sp.TargetPort.Type == intstr.String:
				port = namedPort(p.Ports, policy.PortName{Protocol: protocol, Name: sp.TargetPort.StrVal})
			case sp.TargetPort.IntVal != 0:
				port = uint16(sp.TargetPort.IntVal)
			}
			for _, a := range p.Addrs {
				out.Ends = append(out.Ends, eval.ServiceEnd{Addr: a, Protocol: protocol, Port: port})
			}
		}
	}
	return out
}

// namedPort returns the number that a pod gives a name, or 0.
func namedPort(ports []policy.NamedPort, name policy.PortName) uint16 {
	for _, n := range ports {
		if n.Is(name) {
			return n.Port
		}
	}
	return 0
}

func hasAll(have, want selector.Labels) bool {
	return !slices.ContainsFunc(want, func(p selector.Pair) bool { return !slices.Contains(have, p) })
}
