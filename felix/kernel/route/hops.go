package route

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/nlsock"
)

// way is how the kernel reaches a next hop: the hop itself where it is on a link,
// else the routers on its own route to it. The kernel takes no gateway that is
// behind another, so that routes get these instead. A way without gateways leads
// nowhere now.
type way struct{ gateways []netip.Addr } // sorted, link-local ones with their zone

func (w way) equal(o way) bool { return slices.Equal(w.gateways, o.gateways) }

// hops remembers the ways to next hops.
type hops struct {
	conn  *nlsock.Conn
	links *links
	known map[netip.Addr]way
	stale bool // the kernel's routes to some of them may have changed
}

// wayTo returns the way to hop, as it was when it was asked for last.
func (h *hops) wayTo(hop netip.Addr) (way, error) {
	if w, ok := h.known[hop]; ok {
		return w, nil
	}
	w, err := h.ask(hop)
	if err == nil {
		h.known[hop] = w
	}
	return w, err
}

// again asks again for the ways that lead nowhere, and for all ways when they may
// have changed. It returns the hops whose ways have, also when it could not ask for
// all: those are asked for at the next time.
func (h *hops) again() (changed map[netip.Addr]bool, err error) {
	changed = map[netip.Addr]bool{}
	for hop, was := range h.known {
		if !h.stale && len(was.gateways) > 0 {
			continue
		}
		w, failed := h.ask(hop)
		if failed != nil {
			err = failed // the last: all fail for the same reason
			continue
		}
		if h.known[hop] = w; !w.equal(was) {
			changed[hop] = true
		}
	}
	h.stale = err != nil
	return changed, err
}

// concerns notes that a route to prefix changed that is not ours.
func (h *hops) concerns(prefix netip.Prefix) {
	for hop := range h.known {
		if h.stale {
			return
		}
		h.stale = prefix.Contains(hop)
	}
}

func (h *hops) ask(hop netip.Addr) (way, error) {
	if hop.IsLinkLocalUnicast() {
		return h.onLink(hop)
	}
	var answer []byte
	err := h.conn.Get(question(hop), func(body []byte) error {
		answer = slices.Clone(body) // reading it asks for more
		return nil
	})
	switch {
	case nlsock.NoRoute(err):
		return way{}, nil
	case err != nil:
		return way{}, fmt.Errorf("way to next hop %s: %w", hop, err)
	}
	return h.read(hop, answer)
}

// onLink: a link-local next hop is on the link that its zone names.
func (h *hops) onLink(hop netip.Addr) (way, error) {
	index, err := h.links.index(hop.Zone())
	if errors.Is(err, unix.ENODEV) || hop.Zone() == "" {
		return way{}, nil
	}
	if err != nil {
		return way{}, fmt.Errorf("interface of next hop %s: %w", hop, err)
	}
	if carrier, err := h.links.carrier(index); err != nil || !carrier {
		return way{}, err
	}
	return way{[]netip.Addr{hop}}, nil
}

// read reads the kernel's answer. A route of ours that leads over others is no way:
// it may be the very route that the next hop is for. Neither is one over a link
// that has no carrier, as long as others have.
func (h *hops) read(hop netip.Addr, body []byte) (way, error) {
	if len(body) < unix.SizeofRtMsg {
		return way{}, nil
	}
	header := (*unix.RtMsg)(unsafe.Pointer(&body[0]))
	if header.Type != unix.RTN_UNICAST {
		return way{}, nil
	}
	found, err := legs(body, h.links.nameNow)
	if err != nil {
		return way{}, err
	}
	var w way
	for _, leg := range found {
		if !leg.gateway.IsValid() {
			leg.gateway = hop
		} else if header.Protocol == desired.RouteProtocol {
			return way{}, nil
		}
		carrier, err := h.links.carrier(leg.index)
		if err != nil {
			return way{}, err
		}
		if at, twice := slices.BinarySearchFunc(w.gateways, leg.gateway, netip.Addr.Compare); carrier && !twice {
			w.gateways = slices.Insert(w.gateways, at, leg.gateway)
		}
	}
	return w, nil
}

