//go:build vm

package tunnel_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/koratnet/korat/felix/desired"
)

// TestItem71NodesReachEachOtherThroughIPIP: one interface, routes through the
// addresses of nodes as if these were on its link, and a source of the node's own.
func TestItem71NodesReachEachOtherThroughIPIP(t *testing.T) {
	a, b := joined(t, desired.IPIP4)
	if route := a.Run("ip", "route", "show", "proto", "112"); !strings.Contains(route, "via "+b.underlay.String()+" dev ipip-korat onlink") {
		t.Errorf("routes are:\n%s", route)
	}
	if got := a.Run("ip", "route", "get", b.inside.String()); !strings.Contains(got, "src "+a.inside.String()) {
		t.Errorf("the node's own packets leave so: %s", got)
	}
	if link := a.Run("ip", "-d", "link", "show", "dev", "ipip-korat"); !strings.Contains(link, "remote any local "+a.underlay.String()) || !strings.Contains(link, "ttl 64") || !strings.Contains(link, "mtu 1480") {
		t.Errorf("the interface is:\n%s", link)
	}
}

func TestASecondInstanceAdoptsIPIPWithoutAWrite(t *testing.T) {
	a, b := joined(t, desired.IPIP4)
	m := a.Monitor()
	m.Drain()
	mustApply(t, open(t, a.Namespace), knows(a.own(desired.IPIP4), desired.IPIP4, b))
	if err := a.routes.Resync(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.apply(t, knows(desired.Delta{}, desired.IPIP4, b))
	if changes := m.Changes(); len(changes) > 0 {
		t.Errorf("adopting changed the kernel: %v", changes)
	}
}

func TestWhatOthersBreakOfIPIPIsMended(t *testing.T) {
	a, b := joined(t, desired.IPIP4)
	for what, command := range map[string]string{
		"the interface is removed":      "ip link del ipip-korat",
		"the interface is down":         "ip link set ipip-korat down",
		"its MTU is another":            "ip link set ipip-korat mtu 1300",
		"its address is gone":           "ip addr flush dev ipip-korat",
		"it has the address of another": "ip tunnel change ipip-korat mode ipip local 192.0.1.99",
	} {
		t.Run(what, func(t *testing.T) {
			f := strings.Fields(command)
			a.Run(f[0], f[1:]...)
			a.tunnels.LinkChanged("ipip-korat")
			a.routes.LinkChanged("ipip-korat")
			a.apply(t, desired.Delta{})
			a.reaches(t, b)
			b.reaches(t, a)
		})
	}
}

// TestTheTTLOfIPIPIsChangedInPlace: an interface that was made otherwise is changed,
// not made anew, and keeps what leads through it.
func TestTheTTLOfIPIPIsChangedInPlace(t *testing.T) {
	a, b := joined(t, desired.IPIP4)
	before := a.Run("ip", "-o", "link", "show", "dev", "ipip-korat")
	a.Run("ip", "tunnel", "change", "ipip-korat", "mode", "ipip", "local", a.underlay.String(), "ttl", "inherit")
	a.tunnels.LinkChanged("ipip-korat")
	a.apply(t, desired.Delta{})
	if link := a.Run("ip", "-d", "link", "show", "dev", "ipip-korat"); !strings.Contains(link, "ttl 64") || !strings.Contains(link, "pmtudisc") || strings.Contains(link, "nopmtudisc") {
		t.Errorf("the interface is:\n%s", link)
	}
	if after := a.Run("ip", "-o", "link", "show", "dev", "ipip-korat"); after != before {
		t.Errorf("it was %s, and is %s", before, after)
	}
	a.reaches(t, b)
}

// TestOneBlockThroughSeveralNodes: equal paths that BGP taught are one route.
func TestOneBlockThroughSeveralNodes(t *testing.T) {
	a, b := joined(t, desired.IPIP4)
	both := &desired.Route{
		Prefix: b.block, Kind: desired.Tunneled, Interface: "ipip-korat",
		NextHops: []netip.Addr{b.underlay, netip.MustParseAddr("192.0.2.9")},
	}
	a.apply(t, desired.Delta{Routes: map[netip.Prefix]*desired.Route{b.block: both}})
	if route := a.Run("ip", "route", "show", "proto", "112"); strings.Count(route, "dev ipip-korat") != 2 || strings.Count(route, "onlink") != 2 {
		t.Errorf("routes are:\n%s", route)
	}
	m := a.Monitor()
	m.Drain()
	if err := a.routes.Resync(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.apply(t, desired.Delta{Routes: map[netip.Prefix]*desired.Route{b.block: both}})
	if changes := m.Changes(); len(changes) > 0 {
		t.Errorf("what is as wanted was written: %v", changes)
	}
}
