package calc_test

import (
	"net/netip"
	"slices"
	"time"

	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/policy/selector"
)

// cluster is mostly a mesh.
func (d dice) cluster() (string, event.Value) {
	c := &event.BGP{
		ASN: pick[uint32](d, 64512, 64513), Mesh: d.chance(80), ListenPort: pick[uint16](d, 179, 1179),
		RestartTime: 120 * time.Second, DrainCordoned: d.chance(50), Password: d.password(),
		Services: d.serviceRanges(), Learn: d.nets(),
		RouteTable: pick[uint32](d, 0, 254, 200), RouteMetric: pick[uint32](d, 0, 50),
	}
	if d.chance(40) {
		c.Reflectors = &event.Reflectors{Automatic: d.chance(50), Nodes: d.selector(), ClusterID: netip.MustParseAddr("244.0.0.1")}
	}
	return "default", c
}

func (d dice) password() *event.SecretKey {
	if d.chance(70) {
		return nil
	}
	return &event.SecretKey{Secret: pick(d, "one", "two"), Key: pick(d, "a", "b")}
}

// ofBGP is one of the smaller things of BGP.
func (d dice) ofBGP() (string, event.Value) {
	switch d.IntN(5) {
	case 0:
		return d.network()
	case 1:
		return d.secret()
	case 2:
		return d.filter()
	case 3:
		return d.advertisement()
	}
	return d.peer()
}

func (d dice) network() (string, event.Value) {
	n := &event.NodeNetwork{Name: pick(d, "me", "n1", "n2"), ASN: pick[uint32](d, 0, 64512, 64999)}
	if d.chance(50) {
		n.Group, n.Reflector = netip.MustParseAddr(pick(d, "244.0.0.1", "244.0.0.2")), d.chance(50)
	}
	n.WireGuard = d.ends()
	return n.Name, n
}

func (d dice) secret() (string, event.Value) {
	s := &event.Secret{Name: pick(d, "one", "two"), Values: map[string]bgp.Password{}}
	for _, k := range []string{"a", "b"} {
		if d.chance(60) {
			s.Values[k] = pick[bgp.Password](d, "x", "y")
		}
	}
	return s.Name, s
}

func (d dice) filter() (string, event.Value) {
	f := &event.Filter{Filter: bgp.Filter{Name: pick(d, "f", "g")}}
	if d.chance(60) {
		f.Import = []bgp.FilterRule{{Accept: d.chance(50)}}
	}
	if d.chance(60) {
		f.Export = []bgp.FilterRule{{Accept: d.chance(50)}}
	}
	f.Problem = pick(d, "", "", "wrong")
	return f.Name, f
}

func (d dice) advertisement() (string, event.Value) {
	a := &event.Advertisement{
		Name: pick(d, "x", "y"), Nodes: pick(d, nil, d.selector()), Peers: pick(d, nil, d.selector()),
		PoolRoutes: pick(d, bgp.Blocks, bgp.Hosts, bgp.Blocks|bgp.Hosts),
		Attributes: bgp.Attributes{Communities: pick(d, nil, []bgp.Community{1})},
	}
	for _, pool := range []string{"v4", "v6", "half"} {
		if d.chance(40) {
			a.Pools = append(a.Pools, pool)
		}
	}
	if d.chance(40) {
		a.Prefixes = append(a.Prefixes, netip.MustParsePrefix(pick(d, "192.0.2.0/24", "10.0.0.0/30", "198.51.100.7/32")))
	}
	if d.chance(50) {
		a.Services = &event.AdvertisedServices{
			Labels: pick(d, nil, d.selector()), ClusterIPs: d.chance(50), ExternalIPs: d.chance(50), LoadBalancerIPs: d.chance(50),
			Length4: pick(d, 32, 32, 24), Length6: 128,
		}
	}
	return a.Name, a
}

func (d dice) peer() (string, event.Value) {
	p := &event.Peer{Name: pick(d, "tor", "tor2", "rr"), Labels: d.labels(50), Nodes: d.selector(), FromNode: d.chance(80), Password: d.password()}
	p.Session = bgp.Peer{
		Port: 179, ASN: pick[uint32](d, 64512, 65000), Families: pick(d, 0, 0, bgp.IPv4, bgp.IPv4|bgp.IPv6),
		Advertise: pick(d, bgp.Blocks, bgp.Hosts, bgp.Blocks|bgp.Hosts), Hold: 90 * time.Second, Keepalive: 30 * time.Second,
	}
	switch d.IntN(5) {
	case 0:
		p.Session.Interface = pick(d, "eth0", "eth1")
	case 1:
		p.Others, p.Session.ASN = pick(d, selector.All(), d.selector()), 0
	default:
		p.Session.Addr = netip.MustParseAddr(pick(d, "172.16.0.1", "172.16.0.2", "172.16.0.9", "fd00:16::9", "10.0.0.2"))
		if d.chance(30) {
			p.Gateway = netip.MustParseAddr(pick(d, "172.16.9.8", "172.16.9.9"))
		}
	}
	for _, f := range []string{"f", "g"} {
		if d.chance(30) {
			p.Filters = append(p.Filters, f)
		}
	}
	slices.Reverse(p.Filters)
	return p.Name, p
}
