// Package netmon hears what the kernel tells of changes that others made to
// interfaces, addresses, routes and parameters, and tells felix/apply where to
// look again. It decides nothing. Interfaces reads which addresses the node has,
// for the engine.
//
// A change is told at least once and maybe more often. When the kernel had more
// to tell than the socket held, everything is to be looked at again.
package netmon

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"unsafe"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/kernel/nlsock"
)

// receiveBuffer is room for the notifications of a burst: of 100,000 routes that
// the kernel drops with an uplink, about a third. More is Lost, which is right.
const receiveBuffer = 8 << 20

// AllLinks is the name told when a parameter of all interfaces changed.
const AllLinks = "all"

// Change says where to look again. It has the fields of apply.Poke: either Link,
// or Route and Protocol, or Lost is set.
type Change struct {
	Link     string       // an interface came, went, or changed
	Route    netip.Prefix // a route came, went, or changed; of a family's rules: the one to everywhere
	Protocol uint8        // of that route or rule, as it is or was
	Lost     bool         // notifications were lost
}

// Monitor listens in one network namespace.
type Monitor struct {
	socket *nl.NetlinkSocket
	handle *netlink.Handle
	own    []uint32
	links  map[int]link
}

// link is what matters of an interface.
type link struct {
	name  string
	flags uint32
	mac   string
}

// New begins to listen in the network namespace of the calling thread. Changes of
// routes and rules that the sockets with the ports own made are not told: they are
// our own, and a protocol alone does not say so, since anybody can write it.
func New(own ...uint32) (*Monitor, error) {
	socket, err := nl.Subscribe(
		unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV4_NETCONF, unix.RTNLGRP_IPV6_NETCONF,
		unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE,
	)
	if err != nil {
		return nil, fmt.Errorf("listen to the kernel: %w", err)
	}
	if err := socket.SetReceiveBufferSize(receiveBuffer, true); err != nil {
		socket.Close()
		return nil, fmt.Errorf("listen to the kernel: %w", err)
	}
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		socket.Close()
		return nil, fmt.Errorf("listen to the kernel: %w", err)
	}
	return &Monitor{socket: socket, handle: handle, own: own}, nil
}

// Run tells changes until ctx ends, and those since New. It closes the Monitor.
func (m *Monitor) Run(ctx context.Context, tell func(Change)) error {
	defer m.handle.Close()
	stop := context.AfterFunc(ctx, m.socket.Close)
	defer func() {
		if stop() {
			m.socket.Close()
		}
	}()
	if err := m.readLinks(); err != nil {
		return err
	}
	for {
		messages, from, err := m.socket.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS):
			m.drain()
			if err := m.readLinks(); err != nil {
				return err
			}
			tell(Change{Lost: true})
			continue
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("listen to the kernel: %w", err)
		case from.Pid != nl.PidKernel:
			continue
		}
		for _, msg := range messages {
			m.hear(msg.Header.Type, msg.Header.Pid, msg.Data, tell)
		}
	}
}

