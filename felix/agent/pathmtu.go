package agent

import (
	"cmp"
	"net"
	"slices"

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
