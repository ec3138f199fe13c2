package tunnel

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/owned"
)

// setUp makes the interface of t as wanted, writes nothing when it is, and returns
// its index. What cannot be changed of an interface makes it anew.
func (r *Reconciler) setUp(t desired.TunnelDevice) (index int, err error) {
	link, err := owned.Find(r.handle, t.Kind.Device())
	if err != nil {
		return 0, err
	}
	if link != nil && !same(link, t) {
		if err := owned.Remove(r.handle, link); err != nil {
			return 0, fmt.Errorf("to make it anew: %w", err)
		}
		link = nil
	}
	if link == nil {
		if link, err = owned.Create(r.handle, fresh(t)); err != nil {
			return 0, err
		}
	}
	return link.Attrs().Index, errors.Join(r.setAttrs(link, t), owned.SetAddr(r.handle, link, t.Addr, t.Kind.Is6()))
}

// ttl is that of packets that carry others (RFC 2003, section 3.1). If it were that of
// the packet inside, one that has little left would not get past the routers between
// two nodes, whose answer to the tunnel no traceroute of a pod sees.
const ttl = 64

// fresh returns the interface to make. It is bound to an address and to no
// interface below it: packets leave by whatever route leads to the other end.
func fresh(t desired.TunnelDevice) netlink.Link {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = t.Kind.Device(), t.MTU
	if t.Kind.Encapsulation() == desired.IPIP {
		return &netlink.Iptun{LinkAttrs: attrs, Local: t.Underlay.AsSlice(), Ttl: ttl, PMtuDisc: 1}
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
	if t.Kind.Encapsulation() == desired.VXLAN && !bytes.Equal(link.Attrs().HardwareAddr, t.MAC[:]) {
		if err := r.handle.LinkSetHardwareAddr(link, t.MAC[:]); err != nil {
			return fmt.Errorf("set MAC address: %w", err)
		}
	}
	if l, ok := link.(*netlink.Iptun); ok && l.Ttl != ttl {
		if err := r.handle.LinkModify(fresh(t)); err != nil {
			return fmt.Errorf("set TTL: %w", err)
		}
	}
	if err := owned.SetMTU(r.handle, link, t.MTU); err != nil {
		return err
	}
	return errors.Join(owned.SetUp(r.handle, link), r.setOffload(t.Kind))
}

func (r *Reconciler) takeDown(kind desired.TunnelKind) error {
	link, err := owned.Find(r.handle, kind.Device())
	if errors.Is(err, owned.ErrForeign) || link == nil && err == nil {
		return nil
	}
	if err != nil {
		return err
	}
	return owned.Remove(r.handle, link)
}
