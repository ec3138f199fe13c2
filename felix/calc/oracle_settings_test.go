package calc_test

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/desired/desiredtest"
	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// settings asks every configuration about every field, the strongest first.
func (o oracle) settings(w *desiredtest.World) {
	mine := o.configurations()
	s := desired.DefaultSettings()
	s.Backend = strongest(mine, s.Backend, func(c *event.NodeConfiguration) *desired.Backend { return c.Backend })
	s.Flavour = strongest(mine, s.Flavour, func(c *event.NodeConfiguration) *desired.Flavour { return c.Flavour })
	s.Marks = strongest(mine, s.Marks, func(c *event.NodeConfiguration) *uint32 { return c.Marks })
	s.PodToHost = strongest(mine, s.PodToHost, func(c *event.NodeConfiguration) *policy.Action { return c.PodToHost })
	s.Invalid = strongest(mine, s.Invalid, func(c *event.NodeConfiguration) *policy.Action { return c.Invalid })
	s.Recheck = strongest(mine, s.Recheck, func(c *event.NodeConfiguration) *bool { return c.Recheck })
	s.FailsafeIn = strongest(mine, s.FailsafeIn, func(c *event.NodeConfiguration) *[]desired.Failsafe { return c.FailsafeIn })
	s.FailsafeOut = strongest(mine, s.FailsafeOut, func(c *event.NodeConfiguration) *[]desired.Failsafe { return c.FailsafeOut })
	s.Loops = strongest(mine, s.Loops, func(c *event.NodeConfiguration) *policy.Action { return c.Loops })
	s.DropRecords = strongest(mine, s.DropRecords, func(c *event.NodeConfiguration) *bool { return c.DropRecords })
	s.ClampMSS = strongest(mine, s.ClampMSS, func(c *event.NodeConfiguration) *bool { return c.ClampMSS })
	s.PodTunnels = strongest(mine, s.PodTunnels, func(c *event.NodeConfiguration) *bool { return c.PodTunnels })
	s.KeyRotation = strongest(mine, s.KeyRotation, func(c *event.NodeConfiguration) *time.Duration { return c.Encryption.Rotation })
	s.NodeCondition = strongest(mine, s.NodeCondition, func(c *event.NodeConfiguration) *bool { return c.NodeCondition })
	s.TunnelSources = strongest(mine, s.TunnelSources, func(c *event.NodeConfiguration) *[]netip.Prefix { return c.TunnelSources })
	s.TunnelOffload = strongest(mine, s.TunnelOffload, func(c *event.NodeConfiguration) *desired.TunnelOffload { return c.TunnelOffload })
	s.MTU = strongest(mine, s.MTU, func(c *event.NodeConfiguration) *int { return c.MTU })
	s.Masquerade.Ports = strongest(mine, s.Masquerade.Ports, func(c *event.NodeConfiguration) *ir.PortRange { return c.Masquerade.Ports })
	for _, a := range strongest(mine, nil, func(c *event.NodeConfiguration) *[]netip.Addr { return c.Masquerade.To }) {
		if a.Is4() {
			s.Masquerade.To4 = a
		} else {
			s.Masquerade.To6 = a
		}
	}
	if c := all[*event.BGP](o.state)["default"]; c != nil {
		s.RouteMetric = c.RouteMetric
		if c.RouteTable != 0 {
			s.RouteTable = c.RouteTable
		}
	}
	s.HostTraffic = o.asked().hosts
	w.Settings = s
	nodes := strongest(mine, false, func(c *event.NodeConfiguration) *bool { return c.Masquerade.InsideNodes })
	nets := strongest(mine, nil, func(c *event.NodeConfiguration) *[]netip.Prefix { return c.Masquerade.InsideNets })
	o.ranges(w, nodes, nets)
}

// asked is what the configurations say of encryption.
func (o oracle) asked() encryption {
	mine := o.configurations()
	mode := strongest(mine, event.Disabled, func(c *event.NodeConfiguration) *event.Encryption { return c.Encryption.Mode })
	return encryption{
		mode:  mode,
		hosts: mode != event.Disabled && strongest(mine, false, func(c *event.NodeConfiguration) *bool { return c.Encryption.Hosts }),
		port: map[desired.TunnelKind]uint16{
			desired.WireGuard4:    strongest(mine, 51820, func(c *event.NodeConfiguration) *uint16 { return c.Encryption.Port4 }),
			desired.WireGuard6:    strongest(mine, 51821, func(c *event.NodeConfiguration) *uint16 { return c.Encryption.Port6 }),
			desired.WireGuard4Odd: strongest(mine, 51822, func(c *event.NodeConfiguration) *uint16 { return c.Encryption.Odd4 }),
			desired.WireGuard6Odd: strongest(mine, 51823, func(c *event.NodeConfiguration) *uint16 { return c.Encryption.Odd6 }),
		},
		two: strongest(mine, 0, func(c *event.NodeConfiguration) *time.Duration { return c.Encryption.Rotation }) > 0,
	}
}

