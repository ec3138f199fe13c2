package tunnel_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/koratnet/korat/felix/desired"
)

// manyNodes returns what is desired of n nodes: their ends and a block of each.
func manyNodes(kind desired.TunnelKind, first, n int) desired.Delta {
	d := desired.Delta{TunnelPeers: map[desired.TunnelEnd]*desired.TunnelPeer{}, Routes: map[netip.Prefix]*desired.Route{}}
	for i := first; i < first+n; i++ {
		underlay := netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)})
		name := "node-" + underlay.String()
		gateway := kind.Gateway(underlay, name)
		block := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 100 + byte(i>>10), byte(i >> 2), byte(i) << 6}), 26)
		d.TunnelPeers[desired.TunnelEnd{Kind: kind, Gateway: gateway}] = &desired.TunnelPeer{Underlay: underlay, MAC: kind.MACOf(name)}
		d.Routes[block] = &desired.Route{Prefix: block, Kind: desired.Tunneled, Interface: kind.Device(), NextHops: []netip.Addr{gateway}}
	}
	return d
}

// BenchmarkThousandNodes programs all that leads to 1,000 nodes, from nothing.
func BenchmarkThousandNodes(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		s, _ := sites(b, desired.VXLAN4)
		d := manyNodes(desired.VXLAN4, 0, 1000)
		own := s.own(desired.VXLAN4)
		d.Tunnels, d.Complete, d.Learned = own.Tunnels, true, true
		b.StartTimer()
		s.apply(b, d)
	}
}

// BenchmarkOneNodeMore adds one node to 1,000.
func BenchmarkOneNodeMore(b *testing.B) {
	s, _ := sites(b, desired.VXLAN4)
	d := manyNodes(desired.VXLAN4, 0, 1000)
	own := s.own(desired.VXLAN4)
	d.Tunnels, d.Complete, d.Learned = own.Tunnels, true, true
	s.apply(b, d)
	next := 1000
	for b.Loop() {
		s.apply(b, manyNodes(desired.VXLAN4, next, 1))
		next++
	}
}

// TestAThousandNodesAreAdoptedAndLeaveNothing: and all of it takes a moment, so that
// nothing walks everything for each.
func TestAThousandNodesAreAdoptedAndLeaveNothing(t *testing.T) {
	s, _ := sites(t, desired.VXLAN4)
	d := manyNodes(desired.VXLAN4, 0, 1000)
	own := s.own(desired.VXLAN4)
	d.Tunnels, d.Complete, d.Learned = own.Tunnels, true, true
	begin := time.Now()
	s.apply(t, d)
	t.Logf("1,000 nodes in %v", time.Since(begin))
	begin = time.Now()
	s.apply(t, manyNodes(desired.VXLAN4, 1000, 1))
	t.Logf("one more in %v", time.Since(begin))
	m := s.Monitor()
	m.Drain()
	again := open(t, s.Namespace)
	again.Want(d)
	again.Want(desired.Delta{TunnelPeers: manyNodes(desired.VXLAN4, 1000, 1).TunnelPeers})
	if err := again.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	if changes := m.Changes(); len(changes) > 0 {
		t.Errorf("adopting changed the kernel %d times", len(changes))
	}
	for end := range d.TunnelPeers {
		d.TunnelPeers[end] = nil
	}
	again.Want(desired.Delta{TunnelPeers: d.TunnelPeers})
	if err := again.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	left, err := s.NeighList(s.Link("vxlan4-korat").Attrs().Index, 2)
	if err != nil || len(left) != 1 {
		t.Errorf("%d neighbours are left, want one: %v", len(left), err)
	}
}
