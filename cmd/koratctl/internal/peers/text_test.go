package peers

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/koratnet/korat/felix/peering"
)

func ptr[T any](v T) *T { return &v }

func TestTableOfSessions(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	got := Sessions([]peering.Line{
		{Node: "a2", Session: &peering.Session{Peer: "bgppeer/tor-a", Address: "10.0.0.1", AS: 65001, State: "Established", Since: ptr(now.Add(-90 * time.Second)), Received: 5, Accepted: 4, Advertised: 3, BFD: "Up", Error: "hold timer expired"}},
		{Node: "a1", Session: &peering.Session{Peer: "bgppeer/tor-a", Address: "10.0.0.1", AS: 65001, State: "Established", Since: ptr(now.Add(-time.Hour))}},
		{Node: "a1", Session: &peering.Session{Peer: "nodenetwork/a2", Address: "10.0.0.12", AS: 64512, State: "Idle", Error: "connection refused"}},
	}, now)
	want := strings.TrimPrefix(`
NODE  PEER            ADDRESS    AS     STATE        FOR     RECEIVED  ACCEPTED  ADVERTISED  BFD  PROBLEM
a1    nodenetwork/a2  10.0.0.12  64512  Idle         -       0         0         0           -    connection refused
a1    bgppeer/tor-a   10.0.0.1   65001  Established  1h0m0s  0         0         0           -
a2    bgppeer/tor-a   10.0.0.1   65001  Established  1m30s   5         4         3           Up
`, "\n")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

var lines = []peering.Line{
	{Node: "a1", Entry: &peering.Entry{Prefix: "10.244.1.0/26", Kind: "via", NextHops: []string{"10.0.0.1", "10.0.0.2"}}},
	{Node: "a1", Route: &peering.Route{Peer: "bgppeer/tor", Prefix: "10.244.1.0/26", NextHop: "10.0.0.1", ASPath: []uint32{65001, 65002}, Communities: []string{"65000:7"}, LocalPreference: ptr[uint32](200), MED: ptr[uint32](0), Best: true, Stale: true}},
	{Node: "a1", Route: &peering.Route{Peer: "bgppeer/tor", Prefix: "10.244.1.7/32", Rejected: "filter x rule 2"}},
	{Node: "b1", Route: &peering.Route{Prefix: "10.244.1.0/26", Best: true}},
	{Node: "b1", Route: &peering.Route{Peer: "bgppeer/tor", Told: true, Prefix: "10.244.1.0/26", NextHop: "10.0.0.9"}},
	{Node: "b1", Route: &peering.Route{Peer: "bgppeer/tor2", Told: true, Prefix: "10.244.1.0/26", Rejected: "filter y rule 0"}},
	{Node: "b1", Entry: &peering.Entry{Prefix: "10.244.1.0/26", Kind: "unreachable"}},
	{Node: "c1", Route: &peering.Route{Peer: "bgppeer/tor", Prefix: "10.244.1.0/26", Best: true}},
}

func TestTableOfRoutes(t *testing.T) {
	var routes []peering.Line
	for _, l := range lines {
		if l.Route != nil {
			routes = append(routes, l)
		}
	}
	want := strings.TrimPrefix(`
NODE  PREFIX         WAY   PEER          NEXT HOP  AS PATH      PREF  MED  COMMUNITIES  USE
a1    10.244.1.0/26  from  bgppeer/tor   10.0.0.1  65001 65002  200   0    65000:7      best, stale
a1    10.244.1.7/32  from  bgppeer/tor   -         -            -     -    -            rejected: filter x rule 2
b1    10.244.1.0/26  own   -             -         -            -     -    -            best
b1    10.244.1.0/26  to    bgppeer/tor   10.0.0.9  -            -     -    -            told
b1    10.244.1.0/26  to    bgppeer/tor2  -         -            -     -    -            rejected: filter y rule 0
c1    10.244.1.0/26  from  bgppeer/tor   -         -            -     -    -            best
`, "\n")
	if diff := cmp.Diff(want, Routes(routes)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestExplanation(t *testing.T) {
	want := strings.TrimPrefix(`
node a1: 10.244.1.7
  kernel: 10.244.1.0/26 via 10.0.0.1, 10.0.0.2
  bgppeer/tor says 10.244.1.0/26, next hop 10.0.0.1, AS path 65001 65002, preference 200, MED 0, communities 65000:7, best, stale
  bgppeer/tor says 10.244.1.7/32, rejected: filter x rule 2
node b1: 10.244.1.7
  10.244.1.0/26 is announced by this node
  10.244.1.0/26 is told to bgppeer/tor, next hop 10.0.0.9
  10.244.1.0/26 is kept from bgppeer/tor2: filter y rule 0
  kernel: 10.244.1.0/26 is a block of this node: addresses without a pod are unreachable
node c1: 10.244.1.7
  bgppeer/tor says 10.244.1.0/26, best
  kernel: no route of Korat's: the prefix is in no IPPool, no range of services and none of learnedRanges, or it is of a block of this node
`, "\n")
	if diff := cmp.Diff(want, Explain("10.244.1.7", lines)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := Explain("192.0.2.1", nil); got != "no node has a route to 192.0.2.1, and no peer says one\n" {
		t.Errorf("of nothing it says %q", got)
	}
}
