package tunnel

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/nlsock"
)

// errForeign says that another program made the interface.
var errForeign = errors.New("an interface of this name is there that is not ours: rename or remove it")

// setUp makes the interface of t as wanted, writes nothing when it is, and returns
// its index. What cannot be changed of an interface makes it anew.
func (r *Reconciler) setUp(t desired.TunnelDevice) (index int, err error) {
	name := t.Kind.Device()
	link, err := r.handle.LinkByName(name)
	switch {
	case err == nil && link.Attrs().Alias != Alias:
		return 0, errForeign
	case err == nil && !same(link, t):
		if err := r.handle.LinkDel(link); err != nil {
			return 0, fmt.Errorf("remove, to make it anew: %w", err)
		}
		link, err = r.create(t)
	case missing(err):
		link, err = r.create(t)
	}
	if err != nil {
		return 0, err
	}
	return link.Attrs().Index, errors.Join(r.setAttrs(link, t), r.setAddr(link, t))
}

func missing(err error) bool {
	_, notFound := errors.AsType[netlink.LinkNotFoundError](err)
	return notFound || errors.Is(err, unix.ENODEV)
}

// create makes an interface that is ours, and not up yet. One that could not get
// its alias is removed: nobody would know whose it is.
func (r *Reconciler) create(t desired.TunnelDevice) (netlink.Link, error) {
	if err := r.handle.LinkAdd(fresh(t)); err != nil {
		return nil, fmt.Errorf("make: %w", err)
	}
	link, err := r.handle.LinkByName(t.Kind.Device())
	if err != nil {
		return nil, err
	}
	if err := r.handle.LinkSetAlias(link, Alias); err != nil {
		return nil, errors.Join(fmt.Errorf("set alias: %w", err), r.handle.LinkDel(link))
	}
	return link, nil
}

// fresh returns the interface to make. It is bound to an address and to no
// interface below it: packets leave by whatever route leads to the other end.
func fresh(t desired.TunnelDevice) netlink.Link {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = t.Kind.Device(), t.MTU
	if t.Kind.Encapsulation() == desired.IPIP {
		return &netlink.Iptun{LinkAttrs: attrs, Local: t.Underlay.AsSlice(), PMtuDisc: 1}
	}
	attrs.HardwareAddr = t.MAC[:]
	return &netlink.Vxlan{LinkAttrs: attrs, VxlanId: desired.VXLANID, Port: desired.VXLANPort, SrcAddr: t.Underlay.AsSlice()}
}

// same reports whether link is a tunnel such as t.
func same(link netlink.Link, t desired.TunnelDevice) bool {
	switch l := link.(type) {
	case *netlink.Vxlan:
		return t.Kind.Encapsulation() == desired.VXLAN && l.VxlanId == desired.VXLANID && l.Port == desired.VXLANPort &&
			!l.Learning && !l.FlowBased && l.SrcAddr.Equal(t.Underlay.AsSlice())
	case *netlink.Iptun:
		return t.Kind.Encapsulation() == desired.IPIP && !l.FlowBased && l.Local.Equal(t.Underlay.AsSlice()) &&
			(l.Remote == nil || l.Remote.IsUnspecified())
	}
	return false
}

func (r *Reconciler) setAttrs(link netlink.Link, t desired.TunnelDevice) error {
	attrs := link.Attrs()
	if t.Kind.Encapsulation() == desired.VXLAN && !bytes.Equal(attrs.HardwareAddr, t.MAC[:]) {
		if err := r.handle.LinkSetHardwareAddr(link, t.MAC[:]); err != nil {
			return fmt.Errorf("set MAC address: %w", err)
		}
	}
	if t.MTU != 0 && attrs.MTU != t.MTU {
		if err := r.handle.LinkSetMTU(link, t.MTU); err != nil {
			return fmt.Errorf("set MTU %d: %w", t.MTU, err)
		}
	}
	if attrs.Flags&net.FlagUp == 0 {
		if err := r.handle.LinkSetUp(link); err != nil {
			return fmt.Errorf("bring up: %w", err)
		}
	}
	return nil
}

// setAddr gives the interface the node's address inside, and no other of its
// family that could be chosen as source. It is added first, so that there is one
// at any time.
func (r *Reconciler) setAddr(link netlink.Link, t desired.TunnelDevice) error {
	family := netlink.FAMILY_V4
	if t.Kind.Is6() {
		family = netlink.FAMILY_V6
	}
	have, err := nlsock.Retry(func() ([]netlink.Addr, error) { return r.handle.AddrList(link, family) })
	if err != nil {
		return fmt.Errorf("read addresses: %w", err)
	}
	there := false
	var strays []netlink.Addr
	for _, a := range have {
		if ip, ok := netip.AddrFromSlice(a.IP); ok && ip.Unmap() == t.Addr {
			there = true
		} else if !a.IP.IsLinkLocalUnicast() {
			strays = append(strays, a)
		}
	}
	if t.Addr.IsValid() && !there {
		ip := &net.IPNet{IP: t.Addr.AsSlice(), Mask: net.CIDRMask(t.Addr.BitLen(), t.Addr.BitLen())}
		err := r.handle.AddrAdd(link, &netlink.Addr{IPNet: ip, Flags: unix.IFA_F_NODAD})
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add %s: %w", t.Addr, err)
		}
	}
	for _, a := range strays {
		if err := r.handle.AddrDel(link, &a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("remove %s: %w", a.IP, err)
		}
	}
	return nil
}

func (r *Reconciler) takeDown(kind desired.TunnelKind) error {
	link, err := r.handle.LinkByName(kind.Device())
	if missing(err) || err == nil && link.Attrs().Alias != Alias {
		return nil
	}
	if err != nil {
		return err
	}
	if err := r.handle.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove: %w", err)
	}
	return nil
}
