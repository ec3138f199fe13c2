package watch

import (
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/bgp/convert"
	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/policy/selector"
)

func nodeNetwork(obj any) (string, event.Value) {
	o := obj.(*koratv1.NodeNetwork)
	v := &event.NodeNetwork{Name: o.Name, ASN: uint32(o.Spec.ASNumber)}
	if r := o.Spec.Reflection; r != nil {
		v.Group, _ = netip.ParseAddr(r.ClusterID)
		v.Reflector = r.Role == koratv1.RoleReflector && v.Group.IsValid()
	}
	v.WireGuard = wireGuardEnds(o.Status.WireGuard)
	return o.Name, v
}

// bgpPeer: no session rather than one with a neighbour nobody named.
func bgpPeer(obj any) (string, event.Value) {
	o := obj.(*koratv1.BGPPeer)
	v := &event.Peer{
		Name: o.Name, Labels: convert.PeerLabels(o), Session: convert.Session(&o.Spec), Password: secretKey(o.Spec.Password),
		FromNode: o.Spec.SourceAddress != koratv1.SourceNone, Filters: o.Spec.Filters,
	}
	var err error
	if v.Nodes, err = selector.Parse(o.Spec.NodeSelector); err != nil {
		return o.Name, nil
	}
	switch {
	case o.Spec.PeerSelector != "":
		v.Session.Addr, v.Session.Interface = netip.Addr{}, ""
		if v.Others, err = selector.Parse(o.Spec.PeerSelector); err != nil {
			return o.Name, nil
		}
	case !v.Session.Addr.IsValid() && v.Session.Interface == "":
		return o.Name, nil
	}
	if o.Spec.ReachableBy != "" {
		if v.Gateway, err = netip.ParseAddr(string(o.Spec.ReachableBy)); err != nil {
			return o.Name, nil
		}
	}
	return o.Name, v
}

func secretKey(k *koratv1.SecretKey) *event.SecretKey {
	if k == nil {
		return nil
	}
	return &event.SecretKey{Secret: k.Name, Key: k.Key}
}

// secret: a line end behind a password is of the file that it was made from.
func secret(obj any) (string, event.Value) {
	o := obj.(*corev1.Secret)
	v := &event.Secret{Name: o.Name, Values: make(map[string]bgp.Password, len(o.Data))}
	for key, value := range o.Data {
		v.Values[key] = bgp.Password(strings.TrimRight(string(value), "\r\n"))
	}
	return o.Name, v
}

func bgpFilter(obj any) (string, event.Value) {
	f, problem := convert.Filter(obj.(*koratv1.BGPFilter))
	return f.Name, &event.Filter{Filter: f, Problem: problem}
}

// bgpAdvertisement: one that is not understood is told to nobody.
func bgpAdvertisement(obj any) (string, event.Value) {
	o := obj.(*koratv1.BGPAdvertisement)
	s := &o.Spec
	v := &event.Advertisement{
		Name: o.Name, Pools: s.Pools, PoolRoutes: poolRoutes(s.PoolRoutes), Prefixes: prefixesOf(s.Prefixes),
	}
	v.LocalPref, v.MED = convert.Number(s.LocalPreference), convert.Number(s.MED)
	var problem string
	v.Communities, v.LargeCommunities, problem = convert.Communities(s.Communities)
	var errNodes, errPeers, errServices error
	v.Nodes, errNodes = selector.Parse(s.NodeSelector)
	v.Peers, errPeers = selector.Parse(s.PeerSelector)
	if s.Services != nil {
		v.Services, errServices = advertisedServices(s)
	}
	if problem != "" || errNodes != nil || errPeers != nil || errServices != nil {
		return o.Name, nil
	}
	return o.Name, v
}

func poolRoutes(list []koratv1.PoolRoutes) (kinds bgp.Advertise) {
	if len(list) == 0 {
		return bgp.Blocks
	}
	for _, r := range list {
		switch r {
		case koratv1.PoolBlocks:
			kinds |= bgp.Blocks
		case koratv1.PoolHosts:
			kinds |= bgp.Hosts
		}
	}
	return kinds
}

func advertisedServices(s *koratv1.BGPAdvertisementSpec) (*event.AdvertisedServices, error) {
	v := &event.AdvertisedServices{Length4: 32, Length6: 128}
	if s.AggregationLength != 0 {
		v.Length4 = int(s.AggregationLength)
	}
	if s.AggregationLengthV6 != 0 {
		v.Length6 = int(s.AggregationLengthV6)
	}
	for _, a := range s.Services.Addresses {
		switch a {
		case koratv1.ServiceClusterIPs:
			v.ClusterIPs = true
		case koratv1.ServiceExternalIPs:
			v.ExternalIPs = true
		case koratv1.ServiceLoadBalancerIPs:
			v.LoadBalancerIPs = true
		}
	}
	var err error
	v.Labels, err = selector.Parse(s.Services.Selector)
	return v, err
}

// bgpDefaults hold while there is no BGPConfiguration. The schema gives an object
// that leaves fields out the same values.
var bgpDefaults = &event.BGP{
	ASN: uint32(koratv1.DefaultASNumber), Mesh: true, ListenPort: koratv1.DefaultBGPPort, RestartTime: koratv1.DefaultRestartTime,
	RouteTable: koratv1.DefaultRouteTable,
}

func bgpConfiguration(obj any) (string, event.Value) {
	o := obj.(*koratv1.BGPConfiguration)
	if o.Name != koratv1.BGPConfigurationName {
		return o.Name, nil
	}
	return o.Name, &event.BGP{
		ASN: uint32(o.Spec.ASNumber), Mesh: o.Spec.NodeToNodeMesh != koratv1.MeshDisabled,
		ListenPort:  uint16(o.Spec.ListenPort),
		RestartTime: convert.Duration(o.Spec.GracefulRestart.RestartTime, koratv1.DefaultRestartTime),
		LongLived:   convert.Duration(o.Spec.GracefulRestart.LongLivedStaleTime, 0),
		Password:    secretKey(o.Spec.MeshPassword), Reflectors: reflectors(o.Spec.Reflectors),
		DrainCordoned: o.Spec.DrainOn == koratv1.DrainOnCordon,
		Services:      serviceRanges(&o.Spec), Learn: prefixesOf(o.Spec.LearnedRanges),
		RouteTable: uint32(o.Spec.KernelRoutes.Table), RouteMetric: uint32(o.Spec.KernelRoutes.Metric),
	}
}

// reflectors: a selector that does not parse chooses none.
func reflectors(r *koratv1.Reflectors) *event.Reflectors {
	if r == nil {
		return nil
	}
	v := &event.Reflectors{Automatic: r.PerZone > 0}
	var err error
	if v.Nodes, err = selector.Parse(r.NodeSelector); err != nil {
		v.Nodes = selector.Not(selector.All())
	}
	id := r.ClusterID
	if id == "" {
		id = koratv1.DefaultClusterID
	}
	v.ClusterID, _ = netip.ParseAddr(id)
	return v
}
