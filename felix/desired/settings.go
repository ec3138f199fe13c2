package desired

import (
	"net/netip"
	"reflect"
	"time"

	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// Sets that the engine always tells, whatever policies say. They are of kind
// Nets, and may be empty. Their names cannot be those of policies' sets, which
// are hashes.
const (
	// MasqueradeSet has the pools whose pods hide behind their node's address when
	// they leave the cluster.
	MasqueradeSet ir.SetID = "masquerade"
	// InsideSet has the destinations that pods reach under their own address: all
	// pools, and what else the Settings leave out of masquerading.
	InsideSet ir.SetID = "inside"
	// NodesSet has the addresses of all nodes.
	NodesSet ir.SetID = "nodes"
	// ServicesSet has the ranges of service addresses that BGP announces.
	ServicesSet ir.SetID = "services"
)

// Backend is a data plane that enforces policy.
type Backend string

// The backends. Auto is the generation of netfilter that kube-proxy uses, and
// iptables where none of its rules are found.
const (
	Auto     Backend = "Auto"
	IPTables Backend = "IPTables"
	NFTables Backend = "NFTables"
)

// Flavour is a variant of the iptables programs.
type Flavour string

// The flavours: over nf_tables, over the older kernel interface, or the one that
// has rules already. AutoFlavour is that of kube-proxy.
const (
	AutoFlavour   Flavour = "Auto"
	NFTFlavour    Flavour = "NFT"
	LegacyFlavour Flavour = "Legacy"
)

// TunnelOffload says whether packets leave through tunnels of VXLAN and IPIP with
// checksums that the sending device is to make.
type TunnelOffload uint8

// The modes: unless a trial finds that they do not arrive, always, or never.
const (
	OffloadAuto TunnelOffload = iota
	OffloadOn
	OffloadOff
)

// Settings say how the data plane of this node behaves: what the
// NodeConfigurations that select the node say together, and what the BGPConfiguration
// says of routes. Every field has a value.
type Settings struct {
	Backend Backend
	Flavour Flavour // of Backend IPTables
	// Marks are the bits of the packet mark that our rules may use, at least 4.
	// None of them may be of kube-proxy (0xc000) or portmap (0x2000).
	Marks uint32
	// PodToHost is what happens to a packet from a pod to its own node that the
	// pod's egress policy allows: Allow, Deny, or Pass to the host's other rules.
	PodToHost policy.Action
	// Invalid is what happens to packets of pods that conntrack cannot place: Deny,
	// or Allow to let policy decide, for asymmetric paths.
	Invalid policy.Action
	// Recheck: connections that a changed policy denies are cut. Otherwise they
	// live until they end, as Kubernetes users know it.
	Recheck bool
	// FailsafeIn and FailsafeOut keep the node alive: they pass before the policies
	// of host endpoints, in both directions of the connection.
	FailsafeIn, FailsafeOut []Failsafe
	Masquerade              Masquerade
	// Loops is what happens to packets for a ServicesSet address that nobody
	// serves, which would go back to the router they came from: Deny drops them,
	// Pass leaves them alone.
	Loops policy.Action
	// MTU of the interfaces of pods; 0 is that of the node's uplink.
	MTU int
	// DropRecords: denied packets are told to NFLOG group DropGroup.
	DropRecords bool
	// ClampMSS: when TCP connections of pods begin, both ends are told not to send
	// segments larger than the way takes.
	ClampMSS bool
	// PodTunnels: pods may send packets that carry packets, to VXLANPort and in IP.
	PodTunnels bool
	// TunnelSources may put packets into the node's tunnels, beside NodesSet.
	TunnelSources []netip.Prefix
	TunnelOffload TunnelOffload
	// KeyRotation is how often the keys of WireGuard change turns, of which then one
	// is renewed; 0: never.
	KeyRotation time.Duration
	// HostTraffic: what the node itself sends to other nodes is encrypted where that is
	// proved to work.
	HostTraffic bool
	// NodeCondition: the Node's condition NetworkUnavailable is the agent's to write.
	NodeCondition bool
	// RouteTable is the kernel's table that all of our routes but default routes are
	// in, and that packets are led to, and RouteMetric the metric of our routes; 0:
	// what the kernel makes of none.
	RouteTable, RouteMetric uint32
}

// MainTable is the routing table that every packet is led to in the end. Default
// routes are there.
const MainTable = 254

// Equal reports whether s and o are the same. It reflects, so that no field can
// be forgotten: settings change when a person edits them.
func (s Settings) Equal(o Settings) bool { return reflect.DeepEqual(s, o) }

// Failsafe is traffic that host policies never stop.
type Failsafe struct {
	Protocol policy.Protocol
	Port     uint16
	Net      netip.Prefix // of the other side; the zero Prefix is everybody
}

// Masquerade says how pods of MasqueradeSet leave the cluster.
type Masquerade struct {
	// To4 and To6 are the addresses to hide behind; the zero Addr is that of the
	// interface through which the packet leaves.
	To4, To6 netip.Addr
	// Ports of TCP and UDP that may be used as source; the zero range is the
	// kernel's choice.
	Ports ir.PortRange
}

// To returns To4 or To6.
func (m Masquerade) To(f ir.Family) netip.Addr {
	if f == ir.IPv6 {
		return m.To6
	}
	return m.To4
}

// DefaultSettings are those of a node that no NodeConfiguration selects.
func DefaultSettings() Settings {
	s := Settings{
		Backend: Auto, Flavour: AutoFlavour, Marks: 0xf0000,
		PodToHost: policy.Allow, Invalid: policy.Deny, Loops: policy.Deny, DropRecords: true,
		NodeCondition: true, RouteTable: MainTable,
	}
	for _, port := range []uint16{22, 179, 2379, 2380, 6443, 10250} {
		s.FailsafeIn = append(s.FailsafeIn, Failsafe{Protocol: policy.TCP, Port: port})
	}
	for _, port := range []uint16{68, 3784, 4784} { // BFD is what BGP's 179 is: without it neighbours leave the node
		s.FailsafeIn = append(s.FailsafeIn, Failsafe{Protocol: policy.UDP, Port: port})
	}
	for _, port := range []uint16{53, 179, 2379, 2380, 6443} {
		s.FailsafeOut = append(s.FailsafeOut, Failsafe{Protocol: policy.TCP, Port: port})
	}
	for _, port := range []uint16{53, 67, 3784, 4784} {
		s.FailsafeOut = append(s.FailsafeOut, Failsafe{Protocol: policy.UDP, Port: port})
	}
	return s
}
