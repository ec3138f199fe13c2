package controller

import (
	"fmt"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	koratv1 "github.com/koratnet/korat/api/v1"
)

func filterNamed(name string, minLength int32) koratv1.BGPFilter {
	return koratv1.BGPFilter{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: koratv1.BGPFilterSpec{Import: []koratv1.BGPFilterRule{
		{Action: koratv1.FilterAccept, Prefixes: []koratv1.PrefixMatch{{CIDR: "10.0.0.0/8", MinLength: &minLength}}},
	}}}
}

func TestFiltersOfAPeer(t *testing.T) {
	const invalid = "spec.import[0].prefixes[0].minLength: 7: expected a length of prefixes inside 10.0.0.0/8, 8 to 32"
	for filter, want := range map[string]string{
		"good":    "True Accepted",
		"broken":  `False UnknownFilter: spec.filters[0]: BGPFilter "broken" is not accepted, so that there is no session: ` + invalid,
		"missing": `False UnknownFilter: spec.filters[0]: "missing": expected the name of a BGPFilter; there is no session until there is one`,
	} {
		p := peer("tor", "10.1.0.1", "")
		p.Spec.Filters = []string{filter}
		s := peerStatus(&p, surroundings{filters: []koratv1.BGPFilter{filterNamed("good", 8), filterNamed("broken", 7)}})
		if got := brief(s.Conditions, koratv1.ConditionAccepted); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	p, broken := peer("tor", "10.1.0.1", ""), filterNamed("broken", 7)
	p.Spec.Filters = []string{"broken"}
	s := filterStatus(&broken, []koratv1.BGPPeer{p, peer("other", "10.1.0.2", "")})
	if got := brief(s.Conditions, koratv1.ConditionAccepted); got != "False Invalid: "+invalid || s.Peers != 1 {
		t.Errorf("got %s, %d peers", got, s.Peers)
	}
}

func TestNodesThatAreThePeer(t *testing.T) {
	up, down := session("bgppeer/x", "Established", ""), session("bgppeer/x", "Active", "connection refused")
	for name, c := range map[string]struct {
		nodes, peers string
		all          []node
		want         string
	}{
		"both sides count":             {"rack == 'a'", "rack == 'b'", []node{inRack("a1", "a", up), inRack("b1", "b", up), inRack("c1", "c")}, "2/2 True AllEstablished"},
		"every session counts":         {"rack == 'a'", "rack == 'b'", []node{inRack("a1", "a", up, down), inRack("b1", "b", up), inRack("b2", "b", up)}, "2/3 False SessionsDown: node a1: 10.1.0.1 is Active: connection refused"},
		"nobody on the other side":     {"rack == 'a'", "rack == 'x'", []node{inRack("a1", "a")}, `0/0 False NoSessions: spec.nodeSelector: "rack == 'a'" chooses no node that has a peer among spec.peerSelector: "rack == 'x'"`},
		"a node alone on both sides":   {"", "all()", []node{inRack("a1", "a")}, `0/0 False NoSessions: spec.nodeSelector: "" chooses no node that has a peer among spec.peerSelector: "all()"`},
		"two nodes, each both's other": {"", "all()", []node{inRack("a1", "a", up), inRack("a2", "a", up)}, "2/2 True AllEstablished"},
	} {
		t.Run(name, func(t *testing.T) {
			p := peer("x", "", c.nodes)
			p.Spec.PeerSelector = c.peers
			s := peerStatus(&p, surroundings{nodes: c.all})
			if got := s.Sessions + " " + brief(s.Conditions, koratv1.ConditionEstablished); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestStatusOfAnAdvertisement(t *testing.T) {
	peers := []koratv1.BGPPeer{peer("tor-a", "10.1.0.1", ""), peer("tor-b", "10.1.0.2", "")}
	peers[1].Labels = map[string]string{"role": "border"}
	pools := []koratv1.IPPool{{ObjectMeta: metav1.ObjectMeta{Name: "pods"}}}
	nodes := []node{inRack("a1", "a"), inRack("b1", "b")}
	for name, c := range map[string]struct {
		spec koratv1.BGPAdvertisementSpec
		want string // nodes, peers and the Accepted condition
	}{
		"to all":          {koratv1.BGPAdvertisementSpec{Pools: []string{"pods"}}, "2 2 True Accepted"},
		"by name":         {koratv1.BGPAdvertisementSpec{PeerSelector: "korat.dev/name == 'tor-a'", NodeSelector: "rack == 'b'"}, "1 1 True Accepted"},
		"by label":        {koratv1.BGPAdvertisementSpec{PeerSelector: "role == 'border'"}, "2 1 True Accepted"},
		"of no such pool": {koratv1.BGPAdvertisementSpec{Pools: []string{"pods", "x"}}, `2 2 False UnknownPool: spec.pools[1]: "x": expected the name of an IPPool; all else is announced`},
		"a community that is none": {
			koratv1.BGPAdvertisementSpec{Communities: []koratv1.Community{"70000:1"}},
			`0 0 False Invalid: spec.communities: "70000:1": expected a community such as 65000:120 or 65000:1:120`,
		},
		"a selector that does not parse": {koratv1.BGPAdvertisementSpec{PeerSelector: "rack =="}, `0 0 False InvalidSelector: spec.peerSelector: "rack ==": column 8: expected a string in quotes, found the end`},
	} {
		t.Run(name, func(t *testing.T) {
			s := advertisementStatus(&koratv1.BGPAdvertisement{Spec: c.spec}, peers, pools, nodes)
			if got := fmt.Sprintf("%d %d %s", s.Nodes, s.Peers, brief(s.Conditions, koratv1.ConditionAccepted)); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}
