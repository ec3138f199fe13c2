package dataplanetest

import (
	"net/netip"
	"strings"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// neverInClear: a and rem0 are of pools whose packets never travel in clear, b and
// rem1 of others. Nothing between nodes, node0 among them, has one of the first at an
// end; what stays on the node, and what goes to and comes from outside of the cluster,
// is not concerned.
func (w *world) neverInClear() {
	of := func(names ...string) *desired.SetChange {
		all := map[ir.Member]struct{}{}
		for _, name := range names {
			for _, a := range w.sites[name].addrs {
				all[ir.Member{Prefix: netip.PrefixFrom(a, a.BitLen())}] = struct{}{}
			}
		}
		return &desired.SetChange{Kind: ir.Nets, Whole: true, Add: all}
	}
	d := w.open()
	d.Sets = map[ir.SetID]*desired.SetChange{desired.InsideSet: of("a", "b", "c", "rem0", "rem1"), desired.NodesSet: of("host", "node0"), desired.EncryptedSet: of()}
	w.apply(d)
	ways := func(pairs ...[2]string) (shots []shot) {
		for _, p := range pairs {
			shots = append(shots, w.shot(p[0], p[1], false, policy.UDP, 80), w.shot(p[0], p[1], true, policy.UDP, 80))
		}
		return shots
	}
	never := [][2]string{{"rem0", "a"}, {"rem0", "b"}, {"rem1", "a"}, {"a", "rem0"}, {"b", "rem0"}, {"a", "rem1"}, {"a", "node0"}, {"node0", "a"}}
	always := [][2]string{{"a", "b"}, {"b", "a"}, {"rem1", "b"}, {"b", "rem1"}, {"out0", "a"}, {"a", "out0"}, {"a", "host"}, {"host", "a"}, {"b", "node0"}, {"node0", "b"}}
	w.all(true, ways(append(never, always...)...))
	closed := desired.Delta{Sets: map[ir.SetID]*desired.SetChange{desired.EncryptedSet: of("a", "rem0")}}
	w.apply(closed)
	w.all(false, ways(never...))
	w.all(true, ways(always...))
	w.apply(desired.Delta{Sets: map[ir.SetID]*desired.SetChange{desired.EncryptedSet: of()}})
	w.all(true, ways(never...))
}

// seenAtNodes: pods hide behind their node where they leave the cluster. What goes to a
// node encrypted keeps its source: answers come back through the tunnel then.
func (w *world) seenAtNodes() {
	for _, is6 := range bothFamilies {
		kind, _ := desired.TunnelOf(desired.WireGuard, is6)
		pod, node, inside := w.sites["a"].addrs[is6], w.sites["node0"].addrs[is6], netip.MustParseAddr("10.1.0.62")
		proto, family := policy.ICMP, "ipv4"
		if is6 {
			proto, family, inside = policy.ICMPv6, "ipv6", netip.MustParseAddr("fd01::3e")
		}
		// Anything with the name will do: the test looks at what leads there.
		w.node.Run("ip", "link", "add", kind.Device(), "type", "vxlan", "id", "77", "dstport", "4790", "local", w.sites["host"].addrs[is6].String())
		w.node.Up(kind.Device())
		w.node.Run("ip", "addr", "add", full(inside), "dev", kind.Device(), "nodad")
		d := w.open()
		d.Tunnels = map[desired.TunnelKind]*desired.TunnelDevice{kind: {Kind: kind, Underlay: w.sites["host"].addrs[is6], Addr: inside, Port: desired.WireGuardPort4}}
		d.Sets = map[ir.SetID]*desired.SetChange{
			desired.MasqueradeSet: {Kind: ir.Nets, Whole: true, Add: map[ir.Member]struct{}{single(pod): {}}},
			desired.InsideSet:     {Kind: ir.Nets, Whole: true},
			desired.NodesSet:      {Kind: ir.Nets, Whole: true, Add: map[ir.Member]struct{}{single(node): {}}},
		}
		w.apply(d)
		seen := func() string {
			w.node.Run("conntrack", "-F")
			s := w.shot("a", "node0", is6, proto, 0)
			s.from.packet(s.sent())
			w.clock.settle()
			return w.node.Run("conntrack", "-L", "-f", family, "-s", pod.String(), "-d", node.String())
		}
		if tracked := seen(); strings.Contains(tracked, "dst="+pod.String()) || !strings.Contains(tracked, "dst=") {
			w.t.Errorf("what goes to %s in clear is not hidden:\n%s", node, tracked)
		}
		w.node.Run("ip", "route", "replace", full(node), "dev", kind.Device())
		if tracked := seen(); !strings.Contains(tracked, "dst="+pod.String()) {
			w.t.Errorf("what goes to %s encrypted is hidden:\n%s", node, tracked)
		}
		w.apply(desired.Delta{Tunnels: map[desired.TunnelKind]*desired.TunnelDevice{kind: nil}})
		w.node.Remove(kind.Device())
	}
}