// drain forgets what the socket holds. Once it has overrun, the kernel drops all
// that it would tell until the socket is empty, and does not say so again: what
// is to be read anew must be read after that.
func (m *Monitor) drain() {
	buf := make([]byte, 1) // the kernel cuts what does not fit
	for {
		_, _, err := unix.Recvfrom(m.socket.GetFd(), buf, unix.MSG_DONTWAIT)
		if err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// readLinks learns the names, because most messages have only an index.
func (m *Monitor) readLinks() error {
	links, err := nlsock.Retry(m.handle.LinkList)
	if err != nil {
		return fmt.Errorf("read interfaces: %w", err)
	}
	m.links = map[int]link{}
	for _, l := range links {
		a := l.Attrs()
		m.links[a.Index] = link{name: a.Name, flags: a.RawFlags & seenFlags, mac: string(a.HardwareAddr)}
	}
	return nil
}

func (m *Monitor) hear(kind uint16, port uint32, body []byte, tell func(Change)) {
	switch kind {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		m.hearLink(kind, body, tell)
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		if len(body) >= unix.SizeofIfAddrmsg {
			m.tellLink(int((*unix.IfAddrmsg)(unsafe.Pointer(&body[0])).Index), tell)
		}
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		if !slices.Contains(m.own, port) {
			hearRoute(body, tell)
		}
	case unix.RTM_NEWRULE, unix.RTM_DELRULE:
		if !slices.Contains(m.own, port) {
			hearRule(body, tell)
		}
	case unix.RTM_NEWNETCONF:
		m.hearParameter(body, tell)
	}
}

// seenFlags are those whose change matters to routes.
const seenFlags = unix.IFF_UP | unix.IFF_RUNNING | unix.IFF_LOWER_UP

func (m *Monitor) hearLink(kind uint16, body []byte, tell func(Change)) {
	if len(body) < unix.SizeofIfInfomsg {
		return
	}
	info := (*unix.IfInfomsg)(unsafe.Pointer(&body[0]))
	if info.Family != unix.AF_UNSPEC {
		return // a bridge tells of its ports
	}
	index := int(info.Index)
	now := link{flags: info.Flags & seenFlags}
	for attr, value := range nlsock.Attrs(body[unix.SizeofIfInfomsg:]) {
		switch attr {
		case unix.IFLA_IFNAME:
			now.name = nlsock.Text(value)
		case unix.IFLA_ADDRESS:
			now.mac = string(value)
		}
	}
	before := m.links[index]
	if kind == unix.RTM_DELLINK {
		delete(m.links, index)
		tell(Change{Link: now.name})
		return
	}
	if m.links[index] = now; now == before {
		return
	}
	if tell(Change{Link: now.name}); before.name != "" && before.name != now.name {
		tell(Change{Link: before.name})
	}
}

// tellLink tells of an interface by its index. One that is not known has gone;
// the kernel has told so or will.
func (m *Monitor) tellLink(index int, tell func(Change)) {
	if l, ok := m.links[index]; ok {
		tell(Change{Link: l.name})
	}
}

// hearRoute tells of routes of all tables but the kernel's own, of others too: they may
// have taken the place of ours, and next hops are behind them.
func hearRoute(body []byte, tell func(Change)) {
	if len(body) < unix.SizeofRtMsg {
		return
	}
	h := (*unix.RtMsg)(unsafe.Pointer(&body[0]))
	if h.Table == unix.RT_TABLE_LOCAL || h.Flags&unix.RTM_F_CLONED != 0 {
		return
	}
	addr := nlsock.Unspecified(h.Family)
	for attr, value := range nlsock.Attrs(body[unix.SizeofRtMsg:]) {
		if attr == unix.RTA_DST {
			addr, _ = netip.AddrFromSlice(value)
		}
	}
	if prefix := netip.PrefixFrom(addr, int(h.Dst_len)); prefix.IsValid() {
		tell(Change{Route: prefix, Protocol: h.Protocol})
	}
}

// hearRule tells of policy routing, which may lead any packet to other routes.
func hearRule(body []byte, tell func(Change)) {
	if len(body) < unix.SizeofRtMsg { // struct fib_rule_hdr has the same size
		return
	}
	c := Change{Route: netip.PrefixFrom(nlsock.Unspecified(body[0]), 0)}
	for attr, value := range nlsock.Attrs(body[unix.SizeofRtMsg:]) {
		if attr == unix.FRA_PROTOCOL && len(value) == 1 {
			c.Protocol = value[0]
		}
	}
	tell(c)
}

// The layout of RTM_NEWNETCONF (linux/netconf.h).
const (
	netconfHeader = 4  // struct netconfmsg, padded
	netconfIndex  = 1  // NETCONFA_IFINDEX
	netconfAll    = -1 // NETCONFA_IFINDEX_ALL
)

func (m *Monitor) hearParameter(body []byte, tell func(Change)) {
	if len(body) < netconfHeader {
		return
	}
	for attr, value := range nlsock.Attrs(body[netconfHeader:]) {
		if attr != netconfIndex || len(value) < 4 {
			continue
		}
		if index := int32(binary.NativeEndian.Uint32(value)); index == netconfAll {
			tell(Change{Link: AllLinks})
		} else {
			m.tellLink(int(index), tell)
		}
	}
}
