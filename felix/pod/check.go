package pod

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/cniserver/wire"
)

// Check compares both sides of the attachment with s, and the node's routes to
// it, and says what differs. The error is ErrNoNetns or ErrElsewhere when the
// host interface, which is there, is not that of the sandbox.
func (h *Host) Check(s Spec) error {
	host, err := h.nl.LinkByName(s.HostInterface)
	if err != nil {
		return fmt.Errorf("host interface %s is missing: %w", s.HostInterface, err)
	}
	podNS, err := ns.GetNS(s.Netns)
	if err != nil {
		return fmt.Errorf("%w at %q: %w", ErrNoNetns, s.Netns, err)
	}
	defer podNS.Close()
	if retired(host) || !leadsTo(host, podNS, s.Interface) {
		return fmt.Errorf("%w: %s does not lead to %s in %s", ErrElsewhere, s.HostInterface, s.Interface, s.Netns)
	}
	var mac net.HardwareAddr
	err = within(podNS, func(nl *netlink.Handle) (err error) {
		mac, err = checkInside(nl, s)
		return err
	})
	if err != nil {
		return fmt.Errorf("in the pod: %w", err)
	}
	return h.checkOutside(host, s, mac)
}

// checkInside looks at the pod's side and returns its hardware address.
func checkInside(nl *netlink.Handle, s Spec) (net.HardwareAddr, error) {
	link, err := nl.LinkByName(s.Interface)
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", s.Interface, err)
	}
	if err := checkLink(link, s.MTU); err != nil {
		return nil, err
	}
	if have := link.Attrs().HardwareAddr; s.MAC != nil && !bytes.Equal(have, s.MAC) {
		return nil, fmt.Errorf("interface %s has the hardware address %s, expected %s", s.Interface, have, s.MAC)
	}
	gateway, _ := net.ParseMAC(wire.HostMAC)
	for _, a := range s.Addrs {
		family, gw := netlink.FAMILY_V4, wire.Gateway4
		if a.Is6() {
			family, gw = netlink.FAMILY_V6, wire.Gateway6
		}
		if err := hasAddress(nl, link, a, family); err != nil {
			return nil, err
		}
		if err := leadsOut(nl, link, gw, family); err != nil {
			return nil, err
		}
		if err := hasNeighbour(nl, link, gw, gateway, family); err != nil {
			return nil, err
		}
	}
	return link.Attrs().HardwareAddr, nil
}

func checkLink(link netlink.Link, mtu int) error {
	a := link.Attrs()
	if a.Flags&net.FlagUp == 0 {
		return fmt.Errorf("interface %s is down", a.Name)
	}
	if a.MTU != mtu {
		return fmt.Errorf("interface %s has an MTU of %d, expected %d", a.Name, a.MTU, mtu)
	}
	return nil
}

func hasAddress(nl *netlink.Handle, link netlink.Link, a netip.Addr, family int) error {
	addrs, err := nl.AddrList(link, family)
	if err != nil {
		return err
	}
	for _, have := range addrs {
		if have.IP.Equal(a.AsSlice()) {
			return nil
		}
	}
	return fmt.Errorf("address %s is missing", a)
}

// leadsOut looks for the default route, and in IPv4 for the one that makes its
// gateway reachable.
func leadsOut(nl *netlink.Handle, link netlink.Link, gw netip.Addr, family int) error {
	routes, err := nl.RouteList(link, family)
	if err != nil {
		return err
	}
	out, onLink := false, gw.Is6() // a link-local gateway is on link by nature
	for _, r := range routes {
		bits := -1
		if r.Dst == nil {
			bits = 0
		} else {
			bits, _ = r.Dst.Mask.Size()
		}
		out = out || bits == 0 && r.Gw.Equal(gw.AsSlice())
		onLink = onLink || bits == 32 && r.Dst.IP.Equal(gw.AsSlice()) && r.Gw == nil
	}
	switch {
	case !out:
		return fmt.Errorf("default route via %s is missing", gw)
	case !onLink:
		return fmt.Errorf("route to the gateway %s is missing", gw)
	}
	return nil
}

func hasNeighbour(nl *netlink.Handle, link netlink.Link, ip netip.Addr, mac net.HardwareAddr, family int) error {
	all, err := nl.NeighList(link.Attrs().Index, family)
	if err != nil {
		return err
	}
	for _, n := range all {
		if n.IP.Equal(ip.AsSlice()) && n.State&unix.NUD_PERMANENT != 0 && bytes.Equal(n.HardwareAddr, mac) {
			return nil
		}
	}
	return fmt.Errorf("neighbour %s is not permanently at %s on %s", ip, mac, link.Attrs().Name)
}

// checkOutside looks at the node's side: an attachment that the node does not
// route to is none.
func (h *Host) checkOutside(host netlink.Link, s Spec, podMAC net.HardwareAddr) error {
	if err := checkLink(host, s.MTU); err != nil {
		return err
	}
	if mac := host.Attrs().HardwareAddr.String(); mac != wire.HostMAC {
		return fmt.Errorf("interface %s has the hardware address %s, expected %s", s.HostInterface, mac, wire.HostMAC)
	}
	for _, a := range s.Addrs {
		family := netlink.FAMILY_V4
		if a.Is6() {
			family = netlink.FAMILY_V6
		}
		if err := hasNeighbour(h.nl, host, a, podMAC, family); err != nil {
			return err
		}
		routes, err := h.nl.RouteListFiltered(family, &netlink.Route{Dst: ipnet(netip.PrefixFrom(a, a.BitLen()))}, netlink.RT_FILTER_DST)
		if err != nil {
			return fmt.Errorf("route to %s: %w", a, err)
		}
		if len(routes) == 0 || routes[0].LinkIndex != host.Attrs().Index {
			return fmt.Errorf("the node has no route to %s through %s", a, s.HostInterface)
		}
	}
	return nil
}

func ipnet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
