package netmon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/felix/kernel/nlsock"
)

// reachEvery is how often the kernel is asked again without a reason: it does not
// tell of every route that others change.
const reachEvery = 30 * time.Second

// Reaches asks the kernel how it reaches the other nodes, and tells the engine:
// through which interface, with what MTU, and whether over a router.
type Reaches struct {
	handle *netlink.Handle
	get    func(net.IP) ([]netlink.Route, error) // of the handle, or of a test
	post   func(...event.Event)
	wake   chan struct{}

	mu    sync.Mutex // guards nodes
	nodes map[string][]netip.Addr

	looking sync.Mutex                 // guards known: one looks at a time
	known   map[netip.Addr]event.Reach // what was posted
}

// NewReaches returns Reaches of the network namespace of the calling thread.
func NewReaches(post func(...event.Event)) (*Reaches, error) {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("ways to nodes: %w", err)
	}
	return &Reaches{
		handle: handle, post: post, wake: make(chan struct{}, 1),
		get: func(a net.IP) ([]netlink.Route, error) {
			return handle.RouteGetWithOptions(a, &netlink.RouteGetOptions{Mark: desired.ApartMark})
		},
		nodes: map[string][]netip.Addr{}, known: map[netip.Addr]event.Reach{},
	}, nil
}

// Close closes the netlink socket.
func (r *Reaches) Close() { r.handle.Close() }

// SetNode says which addresses another node has; none: it is gone. It is safe for
// concurrent use.
func (r *Reaches) SetNode(name string, addrs []netip.Addr) {
	r.mu.Lock()
	same := slices.Equal(r.nodes[name], addrs)
	if len(addrs) == 0 {
		delete(r.nodes, name)
	} else {
		r.nodes[name] = addrs
	}
	r.mu.Unlock()
	if !same {
		r.again()
	}
}

// Nodes returns the addresses of other nodes, as SetNode said, by name. It is safe for
// concurrent use.
func (r *Reaches) Nodes() map[string][]netip.Addr {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.nodes)
}

// Look says that c happened. It is safe for concurrent use.
func (r *Reaches) Look(c Change) {
	_, tunnel := desired.TunnelOfDevice(c.Link)
	if c.Lost || c.Link != "" && c.Link != AllLinks && !ofPod(c.Link) && !tunnel {
		r.again()
	}
}

func (r *Reaches) again() {
	select {
	case r.wake <- struct{}{}:
	default: // somebody will look anyway
	}
}

// Run asks until ctx ends.
func (r *Reaches) Run(ctx context.Context, fail func(error)) error {
	tick := time.NewTicker(reachEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-r.wake:
		}
		if err := r.LookNow(); err != nil {
			fail(err)
		}
	}
}

// LookNow posts what is not as it was posted before. Where the kernel did not answer,
// what it said last stands. It is safe for concurrent use.
func (r *Reaches) LookNow() error {
	r.looking.Lock()
	defer r.looking.Unlock()
	r.mu.Lock()
	var wanted []netip.Addr
	for _, addrs := range r.nodes {
		wanted = append(wanted, addrs...)
	}
	r.mu.Unlock()
	links := map[int]uplink{}
	now := map[netip.Addr]event.Reach{}
	var failed error // the last: all fail for the same reason
	for _, a := range wanted {
		reach, ok, err := r.ask(a, links)
		if err != nil { // nothing is known of it that was not before
			failed = err
			reach, ok = r.known[a]
		}
		if ok {
			now[a] = reach
		}
	}
	var news []event.Event
	for a := range r.known {
		if _, still := now[a]; !still {
			news = append(news, event.Gone(event.ReachKind, a.String()))
		}
	}
	for a, reach := range now {
		if r.known[a] != reach {
			news = append(news, event.Set(a.String(), &reach))
		}
	}
	r.known = maps.Clone(now)
	if len(news) > 0 {
		r.post(news...)
	}
	return failed
}

// uplink is what matters of an interface that leads to other nodes.
type uplink struct {
	name  string
	mtu   int
	addrs []netip.Prefix
}

// ask asks the kernel for the way to a. What leads nowhere, or to this node itself,
// or through what is ours is none.
func (r *Reaches) ask(a netip.Addr, links map[int]uplink) (reach event.Reach, ok bool, err error) {
	routes, err := r.get(a.AsSlice())
	switch {
	case nlsock.NoRoute(err):
		return reach, false, nil
	case err != nil:
		return reach, false, fmt.Errorf("way to %s: %w", a, err)
	case len(routes) == 0:
		return reach, false, nil
	}
	way := routes[0]
	if way.Type != unix.RTN_UNICAST || way.LinkIndex == 0 {
		return reach, false, nil
	}
	link, known := links[way.LinkIndex]
	if !known {
		if link, err = r.uplink(way.LinkIndex); err != nil {
			return reach, false, fmt.Errorf("way to %s: %w", a, err)
		}
		links[way.LinkIndex] = link
	}
	if _, tunnel := desired.TunnelOfDevice(link.name); tunnel || ofPod(link.name) || link.mtu == 0 {
		return reach, false, nil
	}
	reach = event.Reach{Addr: a, Interface: link.name, MTU: link.mtu}
	if way.MTU > 0 {
		reach.MTU = min(reach.MTU, way.MTU)
	}
	if gateway, is := netip.AddrFromSlice(way.Gw); is {
		reach.Gateway = gateway.Unmap()
	}
	source, _ := netip.AddrFromSlice(way.Src)
	for _, p := range link.addrs {
		if p.Addr() == source.Unmap() {
			reach.Source = p
		}
	}
	return reach, true, nil
}

// uplink reads an interface; one that went meanwhile has no MTU.
func (r *Reaches) uplink(index int) (uplink, error) {
	link, err := r.handle.LinkByIndex(index)
	if _, gone := errors.AsType[netlink.LinkNotFoundError](err); gone {
		return uplink{}, nil
	}
	if err != nil {
		return uplink{}, err
	}
	u := uplink{name: link.Attrs().Name, mtu: link.Attrs().MTU}
	list, err := nlsock.Retry(func() ([]netlink.Addr, error) { return r.handle.AddrList(link, netlink.FAMILY_ALL) })
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return uplink{}, err
	}
	for _, a := range list {
		if ip, ok := netip.AddrFromSlice(a.IP); ok {
			bits, _ := a.Mask.Size()
			u.addrs = append(u.addrs, netip.PrefixFrom(ip.Unmap(), bits))
		}
	}
	return u, nil
}
