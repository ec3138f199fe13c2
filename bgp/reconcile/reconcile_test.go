package reconcile_test

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/bgp/reconcile"
	"github.com/koratnet/korat/bgp/speakertest"
	"github.com/koratnet/korat/felix/apply"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/felix/event/mailbox"
)

var _ apply.Reconciler = (*reconcile.Speaking)(nil)

var (
	here, there = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	block       = netip.MustParsePrefix("10.244.0.0/26")
	pod         = netip.MustParsePrefix("10.244.0.1/32")
)

func config(own, peer netip.Addr) *bgp.Config {
	return &bgp.Config{
		ASN: 64512, RouterID: own, ListenPort: 179, RestartTime: time.Hour,
		Peers: []bgp.Peer{{
			Name: "node/" + peer.String(), Addr: peer, Port: 179, ASN: 64512, LocalAddr: own,
			Advertise: bgp.Blocks | bgp.Hosts, Passive: peer.Less(own),
		}},
	}
}

func paths(ps ...bgp.Path) map[desired.PathKey]*bgp.Path {
	out := map[desired.PathKey]*bgp.Path{}
	for _, p := range ps {
		out[desired.PathKey(p)] = &p
	}
	return out
}

// broken is a speaker whose calls fail as told.
type broken struct {
	reconcile.Lasting
	announce, withdraw, configure error
}

func (b *broken) Announce(ctx context.Context, p []bgp.Path) error {
	return errors.Join(b.announce, b.Lasting.Announce(ctx, p))
}

func (b *broken) Withdraw(ctx context.Context, p []bgp.Path) error {
	if b.withdraw != nil {
		return b.withdraw
	}
	return b.Lasting.Withdraw(ctx, p)
}

func (b *broken) Configure(ctx context.Context, c bgp.Config) error {
	if b.configure != nil {
		return b.configure
	}
	return b.Lasting.Configure(ctx, c)
}

// pair is a speaker kept by a reconciler, and a neighbour that hears it.
type pair struct {
	*testing.T
	speaker *broken
	r       *reconcile.Speaking
	inbox   *mailbox.Mailbox // of the neighbour
	heard   map[string][]netip.Addr
	synced  event.Source
}

func newPair(t *testing.T) *pair {
	t.Helper()
	var world speakertest.World
	neighbour := world.Speaker()
	if err := neighbour.Configure(t.Context(), *config(there, here)); err != nil {
		t.Fatal(err)
	}
	p := &pair{T: t, speaker: &broken{Lasting: world.Speaker()}, inbox: mailbox.New(), heard: map[string][]netip.Addr{}}
	p.r = reconcile.New(p.speaker)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- reconcile.Listen(ctx, neighbour, p.inbox) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return p
}

func (p *pair) apply() error {
	return p.r.Apply(p.Context())
}

func (p *pair) applyOK() {
	p.Helper()
	if err := p.apply(); err != nil {
		p.Fatal(err)
	}
}

// hears waits until the neighbour has heard exactly the prefixes.
func (p *pair) hears(prefixes ...netip.Prefix) {
	p.Helper()
	want := map[string][]netip.Addr{}
	for _, prefix := range prefixes {
		want[prefix.String()] = []netip.Addr{here}
	}
	timeout := time.After(10 * time.Second)
	for {
		diff := cmp.Diff(want, p.heard, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }))
		if diff == "" {
			return
		}
		select {
		case <-p.inbox.Ready():
		case <-timeout:
			p.Fatalf("heard (-want +got):\n%s", diff)
		}
		events, synced := p.inbox.Take()
		p.synced |= synced
		for _, ev := range events {
			if ev.Value == nil {
				delete(p.heard, ev.Key.Name)
				continue
			}
			p.heard[ev.Key.Name] = ev.Value.(*event.Learned).NextHops
		}
	}
}

func (p *pair) sessions() []bgp.Session {
	p.Helper()
	all, err := p.speaker.Sessions(p.Context())
	if err != nil {
		p.Fatal(err)
	}
	return all
}

func TestNoSessionBeforeLocalStateIsComplete(t *testing.T) {
	p := newPair(t)
	p.r.Want(desired.Delta{Speaker: config(here, there)})
	p.applyOK()
	p.r.Want(desired.Delta{Paths: paths(bgp.Path{Prefix: block, Kind: bgp.Blocks})})
	p.applyOK()
	if got := p.sessions(); len(got) != 0 {
		t.Fatalf("sessions before the state is complete: %+v", got)
	}
	p.r.Want(desired.Delta{Complete: true})
	p.applyOK()
	p.hears(block)
	if p.synced != event.Neighbours {
		t.Errorf("synced sources %b, want %b", p.synced, event.Neighbours)
	}
}

func TestNoSessionBeforeAllPathsAreAnnounced(t *testing.T) {
	p := newPair(t)
	p.speaker.announce = errors.New("broken")
	p.r.Want(desired.Delta{
		Speaker: config(here, there), Complete: true, Paths: paths(bgp.Path{Prefix: block, Kind: bgp.Blocks}),
	})
	if err := p.apply(); !errors.Is(err, p.speaker.announce) {
		t.Fatalf("error %v, want %v", err, p.speaker.announce)
	}
	if got := p.sessions(); len(got) != 0 {
		t.Fatalf("sessions before all is announced: %+v", got)
	}
	p.speaker.announce = nil
	p.applyOK()
	p.hears(block)
}

func TestPathsComeAndGo(t *testing.T) {
	p := newPair(t)
	host := bgp.Path{Prefix: pod, Kind: bgp.Hosts}
	p.r.Want(desired.Delta{
		Speaker: config(here, there), Complete: true, Paths: paths(bgp.Path{Prefix: block, Kind: bgp.Blocks}, host),
	})
	p.applyOK()
	p.hears(block, pod)
	p.r.Want(desired.Delta{Paths: map[desired.PathKey]*bgp.Path{desired.PathKey(host): nil}})
	p.speaker.withdraw = errors.New("broken")
	if err := p.apply(); !errors.Is(err, p.speaker.withdraw) {
		t.Fatalf("error %v, want %v", err, p.speaker.withdraw)
	}
	p.speaker.withdraw = nil
	if err := p.r.Resync(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.applyOK()
	p.hears(block)
}

func TestFailedConfigurationIsTriedAgain(t *testing.T) {
	p := newPair(t)
	p.speaker.configure = errors.New("port is taken")
	p.r.Want(desired.Delta{
		Speaker: config(here, there), Complete: true, Paths: paths(bgp.Path{Prefix: block, Kind: bgp.Blocks}),
	})
	if err := p.apply(); !errors.Is(err, p.speaker.configure) {
		t.Fatalf("error %v, want %v", err, p.speaker.configure)
	}
	p.speaker.configure = nil
	p.applyOK()
	p.hears(block)
}

func TestChangedConfigurationIsSaid(t *testing.T) {
	p := newPair(t)
	p.r.Want(desired.Delta{
		Speaker: config(here, there), Complete: true, Paths: paths(bgp.Path{Prefix: block, Kind: bgp.Blocks}),
	})
	p.applyOK()
	p.hears(block)
	gone := *config(here, there)
	gone.Peers = nil
	p.r.Want(desired.Delta{Speaker: &gone})
	p.applyOK()
	p.hears()
}
