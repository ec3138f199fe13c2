// Package pod makes and removes a pod's attachment: a veth pair between the node
// and the pod's network namespace, and inside of it addresses and routes. It is
// called by felix/cniserver, does all work through netlink, and starts no
// program. The routes on the node are not its business: felix/kernel/route
// installs them when policy is in force.
package pod

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/kernel/nlsock"
	"github.com/koratnet/korat/felix/kernel/sysctl"
)

// Spec says how a pod is attached.
type Spec struct {
	Netns         string // path of the pod's network namespace
	Interface     string // its name inside, usually eth0
	HostInterface string
	Addrs         []netip.Addr     // at most one of each family
	MTU           int              // bytes, of both ends
	MAC           net.HardwareAddr // of the pod's side; nil: the kernel's choice
}

// ErrNoNetns: the path does not name a network namespace.
var ErrNoNetns = errors.New("no network namespace")

// ErrElsewhere: the host interface leads into another network namespace.
var ErrElsewhere = errors.New("interface of another sandbox")

// Host attaches pods to the network namespace it was made in. It may be used by
// any goroutine.
type Host struct {
	nl *netlink.Handle

	direct sync.Mutex   // guards conn
	conn   *nlsock.Conn // for requests that are made here

	reaping sync.Mutex // guards reaper
	reaper  *nlsock.Conn
}

// NewHost returns the Host of the current network namespace.
func NewHost() (*Host, error) {
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netlink socket: %w", err)
	}
	conn, err := nlsock.Open(unix.NETLINK_ROUTE)
	if err != nil {
		nl.Close()
		return nil, fmt.Errorf("netlink socket: %w", err)
	}
	reaper, err := nlsock.Open(unix.NETLINK_ROUTE)
	if err != nil {
		nl.Close()
		conn.Close()
		return nil, fmt.Errorf("netlink socket: %w", err)
	}
	return &Host{nl: nl, conn: conn, reaper: reaper}, nil
}

// Close frees what NewHost opened.
func (h *Host) Close() {
	h.nl.Close()
	h.conn.Close()
	h.reaper.Close()
}

// Prepare removes a veth that has the name of s's host interface and is not s:
// that of an earlier sandbox of a pod of this name, or a retired one. Who sees the
// name after it sees s.
func (h *Host) Prepare(s Spec) error {
	_, err := h.clear(s)
	return err
}

// clear is Prepare, and says whether the veth of s is there.
func (h *Host) clear(s Spec) (there bool, err error) {
	link, err := h.nl.LinkByName(s.HostInterface)
	if isGone(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("%s: %w", s.HostInterface, err)
	}
	if retired(link) {
		return false, h.Detach(s.HostInterface)
	}
	podNS, err := ns.GetNS(s.Netns)
	if err != nil {
		return false, fmt.Errorf("%w at %q: %w", ErrNoNetns, s.Netns, err)
	}
	defer podNS.Close()
	if leadsTo(link, podNS, s.Interface) {
		return true, nil
	}
	return false, h.Detach(s.HostInterface)
}

// Attach makes s so and returns the hardware address of the pod's side. What
// is there already and right is kept; what Prepare would remove is replaced.
// After an error nothing of a new veth is left.
func (h *Host) Attach(s Spec) (net.HardwareAddr, error) {
	podNS, err := ns.GetNS(s.Netns)
	if err != nil {
		return nil, fmt.Errorf("%w at %q: %w", ErrNoNetns, s.Netns, err)
	}
	defer podNS.Close()
	fresh, err := h.veth(podNS, s)
	if err != nil {
		return nil, err
	}
	var mac net.HardwareAddr
	err = visit(int(podNS.Fd()), func() (err error) {
		mac, err = inside(s)
		return err
	})
	if err == nil {
		err = h.outside(s, mac)
	}
	if err != nil && fresh {
		err = errors.Join(err, h.Detach(s.HostInterface))
	}
	if err != nil {
		return nil, fmt.Errorf("attach %s to %s: %w", s.HostInterface, s.Netns, err)
	}
	return mac, nil
}

// Detach removes the veth with the host side iface, and with it the addresses
// in the pod and all routes through it, and returns when that is done: the
// kernel takes its time for it. Absent is success. Retire is the quick way.
func (h *Host) Detach(iface string) error {
	link, err := h.nl.LinkByName(iface)
	if err == nil {
		err = h.nl.LinkDel(link)
	}
	if err != nil && !isGone(err) {
		return fmt.Errorf("remove %s: %w", iface, err)
	}
	return nil
}

// Exists reports whether the host side iface is there and not retired.
func (h *Host) Exists(iface string) (bool, error) {
	link, err := h.nl.LinkByName(iface)
	if isGone(err) {
		return false, nil
	}
	return err == nil && !retired(link), err
}

