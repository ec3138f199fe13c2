package pod

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/desired"
)

// Wired is an attachment as the kernel has it.
type Wired struct {
	HostInterface string
	Addrs         []netip.Addr // sorted; none if the attachment was not finished
}

// Wired returns what is attached to this host and not retired, in the order of
// the interfaces' names. The addresses are those that have a route of ours to the interface, or a
// permanent neighbour on it, as Attach makes them: routes may be gone already.
// A route decides where both are there: the neighbour is then of an earlier pod.
func (h *Host) Wired() ([]Wired, error) {
	links, err := h.nl.LinkList()
	if err != nil {
		return nil, fmt.Errorf("links: %w", err)
	}
	addrs := map[int][]netip.Addr{} // by index of the interface
	routed := map[netip.Addr]int{}  // to the index of the interface
	note := func(index int, ip []byte) {
		a, ok := netip.AddrFromSlice(ip)
		a = a.Unmap()
		if to, known := routed[a]; ok && (!known || to == index) {
			addrs[index] = append(addrs[index], a)
		}
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		ours := &netlink.Route{Protocol: desired.RouteProtocol}
		routes, err := h.nl.RouteListFiltered(family, ours, netlink.RT_FILTER_PROTOCOL)
		if err != nil {
			return nil, fmt.Errorf("routes: %w", err)
		}
		for _, r := range routes {
			if r.Dst == nil || len(r.Gw) > 0 {
				continue
			}
			if ones, bits := r.Dst.Mask.Size(); ones == bits {
				a, _ := netip.AddrFromSlice(r.Dst.IP)
				routed[a.Unmap()] = r.LinkIndex
				note(r.LinkIndex, r.Dst.IP)
			}
		}
		neighbours, err := h.nl.NeighList(0, family)
		if err != nil {
			return nil, fmt.Errorf("neighbours: %w", err)
		}
		for _, n := range neighbours {
			if n.State&unix.NUD_PERMANENT != 0 {
				note(n.LinkIndex, n.IP)
			}
		}
	}
	var all []Wired
	for _, l := range links {
		if l.Type() != "veth" || retired(l) || !strings.HasPrefix(l.Attrs().Name, desired.InterfacePrefix) {
			continue
		}
		w := Wired{l.Attrs().Name, addrs[l.Attrs().Index]}
		slices.SortFunc(w.Addrs, netip.Addr.Compare)
		w.Addrs = slices.Compact(w.Addrs)
		all = append(all, w)
	}
	slices.SortFunc(all, func(a, b Wired) int { return strings.Compare(a.HostInterface, b.HostInterface) })
	return all, nil
}
