package pod

import (
	"fmt"
	"net"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"
)

// SetMTU gives both ends of the attachment the MTU of s, while packets flow: the
// receiving end takes no larger packet than its own, so it grows first and
// shrinks last. A sandbox that is gone, or of which the namespace is not known,
// is left as it is.
func (h *Host) SetMTU(s Spec) error {
	host, err := h.nl.LinkByName(s.HostInterface)
	if isGone(err) || s.Netns == "" {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", s.HostInterface, err)
	}
	podNS, err := ns.GetNS(s.Netns)
	if err != nil {
		return nil
	}
	defer podNS.Close()
	if !leadsTo(host, podNS, s.Interface) {
		return nil
	}
	onHost := func() error { return h.nl.LinkSetMTU(host, s.MTU) }
	inPod := func() error {
		return within(podNS, func(nl *netlink.Handle) error {
			link, err := nl.LinkByName(s.Interface)
			if err != nil {
				return err
			}
			return nl.LinkSetMTU(link, s.MTU)
		})
	}
	first, second := onHost, inPod
	if s.MTU < host.Attrs().MTU {
		first, second = inPod, onHost
	}
	err = first()
	if err == nil {
		err = second()
	}
	if err != nil && !isGone(err) {
		return fmt.Errorf("MTU of %s: %w", s.HostInterface, err)
	}
	return nil
}

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
