package peering_test

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/felix/ask"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/peering"
)

// speaker knows what it says.
type speaker struct {
	sessions []bgp.Session
	routes   []bgp.Route
}

func (s *speaker) Sessions(context.Context) ([]bgp.Session, error) { return s.sessions, nil }

func (s *speaker) Routes(_ context.Context, which bgp.Routes) (out []bgp.Route, _ error) {
	for _, r := range s.routes {
		if which.Wants(r) {
			out = append(out, r)
		}
	}
	return out, nil
}

func ptr[T any](v T) *T { return &v }

// answersOf serves d and returns what it answers.
func answersOf(t *testing.T, d *peering.Desk, q peering.Question) (lines []peering.Line, err error) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	dir, ended := t.TempDir(), make(chan error, 1)
	go func() { ended <- d.Serve(ctx, dir) }()
	defer func() { stop(); <-ended }()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		answer, err := peering.Open(t.Context(), peering.SocketIn(dir), q)
		if err != nil && strings.Contains(err.Error(), "connect:") && time.Now().Before(deadline) {
			continue // it does not listen yet
		}
		if err != nil {
			return nil, err
		}
		defer answer.Close()
		err = ask.Read(answer, func(l peering.Line) error {
			lines = append(lines, l)
			return nil
		})
		return lines, err
	}
}

func desk() *peering.Desk {
	d := peering.NewDesk("a1", &speaker{
		sessions: []bgp.Session{{Peer: "bgppeer/tor", Addr: netip.MustParseAddr("10.0.0.1"), ASN: 65001, Established: true, State: "Established", Received: 3, Accepted: 1, BFD: "Up"}},
		routes: []bgp.Route{
			{Peer: "bgppeer/tor", Prefix: netip.MustParsePrefix("10.244.1.0/26"), NextHop: netip.MustParseAddr("10.0.0.1"), ASPath: []uint32{65001, 65002}, Communities: []bgp.Community{65000<<16 | 7}, LargeCommunities: []bgp.LargeCommunity{{Global: 1, Local1: 2, Local2: 3}}, LocalPref: ptr[uint32](200), Best: true},
			{Peer: "bgppeer/tor", Prefix: netip.MustParsePrefix("10.244.1.7/32"), NextHop: netip.MustParseAddr("10.0.0.1"), Rejected: "filter x rule 2"},
			{Peer: "bgppeer/tor", Told: true, Prefix: netip.MustParsePrefix("10.244.0.0/26")},
			{Peer: "bgppeer/tor", Prefix: netip.MustParsePrefix("192.0.2.0/24")},
		},
	})
	d.Note(desired.Delta{
		Closed: &[]bgp.Session{{Peer: "bgppeer/b", State: "Idle", LastError: "no filter"}},
		Pools:  &[]netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")},
		Routes: map[netip.Prefix]*desired.Route{
			netip.MustParsePrefix("10.244.1.0/26"): {Prefix: netip.MustParsePrefix("10.244.1.0/26"), Kind: desired.Via, NextHops: []netip.Addr{netip.MustParseAddr("10.0.0.1")}},
			netip.MustParsePrefix("10.244.9.0/26"): {Prefix: netip.MustParsePrefix("10.244.9.0/26"), Kind: desired.Unreachable},
		},
	})
	return d
}

func TestAnswers(t *testing.T) {
	learnt := peering.Line{Node: "a1", Route: &peering.Route{
		Peer: "bgppeer/tor", Prefix: "10.244.1.0/26", NextHop: "10.0.0.1", ASPath: []uint32{65001, 65002}, Communities: []string{"65000:7", "1:2:3"},
		LocalPreference: ptr[uint32](200), Best: true,
	}}
	rejected := peering.Line{Node: "a1", Route: &peering.Route{Peer: "bgppeer/tor", Prefix: "10.244.1.7/32", NextHop: "10.0.0.1", Rejected: "filter x rule 2"}}
	for name, c := range map[string]struct {
		question peering.Question
		want     []peering.Line
	}{
		"peers, and those that cannot be": {peering.Question{What: peering.Peers}, []peering.Line{
			{Node: "a1", Session: &peering.Session{Peer: "bgppeer/tor", Address: "10.0.0.1", AS: 65001, State: "Established", Received: 3, Accepted: 1, BFD: "Up"}},
			{Node: "a1", Session: &peering.Session{Peer: "bgppeer/b", State: "Idle", Error: "no filter"}},
		}},
		"routes inside of a prefix": {peering.Question{What: peering.Routes, Prefix: netip.MustParsePrefix("10.244.1.0/24")}, []peering.Line{learnt, rejected}},
		"routes of nobody":          {peering.Question{What: peering.Routes, Peer: "bgppeer/x"}, nil},
		"what contains an address and is in the kernel": {peering.Question{What: peering.Explain, Prefix: netip.MustParsePrefix("10.244.1.7/32")}, []peering.Line{
			{Node: "a1", Entry: &peering.Entry{Prefix: "10.244.1.0/26", Kind: "via", NextHops: []string{"10.0.0.1"}}}, learnt, rejected,
		}},
		"what is in no pool": {peering.Question{What: peering.Explain, Prefix: netip.MustParsePrefix("192.0.2.1/32")}, []peering.Line{
			{Node: "a1", Route: &peering.Route{Peer: "bgppeer/tor", Prefix: "192.0.2.0/24"}},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := answersOf(t, desk(), c.question)
			if diff := cmp.Diff(c.want, got); diff != "" || err != nil {
				t.Errorf("%v, (-want +got):\n%s", err, diff)
			}
		})
	}
	if _, err := answersOf(t, desk(), peering.Question{What: "secrets"}); err == nil || !strings.Contains(err.Error(), "expected peers, routes or explain") {
		t.Errorf("asked for something else it says %v", err)
	}
	if _, err := answersOf(t, desk(), peering.Question{What: peering.Explain}); err == nil || !strings.Contains(err.Error(), "no prefix is named") {
		t.Errorf("asked for no prefix it says %v", err)
	}
}
