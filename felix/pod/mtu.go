package pod

import (
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
)

// fallbackMTU is Ethernet's.
const fallbackMTU = 1500

// UplinkMTU returns the MTU, in bytes, of the interface of the default route,
// through which the node reaches the others. Without a default route it is the
// smallest of the interfaces that are up, the loopback aside.
func (h *Host) UplinkMTU() (int, error) {
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := h.nl.RouteList(nil, family)
		if err != nil {
			return 0, fmt.Errorf("routes: %w", err)
		}
		for _, r := range routes {
			index := r.LinkIndex
			if len(r.MultiPath) > 0 {
				index = r.MultiPath[0].LinkIndex
			}
			isDefault := r.Dst == nil
			if r.Dst != nil {
				bits, _ := r.Dst.Mask.Size()
				isDefault = bits == 0
			}
			if link, err := h.nl.LinkByIndex(index); isDefault && index > 0 && err == nil {
				return link.Attrs().MTU, nil
			}
		}
	}
	links, err := h.nl.LinkList()
	if err != nil {
		return 0, fmt.Errorf("links: %w", err)
	}
	mtu := fallbackMTU
	for _, l := range links {
		if a := l.Attrs(); a.Flags&net.FlagUp != 0 && a.Flags&net.FlagLoopback == 0 {
			mtu = min(mtu, a.MTU)
		}
	}
	return mtu, nil
}
