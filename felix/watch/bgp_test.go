package watch

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/policy/selector"
)

func TestABGPPeerIsConvertedWhole(t *testing.T) {
	name, v := bgpPeer(&koratv1.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: "tor", Labels: map[string]string{"role": "border"}}, Spec: koratv1.BGPPeerSpec{
		NodeSelector: "rack == 'a'", Address: "192.168.1.1", Port: 179, ASNumber: 65001, SourceAddress: koratv1.SourceNone,
		Password: &koratv1.SecretKey{Name: "korat-bgp", Key: "tor"}, Filters: []string{"b", "a"}, ReachableBy: "192.168.9.1",
	}})
	want := &event.Peer{
		Name: "tor", Labels: selector.MakeLabels(map[string]string{"role": "border", koratv1.PeerNameLabel: "tor"}),
		Nodes: selector.Equals("rack", "a"), Password: &event.SecretKey{Secret: "korat-bgp", Key: "tor"}, Filters: []string{"b", "a"},
		Gateway: netip.MustParseAddr("192.168.9.1"),
		Session: bgp.Peer{Addr: netip.MustParseAddr("192.168.1.1"), Port: 179, ASN: 65001, Hold: 90 * time.Second, Keepalive: 30 * time.Second},
	}
	got := v.(*event.Peer)
	if got.Nodes.String() != want.Nodes.String() {
		t.Errorf("nodes are %s", got.Nodes)
	}
	got.Nodes, want.Nodes = nil, nil
	if diff := cmp.Diff(want, got, byValue); diff != "" || name != "tor" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

func TestABGPPeerThatIsNotUnderstoodIsNone(t *testing.T) {
	for name, spec := range map[string]koratv1.BGPPeerSpec{
		"a node selector that does not parse": {NodeSelector: "rack ==", Address: "192.168.1.1", ASNumber: 1},
		"a peer selector that does not parse": {PeerSelector: "rack =="},
		"an address that is none":             {Address: "tor-a", ASNumber: 1},
		"nobody":                              {},
		"a gateway that is none":              {Address: "192.168.1.1", ReachableBy: "x"},
	} {
		if _, v := bgpPeer(&koratv1.BGPPeer{Spec: spec}); v != nil {
			t.Errorf("%s is %+v", name, v)
		}
	}
	_, v := bgpPeer(&koratv1.BGPPeer{Spec: koratv1.BGPPeerSpec{PeerSelector: "all()", Address: "ignored"}})
	if p := v.(*event.Peer); p.Session.Addr.IsValid() || !p.Others.Matches(selector.Labels{}) || !p.FromNode {
		t.Errorf("nodes as the peer are %+v", p)
	}
}

func TestABGPAdvertisementIsConvertedWhole(t *testing.T) {
	preference, med := int64(4294967295), int64(0)
	spec := koratv1.BGPAdvertisementSpec{
		Pools: []string{"p"}, Prefixes: []koratv1.CIDR{"192.0.2.0/24"}, Communities: []koratv1.Community{"1:2", "1:2:3"},
		LocalPreference: &preference, MED: &med, AggregationLength: 24,
		Services: &koratv1.AdvertisedServices{Addresses: []koratv1.ServiceAddresses{koratv1.ServiceLoadBalancerIPs}},
	}
	_, v := bgpAdvertisement(&koratv1.BGPAdvertisement{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Spec: spec})
	a := v.(*event.Advertisement)
	if a.PoolRoutes != bgp.Blocks || *a.LocalPref != 4294967295 || *a.MED != 0 || a.Communities[0] != 1<<16|2 || a.LargeCommunities[0].Local2 != 3 ||
		!a.Services.LoadBalancerIPs || a.Services.ClusterIPs || a.Services.Length4 != 24 || a.Services.Length6 != 128 || a.Prefixes[0].String() != "192.0.2.0/24" {
		t.Errorf("got %+v with %+v", a, a.Services)
	}
	spec.PoolRoutes = []koratv1.PoolRoutes{koratv1.PoolHosts}
	if _, v := bgpAdvertisement(&koratv1.BGPAdvertisement{Spec: spec}); v.(*event.Advertisement).PoolRoutes != bgp.Hosts {
		t.Errorf("got %+v", v)
	}
	spec.PeerSelector = "rack =="
	if _, v := bgpAdvertisement(&koratv1.BGPAdvertisement{Spec: spec}); v != nil {
		t.Errorf("a selector that does not parse is told to %+v", v)
	}
}

func TestABGPConfigurationIsConvertedWhole(t *testing.T) {
	_, v := bgpConfiguration(&koratv1.BGPConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "default"}, Spec: koratv1.BGPConfigurationSpec{
		ASNumber: 65000, ListenPort: 1179, DrainOn: koratv1.DrainOnCordon, MeshPassword: &koratv1.SecretKey{Name: "s", Key: "k"},
		GracefulRestart: koratv1.GracefulRestart{LongLivedStaleTime: &metav1.Duration{Duration: time.Hour}},
		Reflectors:      &koratv1.Reflectors{NodeSelector: "rack =="},
		KernelRoutes:    koratv1.KernelRoutes{Table: 200, Metric: 50},
	}})
	c := v.(*event.BGP)
	if c.ASN != 65000 || !c.Mesh || c.LongLived != time.Hour || c.RestartTime != koratv1.DefaultRestartTime || !c.DrainCordoned || c.RouteTable != 200 || c.RouteMetric != 50 || *c.Password != (event.SecretKey{Secret: "s", Key: "k"}) {
		t.Errorf("got %+v", c)
	}
	if r := c.Reflectors; r.Automatic || r.ClusterID.String() != koratv1.DefaultClusterID || r.Nodes.Matches(selector.Labels{}) || r.Nodes.Matches(selector.MakeLabels(map[string]string{"rack": "a"})) {
		t.Errorf("a selector that does not parse chooses reflectors: %+v", r)
	}
}

func TestWhatDrainsANode(t *testing.T) {
	for value, want := range map[string]bool{"true": true, "false": false, "": false} {
		_, v := node(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{koratv1.DrainAnnotation: value}}, Spec: corev1.NodeSpec{Unschedulable: want}})
		if n := v.(*event.Node); n.Draining != want || n.Cordoned != want {
			t.Errorf("annotation %q: %+v", value, n)
		}
	}
}

func TestPartOfANodeAmongReflectors(t *testing.T) {
	for cluster, want := range map[string]bool{"244.0.0.1": true, "nonsense": false} {
		_, v := nodeNetwork(&koratv1.NodeNetwork{Spec: koratv1.NodeNetworkSpec{Reflection: &koratv1.Reflection{ClusterID: cluster, Role: koratv1.RoleReflector}}})
		if n := v.(*event.NodeNetwork); n.Reflector != want || n.Group.IsValid() != want {
			t.Errorf("cluster id %q: %+v", cluster, n)
		}
	}
}
