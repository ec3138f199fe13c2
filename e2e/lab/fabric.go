package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/e2e/lab/machine"
	"github.com/koratnet/korat/e2e/lab/topology"
)

// segment is a layer-2 segment: a network namespace that holds a bridge and no
// process, so that nothing that dies takes the wire with it.
type segment struct{ netns string }

const bridge = "br0"

// Interface names inside the machines. A node's eth0 is made first, since the
// kernel answers traceroute and pods with the first interface's address.
const (
	fabricLink     = "eth0"
	managementLink = "mgmt0"
)

func (s segment) add() error {
	if err := machine.AddNetns(s.netns); err != nil {
		return err
	}
	err := inside(s.netns, func(h *netlink.Handle) error {
		br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridge}}
		if err := h.LinkAdd(br); err != nil {
			return err
		}
		return h.LinkSetUp(br)
	})
	if err != nil {
		return fmt.Errorf("segment %s: %w", s.netns, err)
	}
	return nil
}

// end is one end of a cable: a link in a network namespace.
type end struct {
	netns, link string
	addrs       []netip.Prefix // invalid ones are skipped
}

// hardwareAddr is the same whenever the link is made, as that of a network card is:
// others remember it while a machine is off. Of a link without addresses it is nil, and
// the kernel's choice.
func (e end) hardwareAddr() net.HardwareAddr {
	if len(e.addrs) == 0 || !e.addrs[0].IsValid() {
		return nil
	}
	a := e.addrs[0].Addr().As16()
	return append(net.HardwareAddr{0x02}, a[11:]...) // locally administered
}

// plug joins a machine's link to the segment; its port is named port.
func (s segment) plug(e end, port string) error {
	if err := cable(end{netns: s.netns, link: port}, e); err != nil {
		return err
	}
	return inside(s.netns, func(h *netlink.Handle) error {
		br, err := h.LinkByName(bridge)
		if err != nil {
			return err
		}
		l, err := h.LinkByName(port)
		if err != nil {
			return err
		}
		return h.LinkSetMaster(l, br)
	})
}

// unplug removes the port of that name, and with it the link at its other end.
func (s segment) unplug(port string) error {
	err := inside(s.netns, func(h *netlink.Handle) error {
		l, err := h.LinkByName(port)
		if err != nil {
			return err
		}
		return h.LinkDel(l)
	})
	if err != nil {
		return fmt.Errorf("unplug %s from %s: %w", port, s.netns, err)
	}
	return nil
}

// cable makes a veth pair with its ends in place from the start, so that no
// link ever shows on the host.
func cable(a, b end) error {
	to, err := netns.GetFromName(b.netns)
	if err != nil {
		return fmt.Errorf("network namespace %s: %w", b.netns, err)
	}
	defer to.Close()
	err = inside(a.netns, func(h *netlink.Handle) error {
		return h.LinkAdd(&netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: a.link, HardwareAddr: a.hardwareAddr()},
			PeerName:  b.link, PeerNamespace: netlink.NsFd(to), PeerHardwareAddr: b.hardwareAddr(),
		})
	})
	if err != nil {
		return fmt.Errorf("cable %s %s to %s %s: %w", a.netns, a.link, b.netns, b.link, err)
	}
	return errors.Join(configure(a), configure(b))
}

