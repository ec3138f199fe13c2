package agent

import (
	"cmp"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/koratnet/korat/felix/apply"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/netmon"
	"github.com/koratnet/korat/felix/pathmtu"
)

// pathPeers returns the addresses of other nodes, in a fixed order, with the MTU of the
// interface to each: not of the route, which the kernel makes smaller when a router
// asks it to.
func pathPeers(reaches *netmon.Reaches) []pathmtu.Peer {
	var out []pathmtu.Peer
	mtu := map[string]int{}
	for node, ways := range reaches.Ways() {
		for _, w := range ways {
			if _, known := mtu[w.Interface]; !known {
				mtu[w.Interface] = w.MTU
				if i, err := net.InterfaceByName(w.Interface); err == nil {
					mtu[w.Interface] = i.MTU
				}
			}
			out = append(out, pathmtu.Peer{Node: node, Addr: w.Addr, MTU: mtu[w.Interface]})
		}
	}
	slices.SortFunc(out, func(a, b pathmtu.Peer) int { return cmp.Or(cmp.Compare(a.Node, b.Node), a.Addr.Compare(b.Addr)) })
	return out
}

// paths adds to the other nodes outside those that are reached through tunnels of VXLAN
// and IPIP, each by the address that its end has as a neighbour. WireGuard encrypts, and
// has nothing left to devices; its neighbours have no addresses of their own.
func (t *tunnels) paths(outside []pathmtu.Peer) []pathmtu.Peer {
	offloads := t.offloads()
	t.mu.Lock()
	defer t.mu.Unlock()
	behind := map[string]map[desired.TunnelKind]bool{}
	for name, w := range t.ways {
		p := t.pools[name]
		for way, nodes := range w.Nodes {
			kind, tunneled := desired.TunnelOf(way.Encapsulation, p != nil && p.CIDR.Addr().Is6())
			if !tunneled || kind.Encapsulation() == desired.WireGuard {
				continue
			}
			for _, node := range nodes {
				if behind[node] == nil {
					behind[node] = map[desired.TunnelKind]bool{}
				}
				behind[node][kind] = true
			}
		}
	}
	out := outside
	for _, p := range outside {
		for _, kind := range desired.TunnelKinds {
			d := t.wanted[kind]
			if !behind[p.Node][kind] || kind.Is6() != p.Addr.Is6() || !d.Addr.IsValid() || d.MTU == 0 {
				continue
			}
			peer := pathmtu.Peer{
				Node: p.Node, Addr: kind.Gateway(p.Addr, p.Node), MTU: d.MTU, Tunnel: kind.Device(), Offloads: offloads[kind].On,
			}
			if kind.Encapsulation() == desired.VXLAN {
				peer.MAC = kind.MACOf(p.Node)
			}
			out = append(out, peer)
		}
	}
	return out
}

// distrust has the kernel finish what leaves through tunnels of which a trial found that
// devices do not.
func (k *kernel) distrust(o pathmtu.Offload) {
	kind, ours := desired.TunnelOfDevice(o.Tunnel)
	if ours && o.Node != "" && k.tunnels.Distrust(kind, spoilt(o)) {
		k.log.Warn("a device spoils packets in a tunnel: the kernel finishes them from now on", "interface", o.Tunnel, "node", o.Node)
		k.loop.Poke(apply.Poke{Link: o.Tunnel})
	}
}

// spoilt says in words what a trial found.
func spoilt(o pathmtu.Offload) string {
	cut, others := o.Trains.Cut, o.Trains.Finished
	switch {
	case !o.Segments:
		return fmt.Sprintf("packets whose checksums a device makes do not reach %s, and others do", o.Node)
	case cut.Segments == 0:
		return fmt.Sprintf("large packets that a device cuts do not reach %s, and others do", o.Node)
	case o.Trains.Slow():
		return fmt.Sprintf("large packets that a device cuts take %s to %s, and others %s for as much",
			cut.Took.Round(time.Millisecond), o.Node, others.Took.Round(time.Microsecond))
	}
	return fmt.Sprintf("of large packets that a device cuts %d of %d segments reach %s, and of others %d", cut.Came, cut.Segments, o.Node, others.Came)
}