func isGone(err error) bool {
	var notFound netlink.LinkNotFoundError
	return errors.As(err, &notFound) || errors.Is(err, unix.ENODEV)
}

// veth makes the pair unless it is there and leads into podNS. It asks before it
// looks: as a rule nothing is there.
func (h *Host) veth(podNS ns.NetNS, s Spec) (fresh bool, err error) {
	if err = h.do(vethRequest(s, int(podNS.Fd()))); !errors.Is(err, unix.EEXIST) {
		return err == nil, err
	}
	if there, err := h.clear(s); there || err != nil {
		return false, err
	}
	err = h.do(vethRequest(s, int(podNS.Fd())))
	if errors.Is(err, unix.EEXIST) {
		return false, fmt.Errorf("interface %s exists in the pod already and is not ours", s.Interface)
	}
	return err == nil, err
}

// do makes requests in a row. The error is of the first that failed.
func (h *Host) do(all ...request) error {
	h.direct.Lock()
	defer h.direct.Unlock()
	return carryOut(h.conn, all)
}

// leadsTo reports whether the other end of host is name in podNS.
func leadsTo(host netlink.Link, podNS ns.NetNS, name string) bool {
	same := false
	_ = within(podNS, func(nl *netlink.Handle) error {
		peer, err := nl.LinkByName(name)
		same = err == nil && peer.Type() == "veth" && peer.Attrs().Index == host.Attrs().ParentIndex &&
			peer.Attrs().ParentIndex == host.Attrs().Index
		return nil
	})
	return same
}

// within runs f on a thread in podNS, with a netlink socket of that namespace.
func within(podNS ns.NetNS, f func(*netlink.Handle) error) error {
	return podNS.Do(func(ns.NetNS) error {
		nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return fmt.Errorf("netlink socket: %w", err)
		}
		defer nl.Close()
		return f(nl)
	})
}

// visit runs f in the network namespace of fd, on the calling thread. If there is no
// way back the goroutine keeps the thread, which ends with it.
func visit(fd int, f func() error) error {
	runtime.LockOSThread()
	home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		defer unix.Close(home)
		err = unix.Setns(fd, unix.CLONE_NEWNET)
	}
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter network namespace: %w", err)
	}
	err = f()
	if back := unix.Setns(home, unix.CLONE_NEWNET); back != nil {
		return errors.Join(err, fmt.Errorf("leave network namespace: %w", back))
	}
	runtime.UnlockOSThread()
	return err
}

// inside configures the pod's side. It runs in the pod's namespace.
func inside(s Spec) (net.HardwareAddr, error) {
	conn, err := nlsock.Open(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netlink socket: %w", err)
	}
	defer conn.Close()
	index, mac, err := lookUp(conn, s.Interface)
	if err != nil {
		return nil, err
	}
	// A new namespace takes this over from the first one, which forwards.
	if err := sysctl.Write("net/ipv4/ip_forward", "0"); err != nil {
		return nil, err
	}
	if has6(s.Addrs) {
		for _, c := range []string{"all", "default", "lo", s.Interface} {
			if err := sysctl.Write("net/ipv6/conf/"+c+"/disable_ipv6", "0"); err != nil {
				return nil, err
			}
		}
		// The address is unique by IPAM; waiting to detect duplicates would delay the pod's first packet.
		if err := sysctl.Write("net/ipv6/conf/"+s.Interface+"/accept_dad", "0"); err != nil {
			return nil, err
		}
	}
	const loopback = 1 // its index in every namespace
	all := []request{up(loopback, "lo"), up(index, s.Interface)}
	for _, a := range s.Addrs {
		all = append(all, wayOut(index, a)...)
	}
	return mac, carryOut(conn, all)
}

// outside configures the host's side: its settings before it comes up, then
// the pod's hardware address, which is known and need not be asked for.
func (h *Host) outside(s Spec, podMAC net.HardwareAddr) error {
	// A router advertisement of a pod must never configure the host, whether or not Korat uses IPv6.
	for file, value := range map[string]string{"accept_ra": "0", "accept_dad": "0"} {
		err := sysctl.Write("net/ipv6/conf/"+s.HostInterface+"/"+file, value)
		if err != nil && !errors.Is(err, os.ErrNotExist) { // a kernel without IPv6 has no such file
			return err
		}
	}
	h.direct.Lock()
	defer h.direct.Unlock()
	index, _, err := lookUp(h.conn, s.HostInterface)
	if err != nil {
		return err
	}
	all := []request{up(index, s.HostInterface)}
	for _, a := range s.Addrs {
		all = append(all, neighbour(index, a, podMAC))
	}
	return carryOut(h.conn, all)
}

func has6(addrs []netip.Addr) bool {
	for _, a := range addrs {
		if a.Is6() {
			return true
		}
	}
	return false
}
