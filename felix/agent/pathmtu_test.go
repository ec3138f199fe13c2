package agent

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/felix/kernel/tunnel"
	"github.com/koratnet/korat/felix/pathmtu"
	"github.com/koratnet/korat/ipam"
)

// TestTheWaysInsideOfTunnelsAreTriedToo: to the nodes that packets of pools are wrapped
// for, in the family of the pool.
func TestTheWaysInsideOfTunnelsAreTriedToo(t *testing.T) {
	pool := func(cidr string) *event.Pool { return &event.Pool{Pool: ipam.Pool{CIDR: netip.MustParsePrefix(cidr)}} }
	ways := func(e desired.Encapsulation, nodes ...string) desired.PoolWays {
		return desired.PoolWays{Nodes: map[desired.Way][]string{{Encapsulation: e}: nodes}}
	}
	device := func(kind desired.TunnelKind, addr string) desired.TunnelDevice {
		return desired.TunnelDevice{Kind: kind, Addr: netip.MustParseAddr(addr), MTU: 9000 - kind.Overhead()}
	}
	n := &tunnels{
		pools: map[string]*event.Pool{"vxlan": pool("10.1.0.0/16"), "vxlan6": pool("fd00:1::/64"), "ipip": pool("10.2.0.0/16"), "encrypted": pool("10.3.0.0/16"), "plain": pool("10.4.0.0/16")},
		ways: map[string]desired.PoolWays{
			"vxlan": ways(desired.VXLAN, "a", "b"), "vxlan6": ways(desired.VXLAN, "b"), "ipip": ways(desired.IPIP, "c"),
			"encrypted": ways(desired.WireGuard, "a"), "plain": ways(desired.Plain, "a"),
		},
		wanted: map[desired.TunnelKind]desired.TunnelDevice{
			desired.VXLAN4: device(desired.VXLAN4, "10.1.0.1"), desired.VXLAN6: device(desired.VXLAN6, "fd00:1::1"), desired.WireGuard4: device(desired.WireGuard4, "10.3.0.1"),
		},
		offloads: func() map[desired.TunnelKind]tunnel.Offload {
			return map[desired.TunnelKind]tunnel.Offload{desired.VXLAN4: {On: true}}
		},
	}
	addr := netip.MustParseAddr
	outside := []pathmtu.Peer{
		{Node: "a", Addr: addr("192.0.2.1"), MTU: 9000},
		{Node: "b", Addr: addr("192.0.2.2"), MTU: 9000},
		{Node: "b", Addr: addr("2001:db8::2"), MTU: 9000},
		{Node: "c", Addr: addr("192.0.2.3"), MTU: 9000},
	}
	a, b, b6 := desired.VXLAN4.MACOf("a"), desired.VXLAN4.MACOf("b"), desired.VXLAN6.MACOf("b")
	check := func(what string, want ...pathmtu.Peer) {
		t.Helper()
		if diff := cmp.Diff(want, n.paths(outside)[len(outside):], cmpopts.EquateComparable(netip.Addr{}), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
	}
	vxlan := []pathmtu.Peer{
		{Node: "a", Addr: addr("192.0.2.1"), MTU: 8950, Tunnel: "vxlan4-korat", Offloads: true, MAC: a},
		{Node: "b", Addr: addr("192.0.2.2"), MTU: 8950, Tunnel: "vxlan4-korat", Offloads: true, MAC: b},
		{Node: "b", Addr: b6.LinkLocal(), MTU: 8930, Tunnel: "vxlan6-korat", MAC: b6},
	}
	check("while the end of IPIP has no address", vxlan...)
	n.wanted[desired.IPIP4] = device(desired.IPIP4, "10.2.0.1")
	check("through all", append(vxlan, pathmtu.Peer{Node: "c", Addr: addr("192.0.2.3"), MTU: 8980, Tunnel: "ipip-korat"})...)
	n.ways = nil
	check("when nothing is wrapped")
}