func configure(e end) error {
	err := inside(e.netns, func(h *netlink.Handle) error {
		l, err := h.LinkByName(e.link)
		if err != nil {
			return err
		}
		if err := h.LinkSetUp(l); err != nil {
			return err
		}
		for _, a := range e.addrs {
			if !a.IsValid() {
				continue
			}
			// The plan has no duplicates, and looking for them takes a second.
			if err := h.AddrAdd(l, &netlink.Addr{IPNet: ipNet(a), Flags: unix.IFA_F_NODAD}); err != nil {
				return fmt.Errorf("address %s: %w", a, err)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("%s in %s: %w", e.link, e.netns, err)
	}
	return nil
}

// defaultRoute points everything at the gateways, over all of them evenly.
func defaultRoute(name string, gateways []netip.Prefix) error {
	if len(gateways) == 0 || !gateways[0].IsValid() {
		return nil
	}
	err := inside(name, func(h *netlink.Handle) error {
		l, err := h.LinkByName(fabricLink)
		if err != nil {
			return err
		}
		all := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if gateways[0].Addr().Is6() {
			all = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		r := &netlink.Route{Dst: ipNet(all)}
		for _, g := range gateways {
			r.MultiPath = append(r.MultiPath, &netlink.NexthopInfo{LinkIndex: l.Attrs().Index, Gw: g.Addr().AsSlice()})
		}
		return h.RouteAdd(r)
	})
	if err != nil {
		return fmt.Errorf("default route in %s: %w", name, err)
	}
	return nil
}

// inside calls f with a netlink handle of the named namespace.
func inside(name string, f func(*netlink.Handle) error) error {
	ns, err := netns.GetFromName(name)
	if err != nil {
		return fmt.Errorf("network namespace %s: %w", name, err)
	}
	defer ns.Close()
	h, err := netlink.NewHandleAt(ns)
	if err != nil {
		return err
	}
	defer h.Close()
	return f(h)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// wire makes all segments and cables of the topology. The machines' network
// namespaces exist already.
func wire(t *topology.Topology, netnsOf func(string) string) error {
	mgmt := managementSegment(netnsOf)
	if err := mgmt.add(); err != nil {
		return err
	}
	for i := range t.Racks {
		if err := rackSegment(&t.Racks[i], netnsOf).add(); err != nil {
			return err
		}
	}
	for _, n := range t.Nodes() {
		if err := plugNode(n, netnsOf); err != nil {
			return err
		}
	}
	if err := mgmt.plug(end{netnsOf(topology.ControlPlane), managementLink, []netip.Prefix{t.APIServer()}}, topology.ControlPlane); err != nil {
		return err
	}
	return wireRouters(t, netnsOf)
}

func managementSegment(netnsOf func(string) string) segment { return segment{netnsOf("mgmt.seg")} }

func rackSegment(r *topology.Rack, netnsOf func(string) string) segment {
	return segment{netnsOf("rack-" + r.Name + ".seg")}
}

// plugNode joins a node to its rack and to the segment of the API server.
func plugNode(n topology.Node, netnsOf func(string) string) error {
	ns := netnsOf(n.Name)
	return errors.Join(
		rackSegment(n.Rack, netnsOf).plug(end{ns, fabricLink, []netip.Prefix{n.Address, n.Address6}}, n.Name),
		managementSegment(netnsOf).plug(end{ns, managementLink, []netip.Prefix{n.Management}}, n.Name),
		defaultRoute(ns, n.Rack.Gateways(false)),
		defaultRoute(ns, n.Rack.Gateways(true)))
}

// unplugNode takes away what plugNode made.
func unplugNode(n topology.Node, netnsOf func(string) string) error {
	return errors.Join(
		rackSegment(n.Rack, netnsOf).unplug(n.Name),
		managementSegment(netnsOf).unplug(n.Name))
}

// wireRouters walks each router's interfaces, of which the topology says what
// is at the other end: first the rack, then the spine, then the hosts.
func wireRouters(t *topology.Topology, netnsOf func(string) string) error {
	ends := map[netip.Prefix]end{}
	for _, r := range t.Routers() {
		for i, itf := range r.Interfaces {
			e := end{netnsOf(r.Name), itf.Name, []netip.Prefix{itf.Address, itf.Address6}}
			if i > 0 {
				ends[itf.Address] = e
			} else if err := rackSegment(r.Rack, netnsOf).plug(e, r.Name); err != nil {
				return err
			}
		}
	}
	for _, l := range t.Spine {
		a := l.Ends(false)
		if err := cable(ends[a[0]], ends[a[1]]); err != nil {
			return err
		}
	}
	for _, h := range t.Hosts {
		ns := netnsOf(h.Name)
		err := errors.Join(
			cable(ends[h.Gateway(false)], end{ns, fabricLink, []netip.Prefix{h.Address(false), h.Address(true)}}),
			defaultRoute(ns, []netip.Prefix{h.Gateway(false)}),
			defaultRoute(ns, []netip.Prefix{h.Gateway(true)}))
		if err != nil {
			return err
		}
	}
	return nil
}

// placeControlPlane gives the API server a leg in the first rack. From there it
// calls kubelets and pods, by the routes that the rack's routers have.
func placeControlPlane(t *topology.Topology, netnsOf func(string) string) error {
	ns := netnsOf(topology.ControlPlane)
	v4, v6 := t.InRack()
	rack := rackSegment(&t.Racks[0], netnsOf)
	return errors.Join(
		rack.plug(end{ns, fabricLink, []netip.Prefix{v4, v6}}, topology.ControlPlane),
		defaultRoute(ns, t.Racks[0].Gateways(false)),
		defaultRoute(ns, t.Racks[0].Gateways(true)))
}
