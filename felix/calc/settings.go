package calc

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/event"
)

// firstConfiguration is the name of the NodeConfiguration that every other
// overrides.
const firstConfiguration = "default"

// settings puts together what the NodeConfigurations that select this node say.
// While the labels of the node are not known, only those for all nodes count.
type settings struct {
	node       string
	begun      bool
	inside     inside
	encryption encryptionWays
	said       words[desired.Settings]
	// again: in this flush another backend begins, or connections are rechecked
	// from now on, and who does it has to be told all.
	again bool
}

// inside is what NodeConfigurations count to the cluster beside its pools.
type inside struct {
	nodes bool
	nets  []netip.Prefix // sorted, each once
}

func newSettings(node string) settings {
	return settings{node: node, said: words[desired.Settings]{same: desired.Settings.Equal}}
}

func (s *settings) drain(in *inputs) {
	_, moved := in.nodes.was[s.node]
	proxied := len(in.proxies.was) > 0
	if s.begun && !moved && !proxied && len(in.configurations.was)+len(in.bgp.was) == 0 {
		return
	}
	now, inside := desired.DefaultSettings(), inside{}
	encryption := newEncryptionWays()
	for _, c := range s.mine(in) { // whole, because there are few and people edit them
		override(&now.Backend, c.Backend)
		override(&now.Flavour, c.Flavour)
		override(&now.Marks, c.Marks)
		override(&now.PodToHost, c.PodToHost)
		override(&now.Invalid, c.Invalid)
		override(&now.Recheck, c.Recheck)
		override(&now.FailsafeIn, c.FailsafeIn)
		override(&now.FailsafeOut, c.FailsafeOut)
		override(&now.Masquerade.Ports, c.Masquerade.Ports)
		override(&now.Loops, c.Loops)
		override(&now.DropRecords, c.DropRecords)
		override(&now.MTU, c.MTU)
		override(&now.ClampMSS, c.ClampMSS)
		override(&now.PodTunnels, c.PodTunnels)
		override(&now.NodeCondition, c.NodeCondition)
		override(&now.TunnelSources, c.TunnelSources)
		override(&now.TunnelOffload, c.TunnelOffload)
		if c.Masquerade.To != nil {
			now.Masquerade.To4, now.Masquerade.To6 = byFamily(*c.Masquerade.To)
		}
		override(&inside.nodes, c.Masquerade.InsideNodes)
		override(&inside.nets, c.Masquerade.InsideNets)
		encryption.override(c.Encryption)
		override(&now.KeyRotation, c.Encryption.Rotation)
	}
	if cluster := in.bgp.now["default"]; cluster != nil {
		now.RouteTable, now.RouteMetric = cmp.Or(cluster.RouteTable, desired.MainTable), cluster.RouteMetric
	}
	encryption.rotates = now.KeyRotation > 0
	encryption.hosts = encryption.hosts && encryption.mode != event.Disabled
	now.HostTraffic = encryption.hosts
	inside.nets = slices.Clone(inside.nets) // the event keeps its own
	slices.SortFunc(inside.nets, netip.Prefix.Compare)
	was := s.said.last
	s.again = s.begun && (now.Backend != was.Backend || now.Backend == desired.Auto && proxied || now.Recheck && !was.Recheck)
	s.begun, s.inside, s.encryption = true, inside, encryption
	s.said.say(now)
}

// mine returns the configurations that select this node, in the order in which
// they override each other.
func (s *settings) mine(in *inputs) []*event.NodeConfiguration {
	node := in.nodes.now[s.node]
	var mine []*event.NodeConfiguration
	for _, name := range slices.Sorted(maps.Keys(in.configurations.now)) {
		c := in.configurations.now[name]
		switch {
		case !c.Nodes.IsAll() && (node == nil || !c.Nodes.Matches(node.Labels)):
		case name == firstConfiguration:
			mine = slices.Insert(mine, 0, c)
		default:
			mine = append(mine, c)
		}
	}
	return mine
}

func override[V any](into *V, with *V) {
	if with != nil {
		*into = *with
	}
}

// byFamily returns the last address of each family.
func byFamily(addrs []netip.Addr) (v4, v6 netip.Addr) {
	for _, a := range addrs {
		if a.Is4() {
			v4 = a
		} else {
			v6 = a
		}
	}
	return v4, v6
}

func (s *settings) settle() { s.again = false }
