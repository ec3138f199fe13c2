package guarded_test

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/bgp/bfd"
	"github.com/koratnet/korat/bgp/guarded"
	"github.com/koratnet/korat/bgp/speakertest"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
)

var here, there = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")

// inner is a speaker whose only session is as the test says, and that writes down
// what is broken.
type inner struct {
	*speakertest.Fake

	mu          sync.Mutex // guards the rest
	established bool
	broken      []string
}

func (i *inner) Sessions(context.Context) ([]bgp.Session, error) {
	return []bgp.Session{{Peer: "tor", Addr: there, Established: i.Established(there)}}, nil
}

func (i *inner) Established(netip.Addr) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.established
}

func (i *inner) Unnumbered() map[string]netip.Addr { return nil }

func (i *inner) Break(_ context.Context, peer netip.Addr, why string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.broken = append(i.broken, peer.String()+" "+why)
	return nil
}

func (i *inner) breaks() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.broken)
}

// pair is a guarded speaker and its neighbour's BFD, each in a namespace.
func pair(t *testing.T, established bool) (*inner, *guarded.Speaker, *bfd.System, func()) {
	t.Helper()
	a, b := kerneltest.New(t), kerneltest.New(t)
	kerneltest.Veth(a, "wire", b, "wire")
	for ns, addr := range map[*kerneltest.Namespace]netip.Addr{a: here, b: there} {
		ns.Run("ip", "addr", "add", addr.String()+"/24", "dev", "wire")
		ns.Up("wire")
	}
	in := &inner{Fake: new(speakertest.World).Speaker(), established: established}
	s := guarded.New(in, slog.New(slog.DiscardHandler))
	neighbour := bfd.New(bfd.Config{})
	t.Cleanup(func() { s.Close(); neighbour.Close() })
	timing := bfd.Timing{Transmit: 100 * time.Millisecond, Receive: 100 * time.Millisecond, Multiplier: 12}
	b.Do(func() {
		if err := neighbour.Set(t.Context(), []bfd.Session{{Key: bfd.Key{Peer: here, Local: there}, Timing: timing}}); err != nil {
			t.Error(err)
		}
	})
	a.Do(func() {
		c := bgp.Config{ASN: 64512, RouterID: here, Peers: []bgp.Peer{{
			Name: "tor", Addr: there, LocalAddr: here, ASN: 65001, BFD: bgp.BFD{Enabled: true, Multiplier: 12},
		}}}
		if err := s.Configure(t.Context(), c); err != nil {
			t.Error(err)
		}
	})
	reaches(t, s, "Up")
	return in, s, neighbour, func() { b.Down("wire") }
}

func reaches(t *testing.T, s *guarded.Speaker, want string) {
	t.Helper()
	kerneltest.Eventually(t, "BFD is "+want, func() bool {
		all, err := s.Sessions(t.Context())
		return err == nil && len(all) == 1 && all[0].BFD == want
	})
}

func TestASessionEndsWithItsPath(t *testing.T) {
	in, _, _, cut := pair(t, true)
	cut()
	kerneltest.Eventually(t, "session is broken", func() bool {
		return slices.Equal(in.breaks(), []string{"192.0.2.2 BFD: detection time expired"})
	})
}

// Connection and BFD of a neighbour whose control plane restarts end both, and its
// kernel closes the connection first.
func TestGracefulRestartGoesOnWithoutBFD(t *testing.T) {
	in, s, _, cut := pair(t, false)
	cut()
	reaches(t, s, "Down")
	if err := s.Close(); err != nil { // waits for what is under way
		t.Error(err)
	}
	if got := in.breaks(); len(got) > 0 {
		t.Errorf("broken: %v", got)
	}
}

func TestANeighbourThatEndsBFDOnPurposeKeepsItsSession(t *testing.T) {
	in, s, neighbour, _ := pair(t, true)
	if err := neighbour.Close(); err != nil {
		t.Fatal(err)
	}
	reaches(t, s, "Down")
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if got := in.breaks(); len(got) > 0 {
		t.Errorf("broken: %v", got)
	}
}
