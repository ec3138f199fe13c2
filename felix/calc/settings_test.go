package calc_test

import (
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/ipam"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
	"github.com/koratnet/korat/policy/selector"
)

// policySets returns the sets that policies ask for.
func (r *run) policySets() (ids []ir.SetID) {
	always := []ir.SetID{desired.MasqueradeSet, desired.InsideSet, desired.NodesSet, desired.ServicesSet, desired.EncryptedSet}
	for id := range r.world.Sets {
		if !slices.Contains(always, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

func configure(name string, how func(*event.NodeConfiguration)) event.Event {
	c := &event.NodeConfiguration{Name: name}
	how(c)
	return event.Set(name, c)
}

func mtu(name string, of int, nodes *selector.Selector) event.Event {
	return configure(name, func(c *event.NodeConfiguration) { c.MTU, c.Nodes = &of, nodes })
}

func self(label string, ips ...string) event.Event {
	return event.Set("me", &event.Node{Name: "me", Labels: labels(label), Addrs: addrs(ips...)})
}

func TestTheFirstDeltaHasTheSettings(t *testing.T) {
	r := ready(t)
	if diff := cmp.Diff(desired.DefaultSettings(), r.world.Settings, compare); diff != "" {
		t.Error(diff)
	}
}

func TestEveryFieldOfAConfigurationCounts(t *testing.T) {
	to4, to6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("fd00::1")
	want := desired.Settings{
		Backend: desired.NFTables, Flavour: desired.LegacyFlavour, Marks: 0xf, PodToHost: policy.Pass, Invalid: policy.Allow, Recheck: true,
		FailsafeIn:  []desired.Failsafe{{Protocol: policy.TCP, Port: 1}},
		FailsafeOut: []desired.Failsafe{{Protocol: policy.UDP, Port: 2}},
		Masquerade:  desired.Masquerade{To4: to4, To6: to6, Ports: ir.PortRange{First: 3, Last: 4}},
		Loops:       policy.Pass, MTU: 1400, DropRecords: false,
		ClampMSS: true, PodTunnels: true, TunnelSources: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")},
		TunnelOffload: desired.OffloadOff, KeyRotation: time.Hour, HostTraffic: true,
		RouteTable: 200, RouteMetric: 50,
	}
	defaults := reflect.ValueOf(desired.DefaultSettings())
	for i := range defaults.NumField() {
		if reflect.DeepEqual(defaults.Field(i).Interface(), reflect.ValueOf(want).Field(i).Interface()) {
			t.Errorf("%s is the default: the test does not ask for it", defaults.Type().Field(i).Name)
		}
	}
	r := ready(t, configure("x", func(c *event.NodeConfiguration) {
		c.Backend, c.Flavour, c.Marks, c.PodToHost, c.Invalid, c.Recheck = &want.Backend, &want.Flavour, &want.Marks, &want.PodToHost, &want.Invalid, &want.Recheck
		c.FailsafeIn, c.FailsafeOut, c.Loops, c.DropRecords, c.MTU = &want.FailsafeIn, &want.FailsafeOut, &want.Loops, &want.DropRecords, &want.MTU
		c.Masquerade.To, c.Masquerade.Ports = &[]netip.Addr{to4, to6}, &want.Masquerade.Ports
		c.NodeCondition, c.Encryption.Rotation, c.Encryption.Hosts = &want.NodeCondition, &want.KeyRotation, &want.HostTraffic
		required := event.Required
		c.Encryption.Mode = &required
		c.ClampMSS, c.PodTunnels, c.TunnelSources = &want.ClampMSS, &want.PodTunnels, &want.TunnelSources
		c.TunnelOffload = &want.TunnelOffload
	}), event.Set("default", &event.BGP{RouteTable: want.RouteTable, RouteMetric: want.RouteMetric}))
	if diff := cmp.Diff(want, r.world.Settings, compare); diff != "" {
		t.Error(diff)
	}
}

func TestRoutesGoBackWithTheirConfiguration(t *testing.T) {
	r := ready(t, event.Set("default", &event.BGP{RouteTable: 200, RouteMetric: 50}))
	r.tell(event.Gone(event.BGPKind, "default"))
	if diff := cmp.Diff(desired.DefaultSettings(), r.world.Settings, compare); diff != "" {
		t.Error(diff)
	}
}

func TestWhichConfigurationCounts(t *testing.T) {
	rackA := selector.Equals("rack", "a")
	for name, c := range map[string]struct {
		evs  evs
		want int
	}{
		"the first is overridden by all":    {evs{mtu("default", 1, nil), mtu("a", 2, nil)}, 2},
		"the last name counts":              {evs{mtu("b", 1, nil), mtu("a", 2, nil)}, 1},
		"one for other nodes does not":      {evs{self("rack=b"), mtu("default", 1, nil), mtu("a", 2, rackA)}, 1},
		"one for this node does":            {evs{self("rack=a"), mtu("default", 1, nil), mtu("a", 2, rackA)}, 2},
		"of an unknown node those for all":  {evs{mtu("default", 1, nil), mtu("a", 2, selector.Not(rackA))}, 1},
		"one that says nothing is not told": {evs{mtu("default", 1, nil), configure("a", func(*event.NodeConfiguration) {})}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := ready(t, c.evs...)
			if got := r.world.Settings.MTU; got != c.want {
				t.Errorf("MTU is %d, want %d", got, c.want)
			}
		})
	}
}

func TestAnotherBackendIsToldAll(t *testing.T) {
	r := ready(t, endpoint("kor1", "a/web", 1, "10.0.0.1"), pod("a/web", "me", "app=web"), isolate("a/np", policy.Ingress, "web", apps("a", "db")))
	nft := desired.NFTables
	r.engine.Put(configure("default", func(c *event.NodeConfiguration) { c.Backend = &nft }))
	d := r.engine.Flush()
	if len(d.Endpoints) != 1 || len(d.Programs) != 1 || len(d.Sets) != 6 || !d.Complete || d.Settings.Backend != nft {
		t.Errorf("delta is %+v", d)
	}
	for id, c := range d.Sets {
		if !c.Whole {
			t.Errorf("set %s is not whole", id)
		}
	}
	r.engine.Put(mtu("a", 1400, nil))
	if d := r.engine.Flush(); len(d.Endpoints) > 0 || d.Settings == nil {
		t.Errorf("another MTU is told as %+v", d)
	}
	recheck := func(on bool) int {
		r.engine.Put(configure("b", func(c *event.NodeConfiguration) { c.Recheck = &on }))
		return len(r.engine.Flush().Programs)
	}
	if on, off := recheck(true), recheck(false); on != 1 || off != 0 {
		t.Errorf("who rechecks connections is told %d programs, and %d when it ends", on, off)
	}
}

func TestWhenKubeProxyChangesItsModeAllIsToldWhereItMatters(t *testing.T) {
	r := ready(t, endpoint("kor1", "a/web", 1, "10.0.0.1"))
	proxy := func(nft bool) event.Event { return event.Set("kube-proxy", &event.Proxy{NFTables: nft}) }
	flush := func(ev event.Event) desired.Delta {
		r.engine.Put(ev)
		return r.engine.Flush()
	}
	if d := flush(proxy(true)); len(d.Endpoints) != 1 || d.Settings == nil || d.Settings.Backend != desired.Auto || !d.Sets[desired.InsideSet].Whole {
		t.Errorf("in its new mode: %+v", d)
	}
	if d := flush(proxy(true)); !d.Empty() {
		t.Errorf("in the same mode: %+v", d)
	}
	nft := desired.NFTables
	flush(configure("default", func(c *event.NodeConfiguration) { c.Backend = &nft }))
	if d := flush(proxy(false)); d.Settings != nil || len(d.Endpoints) > 0 {
		t.Errorf("of no concern to a node with a backend of its own: %+v", d)
	}
}

// in returns the prefixes of a set.
func (r *run) in(id ir.SetID) string {
	return texts(r.world.Sets[id], func(m ir.Member) string { return m.Prefix.String() })
}

func TestItem80WhatIsInsideTheCluster(t *testing.T) {
	pool := func(name, cidr string, masquerade, disabled bool) event.Event {
		return event.Set(name, &event.Pool{Pool: ipam.Pool{Name: name, CIDR: netip.MustParsePrefix(cidr), Disabled: disabled}, Masquerade: masquerade})
	}
	r := ready(t, self("", "172.16.0.1"), pool("nat", "10.0.0.0/16", true, true), pool("plain", "10.1.0.0/16", false, false))
	expect := func(masquerade, inside string) {
		t.Helper()
		if got := r.in(desired.MasqueradeSet); got != masquerade {
			t.Errorf("hiding are %q, want %q", got, masquerade)
		}
		if got := r.in(desired.InsideSet); got != inside {
			t.Errorf("inside are %q, want %q", got, inside)
		}
	}
	expect("10.0.0.0/16", "10.0.0.0/16 10.1.0.0/16")
	yes := true
	r.tell(configure("x", func(c *event.NodeConfiguration) {
		c.Masquerade.InsideNodes, c.Masquerade.InsideNets = &yes, &[]netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("10.9.0.0/16")}
	}))
	expect("10.0.0.0/16", "10.0.0.0/16 10.1.0.0/16 10.9.0.0/16 172.16.0.1/32")
	r.tell(self("", "172.16.0.2"), gone(pool("plain", "10.1.0.0/16", false, false)))
	expect("10.0.0.0/16", "10.0.0.0/16 10.1.0.0/16 10.9.0.0/16 172.16.0.2/32")
	r.tell(gone(configure("x", func(*event.NodeConfiguration) {})), pool("nat", "10.0.0.0/16", false, false))
	expect("", "10.0.0.0/16")
	if got := r.in(desired.NodesSet) + r.in(desired.ServicesSet); got != "172.16.0.2/32" {
		t.Errorf("nodes and services are %q", got)
	}
}

func TestWhichHostEndpointStandsForAnInterface(t *testing.T) {
	host := func(name, iface string, ips ...string) event.Event {
		return event.Set(name, &event.HostEndpoint{HostEndpoint: policy.HostEndpoint{Name: name, Node: "me", Interface: iface, Addrs: addrs(ips...)}})
	}
	link := func(name string, ips ...string) event.Event {
		return event.Set(name, &event.LocalInterface{Name: name, Addrs: addrs(ips...)})
	}
	for name, c := range map[string]struct {
		evs  []evs
		want map[string]string
	}{
		"one by name, there or not":            {[]evs{{host("h", "eth7")}}, map[string]string{"eth7": "h"}},
		"one by address":                       {[]evs{{host("h", "", "172.16.0.1"), link("eth0", "172.16.0.1"), link("eth1", "172.16.0.2")}}, map[string]string{"eth0": "h"}},
		"one by an address that nobody has":    {[]evs{{host("h", "", "172.16.0.9"), link("eth0", "172.16.0.1")}}, map[string]string{}},
		"an address that moves":                {[]evs{{host("h", "", "172.16.0.1"), link("eth0", "172.16.0.1")}, {link("eth0"), link("eth1", "172.16.0.1")}}, map[string]string{"eth1": "h"}},
		"an address on two interfaces":         {[]evs{{host("h", "", "172.16.0.1"), link("eth0", "172.16.0.1"), link("eth1", "172.16.0.1")}}, map[string]string{"eth0": "h", "eth1": "h"}},
		"a name goes before an address":        {[]evs{{host("a", "", "172.16.0.1"), host("z", "eth0"), link("eth0", "172.16.0.1")}}, map[string]string{"eth0": "z"}},
		"and gives way when it ends":           {[]evs{{host("a", "", "172.16.0.1"), host("z", "eth0"), link("eth0", "172.16.0.1")}, {gone(host("z", ""))}}, map[string]string{"eth0": "a"}},
		"the smaller name of two":              {[]evs{{host("b", "eth0"), host("a", "eth0"), host("y", "*"), host("x", "*")}}, map[string]string{"eth0": "a", "*": "x"}},
		"an interface that goes":               {[]evs{{host("h", "", "172.16.0.1"), link("eth0", "172.16.0.1")}, {gone(link("eth0"))}}, map[string]string{}},
		"the interface of a pod is no host's":  {[]evs{{host("h", "kor1")}}, map[string]string{}},
		"an address beside a name is no place": {[]evs{{host("h", "eth0", "172.16.0.2"), link("eth1", "172.16.0.2")}}, map[string]string{"eth0": "h"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := ready(t)
			for _, step := range c.evs {
				r.tell(step...)
			}
			got := map[string]string{}
			for iface, h := range r.world.Hosts {
				if got[iface] = h.Name; h.Interface != iface {
					t.Errorf("%s says that it is %s", iface, h.Interface)
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("by interface (-want +got):\n%s", diff)
			}
		})
	}
}
