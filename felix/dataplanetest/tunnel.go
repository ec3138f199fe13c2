package dataplanetest

import (
	"encoding/binary"
	"net/netip"
	"strings"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// ownTunnel: the node has an end of a VXLAN tunnel. What a known node puts into it
// arrives, and what an address does that is let in, what anybody else does not; no
// connection is tracked of what carries packets; and the node is seen inside under its
// address inside, item 81.
func (w *world) ownTunnel() {
	for _, is6 := range bothFamilies {
		kind, _ := desired.TunnelOf(desired.VXLAN, is6)
		d := w.open()
		inside := w.ownEnd(kind, d)
		for from, want := range map[string]bool{"node0": true, "out0": false, "rem0": false, "node1": false, "out1": true, "a": false, "b": false} {
			inner := w.shot("rem1", "a", is6, policy.UDP, 80)
			w.intoTunnel(from, inner, kind.MACOf("host"))
			w.clock.settle()
			if _, arrived := w.arrived()[inner.id]; arrived != want {
				w.t.Errorf("what %s put into %s: arrived is %v, want %v", from, kind, arrived, want)
			}
		}
		for _, to := range []string{"host", "out0", "node0"} {
			w.all(false, []shot{w.shot("a", to, is6, policy.UDP, desired.VXLANPort)})
		}
		family := map[bool]string{false: "ipv4", true: "ipv6"}[is6]
		if tracked := w.node.Run("conntrack", "-L", "-f", family, "-p", "udp", "--dport", "4789"); strings.Contains(tracked, "dport=4789") {
			w.t.Errorf("what carries packets is tracked:\n%s", tracked)
		}
		w.seenInside(kind, inside)
		w.apply(desired.Delta{Tunnels: map[desired.TunnelKind]*desired.TunnelDevice{kind: nil}})
	}
}

// ownEnd makes the node's end of a tunnel, into which node0 and out1 may put packets,
// and returns the address inside.
func (w *world) ownEnd(kind desired.TunnelKind, d desired.Delta) netip.Addr {
	dev, underlay, inside := kind.Device(), w.sites["host"].addrs[kind.Is6()], netip.MustParseAddr("10.1.0.62")
	if kind.Is6() {
		inside = netip.MustParseAddr("fd01::3e")
	}
	w.node.Run("ip", "link", "add", dev, "address", kind.MACOf("host").String(), "type", "vxlan",
		"id", "4096", "dstport", "4789", "local", underlay.String(), "nolearning")
	w.node.Up(dev)
	w.node.Run("ip", "addr", "add", full(inside), "dev", dev, "nodad")
	w.t.Cleanup(func() { w.node.Remove(dev) })
	known := single(w.sites["node0"].addrs[kind.Is6()])
	d.Tunnels = map[desired.TunnelKind]*desired.TunnelDevice{kind: {Kind: kind, Underlay: underlay, Addr: inside, MAC: kind.MACOf("host")}}
	d.Sets = map[ir.SetID]*desired.SetChange{desired.NodesSet: {Kind: ir.Nets, Whole: true, Add: map[ir.Member]struct{}{known: {}}}}
	for _, a := range addrsOf("out1") {
		d.Settings.TunnelSources = append(d.Settings.TunnelSources, single(a).Prefix)
	}
	w.apply(d)
	return inside
}

// intoTunnel sends what s would, inside of a VXLAN datagram from a site to the host.
func (w *world) intoTunnel(from string, s shot, to desired.MAC) {
	is6 := s.Dst.Is6()
	kind := map[bool][]byte{false: {8, 0}, true: {0x86, 0xdd}}[is6]
	frame := append([]byte{8, 0, 0, 0, 0, 0x10, 0, 0}, to[:]...) // VXLANID in the middle of three bytes
	frame = append(append(frame, 2, 2, 2, 2, 2, 2), kind...)
	frame = append(frame, wrap(s.Src, s.Dst, s.Protocol, s.transport())...)
	outer := w.shot(from, "host", is6, policy.UDP, desired.VXLANPort)
	outer.SrcPort = 40000
	datagram := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, outer.SrcPort), desired.VXLANPort)
	datagram = append(binary.BigEndian.AppendUint16(datagram, uint16(8+len(frame))), 0, 0)
	datagram = append(datagram, frame...)
	binary.BigEndian.PutUint16(datagram[6:], checksum(outer.Packet, datagram))
	outer.from.raw(outer.Src, outer.Dst, policy.UDP, datagram)
}

// seenInside sends from another address of the node through the tunnel, and looks
// under which address that is tracked.
func (w *world) seenInside(kind desired.TunnelKind, inside netip.Addr) {
	is6 := kind.Is6()
	to := map[bool][3]string{false: {"10.1.9.1", "10.1.9.0/26", "icmp"}, true: {"fd01:9::1", "fd01:9::/64", "icmpv6"}}[is6]
	family := map[bool]string{false: "ipv4", true: "ipv6"}[is6]
	w.node.Run("ip", "route", "add", to[1], "dev", kind.Device())
	_, _ = w.node.Try("ping", "-c1", "-W1", "-I", w.sites["host"].addrs[is6].String(), to[0]) // nobody answers
	want := "dst=" + inside.String()
	if tracked := w.node.Run("conntrack", "-L", "-f", family, "-p", to[2], "-d", to[0]); !strings.Contains(tracked, want) {
		w.t.Errorf("the node is not seen under %s inside:\n%s", inside, tracked)
	}
}
