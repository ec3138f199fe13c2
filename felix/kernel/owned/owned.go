// Package owned keeps what several reconcilers have in the kernel of one kind:
// interfaces that Korat makes for itself and that have a fixed name, and rules of
// policy routing. It tells them from those of others, makes them and takes them away.
// It holds no state.
package owned

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/kernel/nlsock"
)

// Alias marks the interfaces that are ours.
const Alias = "korat tunnel"

// ErrForeign says that another program made the interface.
var ErrForeign = errors.New("an interface of this name is there that is not ours: rename or remove it")

// Find returns our interface of that name, nil if there is no interface of the name.
// With ErrForeign it returns the other's.
func Find(h *netlink.Handle, name string) (netlink.Link, error) {
	link, err := h.LinkByName(name)
	switch {
	case missing(err):
		return nil, nil
	case err != nil:
		return nil, err
	case link.Attrs().Alias != Alias:
		return link, ErrForeign
	}
	return link, nil
}

func missing(err error) bool {
	_, notFound := errors.AsType[netlink.LinkNotFoundError](err)
	return notFound || errors.Is(err, unix.ENODEV)
}

// Create makes an interface that is ours, and not up yet. One that could not get
// its alias is removed: nobody would know whose it is.
func Create(h *netlink.Handle, fresh netlink.Link) (netlink.Link, error) {
	if err := h.LinkAdd(fresh); err != nil {
		return nil, fmt.Errorf("make: %w", err)
	}
	link, err := h.LinkByName(fresh.Attrs().Name)
	if err != nil {
		return nil, err
	}
	if err := Claim(h, link); err != nil {
		return nil, errors.Join(err, h.LinkDel(link))
	}
	return link, nil
}

// Claim makes link ours.
func Claim(h *netlink.Handle, link netlink.Link) error {
	if err := h.LinkSetAlias(link, Alias); err != nil {
		return fmt.Errorf("set alias: %w", err)
	}
	return nil
}

// SetMTU sets what link's MTU is; 0 leaves it as it is.
func SetMTU(h *netlink.Handle, link netlink.Link, mtu int) error {
	if mtu == 0 || link.Attrs().MTU == mtu {
		return nil
	}
	if err := h.LinkSetMTU(link, mtu); err != nil {
		return fmt.Errorf("set MTU %d: %w", mtu, err)
	}
	return nil
}

// SetUp brings link up.
func SetUp(h *netlink.Handle, link netlink.Link) error {
	if link.Attrs().Flags&net.FlagUp != 0 {
		return nil
	}
	if err := h.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring up: %w", err)
	}
	return nil
}

// SetAddr gives link addr, and no other of the family that could be chosen as
// source; the zero Addr: none at all. It is added first, so that there is one at any
// time.
func SetAddr(h *netlink.Handle, link netlink.Link, addr netip.Addr, v6 bool) error {
	family := netlink.FAMILY_V4
	if v6 {
		family = netlink.FAMILY_V6
	}
	have, err := nlsock.Retry(func() ([]netlink.Addr, error) { return h.AddrList(link, family) })
	if err != nil {
		return fmt.Errorf("read addresses: %w", err)
	}
	there := false
	var strays []netlink.Addr
	for _, a := range have {
		if ip, ok := netip.AddrFromSlice(a.IP); ok && ip.Unmap() == addr {
			there = true
		} else if !a.IP.IsLinkLocalUnicast() {
			strays = append(strays, a)
		}
	}
	if addr.IsValid() && !there {
		ip := &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(addr.BitLen(), addr.BitLen())}
		err := h.AddrAdd(link, &netlink.Addr{IPNet: ip, Flags: unix.IFA_F_NODAD})
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add %s: %w", addr, err)
		}
	}
	for _, a := range strays {
		if err := h.AddrDel(link, &a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("remove %s: %w", a.IP, err)
		}
	}
	return nil
}

// Remove takes link away. It is no error that there is none any more.
func Remove(h *netlink.Handle, link netlink.Link) error {
	if err := h.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove: %w", err)
	}
	return nil
}
