package status_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/felix/status"
)

func TestMetricsOfSessions(t *testing.T) {
	reg := prometheus.NewRegistry()
	b := status.New(reg)
	b.SetSessions([]bgp.Session{{Peer: "bgppeer/old", Established: true}})
	b.SetSessions([]bgp.Session{
		{Peer: "bgppeer/tor-a", Established: true, Received: 5, Accepted: 3, Advertised: 2},
		{Peer: "bgppeer/tor-b"},
		{Peer: "nodenetwork/n1", Established: true, Received: 1, Accepted: 1, Advertised: 1},
		{Peer: "nodenetwork/n2"},
		{Peer: "nodenetwork/n3"},
	})
	got := gather(t, reg)
	for name := range got {
		if len(name) < 9 || name[:9] != "korat_bgp" {
			delete(got, name)
		}
	}
	want := map[string]float64{
		"korat_bgp_sessions bgppeer established": 1, "korat_bgp_sessions bgppeer down": 1,
		"korat_bgp_sessions node established": 1, "korat_bgp_sessions node down": 2,
		"korat_bgp_prefixes received bgppeer": 5, "korat_bgp_prefixes accepted bgppeer": 3, "korat_bgp_prefixes advertised bgppeer": 2,
		"korat_bgp_prefixes received node": 1, "korat_bgp_prefixes accepted node": 1, "korat_bgp_prefixes advertised node": 1,
		"korat_bgp_peer_up tor-a": 1, "korat_bgp_peer_up tor-b": 0,
		"korat_bgp_peer_accepted_prefixes tor-a": 3, "korat_bgp_peer_accepted_prefixes tor-b": 0,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
}

func TestMetricsOfPeersAreBounded(t *testing.T) {
	reg := prometheus.NewRegistry()
	b := status.New(reg)
	var all []bgp.Session
	for i := range 500 {
		all = append(all, bgp.Session{Peer: fmt.Sprintf("bgppeer/p%d", i)})
	}
	b.SetSessions(all)
	if n := len(gather(t, reg)); n > 100 {
		t.Errorf("%d metrics of 500 peers", n)
	}
}