// configurations are those of this node, the strongest first.
func (o oracle) configurations() []*event.NodeConfiguration {
	node := all[*event.Node](o.state)[o.node]
	var mine []*event.NodeConfiguration
	for _, c := range all[*event.NodeConfiguration](o.state) {
		if c.Nodes.IsAll() || node != nil && c.Nodes.Matches(node.Labels) {
			mine = append(mine, c)
		}
	}
	weak := func(c *event.NodeConfiguration) int {
		if c.Name == "default" {
			return 1
		}
		return 0
	}
	slices.SortFunc(mine, func(a, b *event.NodeConfiguration) int {
		return cmp.Or(cmp.Compare(weak(a), weak(b)), cmp.Compare(b.Name, a.Name))
	})
	return mine
}

// strongest returns the first that is said.
func strongest[V any](mine []*event.NodeConfiguration, otherwise V, said func(*event.NodeConfiguration) *V) V {
	for _, c := range mine {
		if v := said(c); v != nil {
			return *v
		}
	}
	return otherwise
}

func (o oracle) ranges(w *desiredtest.World, insideNodes bool, insideNets []netip.Prefix) {
	var masquerade, inside, nodes []netip.Prefix
	for _, p := range all[*event.Pool](o.state) {
		inside = append(inside, p.CIDR)
		if p.Masquerade {
			masquerade = append(masquerade, p.CIDR)
		}
	}
	for _, n := range all[*event.Node](o.state) {
		nodes = append(nodes, singles(slices.Concat(n.Addrs, n.Others))...)
	}
	if inside = append(inside, insideNets...); insideNodes {
		inside = append(inside, nodes...)
	}
	for id, nets := range map[ir.SetID][]netip.Prefix{
		desired.EncryptedSet:  o.closed(),
		desired.MasqueradeSet: masquerade, desired.InsideSet: inside, desired.NodesSet: nodes, desired.ServicesSet: o.serviceNets(),
	} {
		w.Sets[id] = map[ir.Member]struct{}{}
		for _, n := range nets {
			w.Sets[id][ir.Member{Prefix: n}] = struct{}{}
		}
	}
}

// hosts writes host endpoints in rising rank: a later one takes the place of an
// earlier.
func (o oracle) hosts(w *desiredtest.World) {
	o.hostsOfInterfaces(w)
	outside := maps.Clone(w.Hosts)
	for _, kind := range slices.Concat(wireGuard(false), wireGuard(true)) {
		d, there := o.device(kind)
		if _, own := outside[kind.Device()]; !there || own {
			continue
		}
		for iface, h := range outside {
			i := all[*event.LocalInterface](o.state)[iface]
			carries := i != nil && slices.Contains(i.Addrs, d.Underlay)
			for _, r := range all[*event.Reach](o.state) {
				carries = carries || r.Interface == iface && r.Addr.Is6() == kind.Is6()
			}
			if was, taken := w.Hosts[kind.Device()]; carries && (!taken || h.Name < was.Name) {
				h.Interface = kind.Device()
				for _, c := range []*ir.Chain{&h.Forward.Ingress, &h.Forward.Egress} {
					*c = ir.Chain{Default: policy.Allow}
				}
				w.Hosts[kind.Device()] = h
			}
		}
	}
}

func (o oracle) hostsOfInterfaces(w *desiredtest.World) {
	eps := all[*event.HostEndpoint](o.state)
	names := slices.Sorted(maps.Keys(eps))
	slices.Reverse(names)
	for _, byName := range []bool{false, true} {
		for _, name := range names {
			h := eps[name]
			if h.Node != o.node || strings.HasPrefix(h.Interface, "kor") || byName != (h.Interface != "") {
				continue
			}
			if byName {
				w.Hosts[h.Interface] = o.host(h, h.Interface)
				continue
			}
			for iface, i := range all[*event.LocalInterface](o.state) {
				if slices.ContainsFunc(i.Addrs, func(a netip.Addr) bool { return slices.Contains(h.Addrs, a) }) {
					w.Hosts[iface] = o.host(h, iface)
				}
			}
		}
	}
}
