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
// arrives, what anybody else does not; no connection is tracked of what carries
// packets; and the node is seen inside under its address inside, item 81.
func (w *world) ownTunnel() {
	const kind = desired.VXLAN4
	dev, underlay, inside := kind.Device(), w.sites["host"].addrs[false], netip.MustParseAddr("10.1.0.62")
	w.node.Run("ip", "link", "add", dev, "address", kind.MACOf("host").String(), "type", "vxlan",
		"id", "4096", "dstport", "4789", "local", underlay.String(), "nolearning")
	w.node.Up(dev)
	w.node.Run("ip", "addr", "add", inside.String()+"/32", "dev", dev)
	w.t.Cleanup(func() { w.node.Remove(dev) })
	known := ir.Member{Prefix: netip.PrefixFrom(w.sites["node0"].addrs[false], 32)}
	d := w.open()
	d.Tunnels = map[desired.TunnelKind]*desired.TunnelDevice{kind: {Kind: kind, Underlay: underlay, Addr: inside, MAC: kind.MACOf("host")}}
	d.Sets = map[ir.SetID]*desired.SetChange{desired.NodesSet: {Kind: ir.Nets, Whole: true, Add: map[ir.Member]struct{}{known: {}}}}
	w.apply(d)
	for from, want := range map[string]bool{"node0": true, "out0": false, "rem0": false, "node1": false} {
		inner := w.shot("rem1", "a", false, policy.UDP, 80)
		w.intoTunnel(from, inner, kind.MACOf("host"))
		w.clock.settle()
		if _, arrived := w.arrived()[inner.id]; arrived != want {
			w.t.Errorf("what %s put into the tunnel: arrived is %v, want %v", from, arrived, want)
		}
	}
	for _, to := range []string{"host", "out0", "node0"} {
		w.all(false, []shot{w.shot("a", to, false, policy.UDP, desired.VXLANPort)})
	}
	if tracked := w.node.Run("conntrack", "-L", "-p", "udp", "--dport", "4789"); strings.Contains(tracked, "dport=4789") {
		w.t.Errorf("what carries packets is tracked:\n%s", tracked)
	}
	w.seenInside(dev, inside)
	w.apply(desired.Delta{Tunnels: map[desired.TunnelKind]*desired.TunnelDevice{kind: nil}})
}

// intoTunnel sends what s would, inside of a VXLAN datagram from a site to the host.
func (w *world) intoTunnel(from string, s shot, to desired.MAC) {
	packet := wrap(s.Src, s.Dst, s.Protocol, s.transport())
	frame := append([]byte{8, 0, 0, 0, 0, 0x10, 0, 0}, to[:]...) // VXLANID in the middle of three bytes
	frame = append(append(frame, 2, 2, 2, 2, 2, 2, 8, 0), packet...)
	datagram := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, 40000), desired.VXLANPort)
	datagram = append(binary.BigEndian.AppendUint16(datagram, uint16(8+len(frame))), 0, 0)
	outer := w.shot(from, "host", false, policy.UDP, desired.VXLANPort)
	outer.from.raw(outer.Src, outer.Dst, policy.UDP, append(datagram, frame...))
}

// seenInside sends from another address of the node through the tunnel, and looks
// under which address that is tracked.
func (w *world) seenInside(dev string, inside netip.Addr) {
	w.node.Run("ip", "route", "add", "10.1.9.0/26", "dev", dev)
	_, _ = w.node.Try("ping", "-c1", "-W1", "-I", w.sites["host"].addrs[false].String(), "10.1.9.1") // nobody answers
	want := "dst=" + inside.String()
	if tracked := w.node.Run("conntrack", "-L", "-p", "icmp", "-d", "10.1.9.1"); !strings.Contains(tracked, want) {
		w.t.Errorf("the node is not seen under %s inside:\n%s", inside, tracked)
	}
}
