package lab

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Route is a route of a machine's main table.
type Route struct {
	Prefix netip.Prefix
	// Via are the next hops, sorted; empty for a prefix that is directly there.
	Via []netip.Addr
	// Link is the interface; with several next hops that of the first.
	Link string
	// Protocol is who made it, by the kernel's number.
	Protocol int
	// Unreachable is set for a route that discards.
	Unreachable bool
}

// Routes lists the IPv4 and IPv6 unicast routes of the machine's main table
// that lie within the pods' ranges.
func (l *Lab) Routes(name string) ([]Route, error) {
	m := l.machines[name]
	if m == nil {
		return nil, fmt.Errorf("there is no machine %q", name)
	}
	var out []Route
	err := inside(m.Netns, func(h *netlink.Handle) error {
		links, err := h.LinkList()
		if err != nil {
			return err
		}
		names := map[int]string{}
		for _, link := range links {
			names[link.Attrs().Index] = link.Attrs().Name
		}
		routes, err := h.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return err
		}
		for i := range routes {
			if r := describe(&routes[i], names); l.forPods(r.Prefix) {
				out = append(out, r)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("routes of %s: %w", name, err)
	}
	return out, nil
}

// RouteTo is the machine's route for exactly that prefix.
func (l *Lab) RouteTo(name string, p netip.Prefix) (r Route, found bool, err error) {
	routes, err := l.Routes(name)
	i := slices.IndexFunc(routes, func(r Route) bool { return r.Prefix == p })
	if err != nil || i < 0 {
		return Route{}, false, err
	}
	return routes[i], true, nil
}

func (l *Lab) forPods(p netip.Prefix) bool {
	return p.IsValid() && (l.Topology.Pool.Overlaps(p) && p.Bits() >= l.Topology.Pool.Bits() ||
		l.Topology.Pool6.IsValid() && l.Topology.Pool6.Overlaps(p) && p.Bits() >= l.Topology.Pool6.Bits())
}

func describe(r *netlink.Route, names map[int]string) Route {
	out := Route{Prefix: prefix(r.Dst), Protocol: int(r.Protocol), Link: names[r.LinkIndex], Unreachable: r.Type == unix.RTN_UNREACHABLE}
	hops := []net.IP{r.Gw}
	for i, n := range r.MultiPath {
		hops = append(hops, n.Gw)
		if i == 0 {
			out.Link = names[n.LinkIndex]
		}
	}
	for _, h := range hops {
		if a, ok := netip.AddrFromSlice(h); ok {
			out.Via = append(out.Via, a.Unmap())
		}
	}
	slices.SortFunc(out.Via, netip.Addr.Compare)
	return out
}

func prefix(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	a, _ := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), bits)
}

// RouteWatch records what happens to a machine's routes for pods.
type RouteWatch struct {
	stop chan struct{}
	done chan struct{}

	mu     sync.Mutex // guards events
	events []string
}

// WatchRoutes starts a record of the routes for pods that the machine's kernel
// removes or changes.
func (l *Lab) WatchRoutes(name string) (*RouteWatch, error) {
	m := l.machines[name]
	if m == nil {
		return nil, fmt.Errorf("there is no machine %q", name)
	}
	ns, err := netns.GetFromName(m.Netns)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	w := &RouteWatch{stop: make(chan struct{}), done: make(chan struct{})}
	updates := make(chan netlink.RouteUpdate, 64)
	err = netlink.RouteSubscribeWithOptions(updates, w.stop, netlink.RouteSubscribeOptions{
		Namespace: &ns,
		ErrorCallback: func(err error) {
			select {
			case <-w.stop: // our own end of it
			default:
				w.add(err.Error())
			}
		},
	})
	if err != nil {
		return nil, fmt.Errorf("watch routes of %s: %w", name, err)
	}
	go func() { // ends with Stop, which closes updates through the subscription
		defer close(w.done)
		for u := range updates {
			p := prefix(u.Dst)
			switch {
			case !l.forPods(p):
			case u.Type == unix.RTM_DELROUTE:
				w.add("deleted " + p.String())
			case u.NlFlags&unix.NLM_F_REPLACE != 0:
				w.add("replaced " + p.String())
			}
		}
	}()
	return w, nil
}

func (w *RouteWatch) add(event string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, event)
}

// Stop ends the record and returns it. A lost event is recorded as an error.
func (w *RouteWatch) Stop() []string {
	close(w.stop)
	<-w.done
	return w.events
}