// leg is one of the next hops of a route in the kernel.
type leg struct {
	gateway netip.Addr // the zero Addr: the destination is on the link
	index   int
	weight  uint8 // 1 and more; 0 stands for 256
}

// legs reads the next hops of a route; link-local ones get the name of their
// interface as zone.
func legs(body []byte, name func(index int) (string, error)) (all []leg, err error) {
	single := leg{weight: 1}
	for attr, value := range nlsock.Attrs(body[unix.SizeofRtMsg:]) {
		switch attr {
		case unix.RTA_OIF:
			single.index = int(binary.NativeEndian.Uint32(value))
		case unix.RTA_GATEWAY, unix.RTA_VIA:
			single.gateway = gateway(attr, value)
		case unix.RTA_MULTIPATH:
			all = multipath(value)
		}
	}
	if all == nil {
		all = []leg{single}
	}
	for i, l := range all {
		if l.gateway.IsLinkLocalUnicast() {
			zone, err := name(l.index)
			if err != nil {
				return nil, err
			}
			all[i].gateway = l.gateway.WithZone(zone)
		}
	}
	return all, nil
}

// multipath reads struct rtnexthop after struct rtnexthop.
func multipath(b []byte) (all []leg) {
	for len(b) >= unix.SizeofRtNexthop {
		size := int(binary.NativeEndian.Uint16(b))
		if size < unix.SizeofRtNexthop || size > len(b) {
			return all
		}
		next := (*unix.RtNexthop)(unsafe.Pointer(&b[0]))
		l := leg{index: int(next.Ifindex), weight: next.Hops + 1}
		for attr, value := range nlsock.Attrs(b[unix.SizeofRtNexthop:size]) {
			if attr == unix.RTA_GATEWAY || attr == unix.RTA_VIA {
				l.gateway = gateway(attr, value)
			}
		}
		all = append(all, l)
		b = b[min((size+3)&^3, len(b)):]
	}
	return all
}

// gateway reads an address; a gateway of another family than the route's comes
// with its family in front.
func gateway(attr uint16, value []byte) netip.Addr {
	if attr == unix.RTA_VIA && len(value) > 2 {
		value = value[2:]
	}
	addr, _ := netip.AddrFromSlice(value)
	return addr
}

// resolve returns the entry of a Via route as the kernel can hold it: over the ways
// to its next hops. Next hops that lead nowhere are left out; if all do, the route
// is tried as it is, so that the kernel says what is wrong. resolved is false when
// the entry has other next hops than the route.
func (h *hops) resolve(r *desired.Route) (e entry, resolved bool, err error) {
	plain := entry{kind: unix.RTN_UNICAST, hops: r.NextHops, weights: canonical(r.Weights)}
	same := true
	weights := map[netip.Addr]int{}
	for i, hop := range r.NextHops {
		w, err := h.wayTo(hop)
		if err != nil {
			return entry{}, false, err
		}
		same = same && len(w.gateways) == 1 && w.gateways[0] == hop
		weight := 1
		if r.Weights != nil {
			weight = int(r.Weights[i])
		}
		for _, g := range w.gateways {
			weights[g] += weight
		}
	}
	if same || len(weights) == 0 {
		return plain, same, nil
	}
	e = entry{kind: unix.RTN_UNICAST}
	for g := range weights {
		e.hops = append(e.hops, g)
	}
	slices.SortFunc(e.hops, netip.Addr.Compare)
	for _, g := range e.hops {
		e.weights = append(e.weights, uint8(min(weights[g], 255)))
	}
	e.weights = canonical(e.weights)
	return e, false, nil
}

// canonical returns nil for weights that are all equal, as the kernel has them when
// nobody says any.
func canonical(weights []uint8) []uint8 {
	if !slices.ContainsFunc(weights, func(w uint8) bool { return w != weights[0] }) {
		return nil
	}
	return weights
}
