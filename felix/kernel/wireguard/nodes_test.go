package wireguard_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/felix/netmon"
)

// ways returns the addresses that the table of nodes leads to, each with its interface.
func (s *site) ways() (all []string) {
	family := map[bool]string{false: "-4", true: "-6"}[s.kind.Is6()]
	text, err := s.Try("ip", family, "route", "show", "table", fmt.Sprint(desired.ToNodesTable))
	if err != nil { // no route has made the table yet
		return nil
	}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		all = append(all, strings.Join(f[:3], " "))
	}
	return all
}

func (s *site) leads(t *testing.T, to ...*site) {
	t.Helper()
	want := ""
	for _, o := range to {
		want += o.underlay.String() + " dev " + s.kind.Device() + "\n"
	}
	if got := strings.Join(append(s.ways(), ""), "\n"); got != want {
		t.Errorf("node %d leads into the tunnel\n%swant\n%s", s.n, got, want)
	}
}

// knowsAll adds other nodes' ends, and that packets to and from their own addresses
// travel in the tunnel.
func (s *site) knowsAll(d desired.Delta, others ...*site) desired.Delta {
	d = s.knows(d, others...)
	for _, o := range others {
		p := d.EncryptedPeers[desired.EncryptedEnd{Kind: s.kind, Key: o.key()}]
		p.Prefixes = append(p.Prefixes, netip.PrefixFrom(o.underlay, o.underlay.BitLen()))
		slices.SortFunc(p.Prefixes, netip.Prefix.Compare)
	}
	return d
}

func TestTheTableOfNodesFollowsWhoIsKnown(t *testing.T) {
	bothFamilies(t, func(t *testing.T, kind desired.TunnelKind) {
		_, all := sites(t, kind, 3)
		a, b, c := all[0], all[1], all[2]
		a.apply(t, a.knows(a.own(), b, c))
		a.leads(t, b, c)
		m := a.Monitor()
		m.Drain()
		a.tunnels = a.open(t)
		a.apply(t, a.knows(a.own(), b, c))
		if changes := m.Changes(); len(changes) > 0 {
			t.Errorf("adopting changed the kernel: %v", changes)
		}
		a.Run("ip", "link", "set", kind.Device(), "down") // its routes go
		a.leads(t)
		a.tunnels.LinkChanged(kind.Device())
		a.apply(t, desired.Delta{})
		a.leads(t, b, c)

		end := desired.EncryptedEnd{Kind: kind, Key: c.key()}
		a.apply(t, desired.Delta{EncryptedPeers: map[desired.EncryptedEnd]*desired.EncryptedPeer{end: nil}})
		a.leads(t, b)
		a.tunnels = a.open(t)
		d := a.knows(a.own(), c)
		d.Complete = false
		a.apply(t, d)
		a.leads(t, b, c) // nothing goes before all is known
		a.apply(t, desired.Delta{Complete: true})
		a.leads(t, c)
	})
}

// TestWhoListensKnowsTheTableOfNodesForOurs, and tells nobody to look again.
func TestWhoListensKnowsTheTableOfNodesForOurs(t *testing.T) {
	_, all := sites(t, desired.WireGuard4, 2)
	a, b := all[0], all[1]
	var m *netmon.Monitor
	a.Do(func() {
		var err error
		if m, err = netmon.New(a.tunnels.Port()); err != nil {
			t.Fatal(err)
		}
	})
	a.apply(t, a.knows(a.own(), b))
	a.leads(t, b)
	end := desired.EncryptedEnd{Kind: a.kind, Key: b.key()}
	a.apply(t, desired.Delta{EncryptedPeers: map[desired.EncryptedEnd]*desired.EncryptedPeer{end: nil}})
	a.leads(t)
	last := netip.MustParsePrefix("192.0.2.255/32")
	a.Run("ip", "route", "add", "blackhole", last.String(), "protocol", fmt.Sprint(desired.RuleProtocol))
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	var heard []netip.Prefix
	if err := m.Run(ctx, func(c netmon.Change) {
		if c.Protocol == desired.RuleProtocol {
			heard = append(heard, c.Route)
		}
		if c.Route == last {
			stop()
		}
	}); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(heard, []netip.Prefix{last}) {
		t.Errorf("of the protocol of rules and their tables %v was told, want only %s, which another wrote", heard, last)
	}
}

// TestWhatPodsAndNodesSendEachOtherIsEncrypted: a rule leads what has the address of a
// pod into the tunnel, and answers of the node come back through it, while what nodes
// send each other, and what carries all that, does not go there.
func TestWhatPodsAndNodesSendEachOtherIsEncrypted(t *testing.T) {
	bothFamilies(t, func(t *testing.T, kind desired.TunnelKind) {
		wire, all := sites(t, kind, 2)
		a, b := all[0], all[1]
		pod := a.inside.Next()
		for _, s := range all {
			s.apply(t, s.knowsAll(s.own(), s.others(all)...))
			s.routes(s.others(all)...)
		}
		a.Run("ip", "addr", "add", pod.String(), "dev", "lo", "nodad")
		a.Run("ip", map[bool]string{false: "-4", true: "-6"}[kind.Is6()], "rule", "add", "from", a.block.String(),
			"lookup", fmt.Sprint(desired.ToNodesTable), "priority", fmt.Sprint(desired.ToNodesRule))
		b.reaches(t, a)
		a.reaches(t, b)

		tap := listen(t, wire, port)
		a.Run("ping", "-c3", "-i0.2", "-W10", "-I", pod.String(), b.underlay.String())
		heard := a.listen(t, pod)
		send(t, b.call(t, b.underlay, pod), "from the node itself")
		if text, from := receive(t, heard); text != "from the node itself" || from != b.underlay {
			t.Errorf("heard %q from %s", text, from)
		}
		tap.check(t)

		open := listen(t, wire)
		a.Run("ping", "-c1", "-W10", b.underlay.String())
		kerneltest.Eventually(t, "what nodes send each other is in clear", func() bool {
			open.mu.Lock()
			defer open.mu.Unlock()
			return len(open.clear) > 0
		})
	})
}
