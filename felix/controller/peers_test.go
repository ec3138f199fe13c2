package controller

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/policy/selector"
)

func peer(name, address, nodes string) koratv1.BGPPeer {
	return koratv1.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: koratv1.BGPPeerSpec{Address: address, NodeSelector: nodes, ASNumber: 65001}}
}

func inRack(name, rack string, sessions ...koratv1.SessionStatus) node {
	return node{name, selector.MakeLabels(map[string]string{"rack": rack}), sessions}
}

func session(peer, state, lastError string) koratv1.SessionStatus {
	return koratv1.SessionStatus{Peer: peer, Address: "10.1.0.1", State: koratv1.SessionState(state), LastError: lastError}
}

func TestSessionsOfAPeer(t *testing.T) {
	up := session("bgppeer/tor", "Established", "")
	for name, c := range map[string]struct {
		nodes []node
		want  string // sessions and the Established condition
	}{
		"every node has one":              {[]node{inRack("b", "a", up), inRack("a", "a", up), inRack("c", "x")}, "2/2 True AllEstablished"},
		"one was refused":                 {[]node{inRack("b", "a", session("bgppeer/tor", "Active", "connection refused")), inRack("a", "a", up)}, "1/2 False SessionsDown: node b: 10.1.0.1 is Active: connection refused"},
		"one is on its way":               {[]node{inRack("a", "a", session("bgppeer/tor", "OpenSent", ""))}, "0/1 False SessionsDown: node a: 10.1.0.1 is OpenSent"},
		"one's agent is silent":           {[]node{inRack("a", "a")}, "0/1 False SessionsDown: node a: its agent reports no such session"},
		"sessions of others do not count": {[]node{inRack("a", "a", session("bgppeer/tor2", "Established", ""), session("nodenetwork/tor", "Established", ""))}, "0/1 False SessionsDown: node a: its agent reports no such session"},
		"several are down":                {[]node{inRack("c", "a"), inRack("b", "a"), inRack("a", "a", up)}, "1/3 False SessionsDown: 2 nodes have no session, among them node b: its agent reports no such session"},
		"no node is chosen":               {[]node{inRack("a", "x", up)}, `0/0 False NoSessions: spec.nodeSelector: "rack == 'a'" chooses no node`},
	} {
		t.Run(name, func(t *testing.T) {
			p := peer("tor", "10.1.0.1", "rack == 'a'")
			s := peerStatus(&p, surroundings{[]koratv1.BGPPeer{p}, nil, c.nodes})
			if got := s.Sessions + " " + brief(s.Conditions, koratv1.ConditionEstablished); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			if got := brief(s.Conditions, koratv1.ConditionAccepted); got != "True Accepted" {
				t.Errorf("got %s", got)
			}
		})
	}
}

func TestAcceptanceOfAPeer(t *testing.T) {
	nodes := []node{inRack("a1", "a"), inRack("b1", "b")}
	const lost = `False Conflict: spec.address: "10.1.0.1": BGPPeer %s asks node %s for a session with it too and goes first: expected one BGPPeer for each on a node`
	expect := func(peer, node string) string {
		return strings.Replace(strings.Replace(lost, "%s", peer, 1), "%s", node, 1)
	}
	for name, c := range map[string]struct {
		peer   koratv1.BGPPeer
		others []koratv1.BGPPeer
		want   string
	}{
		"the same address on other nodes": {peer("t", "10.1.0.1", "rack == 'a'"), []koratv1.BGPPeer{peer("s", "10.1.0.1", "rack == 'b'")}, "True Accepted"},
		"another address on the same":     {peer("t", "10.1.0.1", ""), []koratv1.BGPPeer{peer("s", "10.1.0.2", "")}, "True Accepted"},
		"the greater name gives way":      {peer("t", "10.1.0.1", ""), []koratv1.BGPPeer{peer("s", "10.1.0.1", "rack == 'b'")}, expect("s", "b1")},
		"the smaller name goes first":     {peer("r", "10.1.0.1", ""), []koratv1.BGPPeer{peer("s", "10.1.0.1", "rack == 'b'")}, "True Accepted"},
		"a broken one takes no address":   {peer("t", "10.1.0.1", ""), []koratv1.BGPPeer{peer("s", "10.1.0.1", "rack ==")}, "True Accepted"},
		"its own selector is broken":      {peer("t", "10.1.0.1", "rack =="), nil, `False InvalidSelector: spec.nodeSelector: "rack ==": column 8: expected a string in quotes, found the end`},
	} {
		t.Run(name, func(t *testing.T) {
			s := peerStatus(&c.peer, surroundings{append(c.others, c.peer), nil, nodes})
			if got := brief(s.Conditions, koratv1.ConditionAccepted); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestTheCacheKeepsWhatTheLoopsRead(t *testing.T) {
	n := &koratv1.NodeNetwork{ObjectMeta: metav1.ObjectMeta{Name: "a", Annotations: map[string]string{"x": "y"}, ManagedFields: []metav1.ManagedFieldsEntry{{}}}}
	up := session("bgppeer/tor", "Established", "")
	counted := up
	counted.Received, counted.Since = 7, &metav1.Time{}
	n.Status = koratv1.NodeNetworkStatus{Backend: "iptables", Sessions: []koratv1.SessionStatus{session("nodenetwork/b", "Active", ""), counted}}
	got, err := slim(n)
	if err != nil {
		t.Fatal(err)
	}
	want := &koratv1.NodeNetwork{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Status: koratv1.NodeNetworkStatus{Sessions: []koratv1.SessionStatus{up}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestStatusOfANodeConfiguration(t *testing.T) {
	nodes := []node{inRack("a1", "a"), inRack("a2", "a"), inRack("b1", "b")}
	for selector, want := range map[string]string{
		"":            "3 True Accepted",
		"rack == 'a'": "2 True Accepted",
		"rack == 'x'": "0 True Accepted",
		"rack ==":     `0 False InvalidSelector: spec.nodeSelector: "rack ==": column 8: expected a string in quotes, found the end`,
	} {
		s := nodeConfigurationStatus(&koratv1.NodeConfiguration{Spec: koratv1.NodeConfigurationSpec{NodeSelector: selector}}, nodes)
		if got := fmt.Sprint(s.Nodes) + " " + brief(s.Conditions, koratv1.ConditionAccepted); got != want {
			t.Errorf("selector %q:\ngot  %s\nwant %s", selector, got, want)
		}
	}
}
