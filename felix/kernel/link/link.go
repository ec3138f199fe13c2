// Package link keeps the host side of local pods' veths as desired: up, with the
// MAC address and, for pods with IPv6, the link-local address that pods have as
// their gateway. felix/apply calls it.
//
// It never makes or deletes an interface: felix/pod does, for the CNI plugin. An
// interface that is not there is therefore no failure of ours but holds the
// endpoint closed until it appears.
package link

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/nlsock"
)

// mac is the address of every host side. It is the same everywhere, so that the
// neighbour entry in a pod stays right when the interface is made anew.
var mac = net.HardwareAddr{0xee, 0xee, 0xee, 0xee, 0xee, 0xee}

// gateway6 is what the kernel derives from mac. It is set explicitly, because
// the kernel derives it when the interface comes up, maybe from another MAC.
var gateway6 = &net.IPNet{IP: net.ParseIP("fe80::ecee:eeff:feee:eeee"), Mask: net.CIDRMask(64, 128)}

// Reconciler is an apply.Reconciler, Gated and a LinkWatcher. Interfaces are few,
// so it does not keep what the kernel has: it looks at those that may be wrong.
type Reconciler struct {
	handle *netlink.Handle
	want   map[string]wanted
	unsure map[string]error // wanted and not seen to be right; why, nil if not looked at
}

type wanted struct {
	ipv6       bool
	generation uint64 // another one: the interface was made anew
}

// New returns a Reconciler for the network namespace of the calling thread.
func New() (*Reconciler, error) {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("links: %w", err)
	}
	return &Reconciler{handle: handle, want: map[string]wanted{}, unsure: map[string]error{}}, nil
}

// Close closes the netlink socket.
func (r *Reconciler) Close() { r.handle.Close() }

// Name implements apply.Reconciler.
func (*Reconciler) Name() string { return "link" }

// Want implements apply.Reconciler.
func (r *Reconciler) Want(d desired.Delta) {
	for name, ep := range d.Endpoints {
		if ep == nil {
			delete(r.want, name)
			delete(r.unsure, name)
			continue
		}
		w := wanted{slices.ContainsFunc(ep.Addrs, netip.Addr.Is6), ep.Generation}
		if old, known := r.want[name]; !known || old != w {
			r.want[name], r.unsure[name] = w, nil
		}
	}
}

// LinkChanged implements apply.LinkWatcher.
func (r *Reconciler) LinkChanged(name string) {
	if _, ok := r.want[name]; ok {
		r.unsure[name] = nil
	}
}

// Closed implements apply.Gated.
func (r *Reconciler) Closed() map[string]error {
	closed := map[string]error{}
	for name, err := range r.unsure {
		if err == nil {
			err = errors.New("not set up yet")
		}
		closed[name] = fmt.Errorf("interface %s: %w", name, err)
	}
	return closed
}

// Resync implements apply.Reconciler: the next Apply looks at everything.
func (r *Reconciler) Resync(context.Context) error {
	for name := range r.want {
		r.unsure[name] = nil
	}
	return nil
}

// Apply implements apply.Reconciler.
func (r *Reconciler) Apply(context.Context) error {
	if len(r.unsure) == 0 {
		return nil
	}
	gateways, err := r.gateways()
	if err != nil {
		return err
	}
	var errs []error
	for name := range r.unsure {
		err := r.setUp(name, gateways)
		if err == nil {
			delete(r.unsure, name)
			continue
		}
		r.unsure[name] = err
		if !missing(err) {
			errs = append(errs, fmt.Errorf("interface %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// missing reports whether err says that the interface is not there (any more).
func missing(err error) bool {
	_, notFound := errors.AsType[netlink.LinkNotFoundError](err)
	return notFound || errors.Is(err, unix.ENODEV)
}

// setUp makes one interface as wanted and writes nothing when it is. gateways
// are the indexes of interfaces that have gateway6.
func (r *Reconciler) setUp(name string, gateways map[int]bool) error {
	l, err := r.handle.LinkByName(name)
	if err != nil {
		return err
	}
	attrs := l.Attrs()
	if !bytes.Equal(attrs.HardwareAddr, mac) {
		if err := r.handle.LinkSetHardwareAddr(l, mac); err != nil {
			return fmt.Errorf("set MAC address: %w", err)
		}
	}
	if attrs.Flags&net.FlagUp == 0 {
		if err := r.handle.LinkSetUp(l); err != nil {
			return fmt.Errorf("bring up: %w", err)
		}
	}
	if r.want[name].ipv6 && !gateways[attrs.Index] {
		addr := &netlink.Addr{IPNet: gateway6, Scope: unix.RT_SCOPE_LINK, Flags: unix.IFA_F_NODAD}
		if err := r.handle.AddrAdd(l, addr); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add %s: %w", gateway6.IP, err)
		}
	}
	return nil
}

// gateways returns the indexes of the interfaces that have gateway6, if one that is
// to be looked at wants it.
func (r *Reconciler) gateways() (map[int]bool, error) {
	wanted := false
	for name := range r.unsure {
		wanted = wanted || r.want[name].ipv6
	}
	if !wanted {
		return nil, nil
	}
	addrs, err := nlsock.Retry(func() ([]netlink.Addr, error) { return r.handle.AddrList(nil, netlink.FAMILY_V6) })
	if err != nil {
		return nil, fmt.Errorf("read addresses: %w", err)
	}
	have := map[int]bool{}
	for _, a := range addrs {
		if a.IP.Equal(gateway6.IP) {
			have[a.LinkIndex] = true
		}
	}
	return have, nil
}
