package gobgp_test

import (
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/bgp/gobgp"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
)

func TestPortThatIsTakenIsTriedAgain(t *testing.T) {
	port, err := kerneltest.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.ListenTCP("tcp4", &net.TCPAddr{Port: int(port)})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	s := gobgp.New(gobgp.Options{Log: slog.New(slog.DiscardHandler)})
	c := bgp.Config{
		ASN: speakerAS, RouterID: speakerAddr, ListenPort: port,
		Peers: []bgp.Peer{{Name: "p", Addr: neighbourAddr, Port: 179, ASN: 1, LocalAddr: speakerAddr, Passive: true}},
	}
	if err := s.Configure(t.Context(), c); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Fatalf("configure on a port that is taken: %v", err)
	}
	ln.Close()
	if err := s.Configure(t.Context(), c); err != nil {
		t.Fatalf("configure on a free port: %v", err)
	}
	if all, err := s.Sessions(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("sessions %+v, %v; want 1", all, err)
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
}

func TestRefusesWhatWouldHurt(t *testing.T) {
	s := gobgp.New(gobgp.Options{Log: slog.New(slog.DiscardHandler)})
	good := bgp.Peer{Name: "p", Addr: neighbourAddr, Port: 179, ASN: 1, LocalAddr: speakerAddr}
	for name, tc := range map[string]struct {
		change func(*bgp.Peer)
		want   string
	}{
		"loopback as next hop": {func(p *bgp.Peer) { p.Addr = netip.MustParseAddr("192.0.2.1") }, "a loopback address is no next hop"},
		"families differ":      {func(p *bgp.Peer) { p.LocalAddr = netip.IPv6Loopback() }, "want one of the family"},
		"short hold time":      {func(p *bgp.Peer) { p.Hold = time.Second }, "want at least 3s"},
		"no AS":                {func(p *bgp.Peer) { p.ASN = 0 }, "want both"},
	} {
		t.Run(name, func(t *testing.T) {
			p := good
			tc.change(&p)
			err := s.Configure(t.Context(), bgp.Config{ASN: 1, RouterID: speakerAddr, ListenPort: 1, Peers: []bgp.Peer{p}})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
	err := s.Announce(t.Context(), []bgp.Path{
		{Prefix: netip.MustParsePrefix("10.0.0.1/24"), Kind: bgp.Blocks}, {Prefix: block.Prefix, Kind: bgp.Blocks | bgp.Hosts},
	})
	if err == nil || strings.Count(err.Error(), "want") != 2 {
		t.Errorf("announce bad paths: %v", err)
	}
}
