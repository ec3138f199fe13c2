package calc_test

import (
	"net/netip"

	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/policy"
)

// vips are addresses of services. They lie among those of pods, so that blocks and
// learned routes meet them.
func (d dice) vips() (addrs []netip.Addr) {
	for range d.IntN(3) {
		addrs = append(addrs, netip.MustParseAddr(pick(d, "10.0.0.2", "10.0.1.3", "10.1.0.1", "10.1.0.2", "fd00:10::1")))
	}
	return addrs
}

func (d dice) service() (string, event.Value) {
	s := &event.Service{
		ServiceName: policy.ServiceName{Namespace: d.ns(), Name: pick(d, "s", "t")}, Labels: d.labels(50),
		ClusterIPs: d.vips(), ExternalIPs: d.vips(), LoadBalancerIPs: d.vips(),
		InternalLocal: d.chance(30), ExternalLocal: d.chance(50),
	}
	return s.ServiceName.String(), s
}

func (d dice) backends() (all []event.Backend) {
	for _, node := range []string{"", "me", "other"} {
		if d.chance(50) {
			all = append(all, event.Backend{Node: node, Ready: d.chance(40), Ending: d.chance(40)})
		}
	}
	return all
}

func (d dice) serviceRanges() event.ServiceRanges {
	list := func() (list []event.ServiceRange) {
		for range d.IntN(3) {
			cidr := netip.MustParsePrefix(pick(d, "10.1.0.0/24", "10.1.0.0/24", "10.1.0.0/31", "10.1.0.1/32", "10.0.0.0/23", "fd00:10::/64"))
			list = append(list, event.ServiceRange{CIDR: cidr, Aggregate: d.chance(50)})
		}
		return list
	}
	return event.ServiceRanges{ClusterIPs: list(), ExternalIPs: list(), LoadBalancerIPs: list()}
}
