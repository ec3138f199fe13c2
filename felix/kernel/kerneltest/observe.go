package kerneltest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Routes returns the routes of protocol in the main table, both families, as
// sorted lines that look like those of `ip route`, with next hops sorted.
func (n *Namespace) Routes(protocol int) []string {
	n.t.Helper()
	return n.RoutesIn(unix.RT_TABLE_MAIN, protocol)
}

// RoutesIn returns those of another table.
func (n *Namespace) RoutesIn(table, protocol int) []string {
	n.t.Helper()
	filter := &netlink.Route{Protocol: netlink.RouteProtocol(protocol), Table: table}
	mask := netlink.RT_FILTER_PROTOCOL | netlink.RT_FILTER_TABLE
	lines := []string{}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := n.RouteListFiltered(family, filter, mask)
		if err != nil {
			n.t.Fatalf("list routes: %v", err)
		}
		for _, r := range routes {
			lines = append(lines, n.routeLine(r))
		}
	}
	slices.Sort(lines)
	return lines
}

func (n *Namespace) routeLine(r netlink.Route) string {
	line := r.Dst.String()
	if r.Type != unix.RTN_UNICAST {
		line = fmt.Sprintf("type %d %s", r.Type, line)
	}
	var hops []string
	if r.Gw != nil {
		hops = append(hops, r.Gw.String())
	}
	for _, hop := range r.MultiPath {
		hops = append(hops, hop.Gw.String())
	}
	if slices.Sort(hops); len(hops) > 0 {
		line += " via " + strings.Join(hops, ",")
	} else if r.Type == unix.RTN_UNICAST {
		l, err := n.LinkByIndex(r.LinkIndex)
		if err != nil {
			return line + " dev ?"
		}
		line += " dev " + l.Attrs().Name
	}
	if r.Scope != netlink.SCOPE_UNIVERSE {
		line += " scope " + r.Scope.String()
	}
	if r.Priority != 0 {
		line += fmt.Sprintf(" metric %d", r.Priority)
	}
	return line
}

// Monitor records what the kernel tells about changes of links, addresses,
// routes and neighbours in a namespace.
type Monitor struct {
	t      testing.TB
	socket *nl.NetlinkSocket
	n      *Namespace
}

// monitorGroups are all that Korat changes and the kernel tells of.
var monitorGroups = []uint{
	unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
	unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE,
}

// Monitor begins to record.
func (n *Namespace) Monitor() *Monitor {
	n.t.Helper()
	socket, err := nl.SubscribeAt(n.fd, netns.None(), unix.NETLINK_ROUTE, monitorGroups...)
	if err != nil {
		n.t.Fatalf("monitor: %v", err)
	}
	n.t.Cleanup(socket.Close)
	if err := socket.SetReceiveTimeout(&unix.Timeval{Sec: 10}); err != nil {
		n.t.Fatalf("monitor: %v", err)
	}
	return &Monitor{t: n.t, socket: socket, n: n}
}

// markerProtocol is that of the route by which Changes knows that it has seen
// everything that happened before.
const markerProtocol = 251

// Changes returns what happened since the last call, one word for each message
// in order: "newroute", "delroute", "newlink" and so on. Routes are followed by
// their protocol.
func (m *Monitor) Changes() []string {
	m.t.Helper()
	marker := &netlink.Route{
		Dst: netlink.NewIPNet([]byte{192, 0, 2, 255}), Type: unix.RTN_BLACKHOLE, Protocol: markerProtocol, Table: unix.RT_TABLE_MAIN,
	}
	if err := m.n.RouteAdd(marker); err != nil {
		m.t.Fatalf("add marker route: %v", err)
	}
	if err := m.n.RouteDel(marker); err != nil {
		m.t.Fatalf("delete marker route: %v", err)
	}
	var words []string
	for end := fmt.Sprint("delroute ", markerProtocol); ; {
		messages, _, err := m.socket.Receive()
		if err != nil {
			m.t.Fatalf("monitor: %v", err)
		}
		for _, msg := range messages {
			word := describe(msg.Header.Type, msg.Data)
			if word == end {
				return words
			}
			if word != fmt.Sprint("newroute ", markerProtocol) {
				words = append(words, word)
			}
		}
	}
}

var messageNames = map[uint16]string{
	unix.RTM_NEWLINK: "newlink", unix.RTM_DELLINK: "dellink", unix.RTM_NEWADDR: "newaddr", unix.RTM_DELADDR: "deladdr",
	unix.RTM_NEWROUTE: "newroute", unix.RTM_DELROUTE: "delroute", unix.RTM_NEWNEIGH: "newneigh", unix.RTM_DELNEIGH: "delneigh",
}

func describe(kind uint16, body []byte) string {
	name := messageNames[kind]
	if (kind == unix.RTM_NEWROUTE || kind == unix.RTM_DELROUTE) && len(body) >= unix.SizeofRtMsg {
		return fmt.Sprint(name, " ", nl.DeserializeRtMsg(body).Protocol)
	}
	return name
}

// Drain forgets what happened until nothing has for a moment: after links were
// made, the kernel goes on telling of addresses and neighbours by itself.
func (m *Monitor) Drain() {
	m.t.Helper()
	for quiet := 0; quiet < 3; quiet++ {
		if len(m.Changes()) > 0 {
			quiet = 0
		}
		<-time.After(20 * time.Millisecond)
	}
}

// Sets returns the ipsets whose names begin with prefix, as sorted lines of
// their name, type, family and sorted members.
func (n *Namespace) Sets(prefix string) []string {
	n.t.Helper()
	lines := []string{}
	for _, block := range strings.Split(strings.TrimSpace(n.Run("ipset", "list")), "\n\n") {
		var head, members []string
		inMembers := false
		for line := range strings.Lines(block) {
			line = strings.TrimSpace(line)
			name, value, _ := strings.Cut(line, ": ")
			switch {
			case inMembers:
				members = append(members, line)
			case line == "Members:":
				inMembers = true
			case name == "Name" || name == "Type":
				head = append(head, value)
			case name == "Header":
				head = append(head, strings.Fields(value)[1])
			}
		}
		if slices.Sort(members); len(head) > 0 && strings.HasPrefix(head[0], prefix) {
			lines = append(lines, strings.Join(append(head, members...), " "))
		}
	}
	slices.Sort(lines)
	return lines
}
