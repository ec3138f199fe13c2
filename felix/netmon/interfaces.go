package netmon

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/felix/kernel/nlsock"
)

// Interfaces tells the engine which addresses the node's interfaces have, those
// of pods aside, so that host endpoints that are given by address find their
// interface. It looks where a Monitor says that something changed. One goroutine
// uses it at a time.
type Interfaces struct {
	handle *netlink.Handle
	post   func(...event.Event)
	known  map[string][]netip.Addr // what was posted, by interface
}

// NewInterfaces returns Interfaces of the network namespace of the calling
// thread, which have told nothing yet.
func NewInterfaces(post func(...event.Event)) (*Interfaces, error) {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("read interfaces: %w", err)
	}
	return &Interfaces{handle: handle, post: post, known: map[string][]netip.Addr{}}, nil
}

// Close closes the netlink socket.
func (i *Interfaces) Close() { i.handle.Close() }

// Look posts what became of the interface or the interfaces that c is about.
func (i *Interfaces) Look(c Change) error {
	switch {
	case c.Lost:
		return i.LookAll()
	case c.Link == "" || c.Link == AllLinks || ofPod(c.Link):
		return nil
	}
	link, err := i.handle.LinkByName(c.Link)
	var gone netlink.LinkNotFoundError
	if errors.As(err, &gone) {
		i.tell(c.Link, nil)
		return nil
	}
	if err != nil {
		return fmt.Errorf("read interface %s: %w", c.Link, err)
	}
	return i.read(link)
}

// LookAll posts what is not as it was posted before, of all interfaces.
func (i *Interfaces) LookAll() error {
	links, err := nlsock.Retry(i.handle.LinkList)
	if err != nil {
		return fmt.Errorf("read interfaces: %w", err)
	}
	there := map[string]bool{}
	var errs []error
	for _, link := range links {
		if name := link.Attrs().Name; !ofPod(name) {
			there[name] = true
			errs = append(errs, i.read(link))
		}
	}
	for name := range i.known {
		if !there[name] {
			i.tell(name, nil)
		}
	}
	return errors.Join(errs...)
}

func ofPod(name string) bool { return strings.HasPrefix(name, desired.InterfacePrefix) }

func (i *Interfaces) read(link netlink.Link) error {
	list, err := nlsock.Retry(func() ([]netlink.Addr, error) { return i.handle.AddrList(link, netlink.FAMILY_ALL) })
	if errors.Is(err, unix.ENODEV) {
		list, err = nil, nil // it has gone meanwhile
	}
	if err != nil {
		return fmt.Errorf("read addresses of interface %s: %w", link.Attrs().Name, err)
	}
	var addrs []netip.Addr
	for _, a := range list {
		// Link-local addresses name no interface: every one may have the same.
		if addr, ok := netip.AddrFromSlice(a.IP); ok && !addr.Unmap().IsLinkLocalUnicast() {
			addrs = append(addrs, addr.Unmap())
		}
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	i.tell(link.Attrs().Name, addrs)
	return nil
}

// tell posts what is new. An interface without addresses is of no use to anyone.
func (i *Interfaces) tell(name string, addrs []netip.Addr) {
	switch {
	case slices.Equal(i.known[name], addrs):
	case len(addrs) == 0:
		delete(i.known, name)
		i.post(event.Gone(event.LocalInterfaceKind, name))
	default:
		i.known[name] = addrs
		i.post(event.Set(name, &event.LocalInterface{Name: name, Addrs: addrs}))
	}
}
