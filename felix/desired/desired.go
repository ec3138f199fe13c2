// Package desired holds the types that cross from the engine to the kernel: what
// the node should look like, as changes since the last time. felix/calc makes
// Deltas, felix/apply hands them to the reconcilers. The package is pure.
package desired

import (
	"crypto/sha1"
	"encoding/hex"
	"maps"
	"net/netip"
	"strconv"

	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// RouteProtocol marks the routes that Korat owns (rtm_protocol in
// rtnetlink(7); `ip route` prints it as "proto 112"). Routes with any other
// protocol are never touched.
const RouteProtocol = 112

// InterfacePrefix begins the name of the host side of every pod's veth. What
// comes from an interface with this prefix and is not known is dropped.
const InterfacePrefix = "kor"

// HostInterface returns the name of the host side of a pod's veth: a function
// of the pod's name alone, so that every part computes it without asking.
func HostInterface(namespace, pod string) string {
	sum := sha1.Sum([]byte(namespace + "." + pod))
	return InterfacePrefix + hex.EncodeToString(sum[:])[:11]
}

// SetName returns the name of the kernel's set that holds the members of a set
// that are of one family: rules and sets are kept by different packages.
func SetName(id ir.SetID, f ir.Family) string {
	return "kor" + strconv.Itoa(int(f)) + "-" + string(id)
}

// Endpoint is a local pod attachment as the data plane sees it.
type Endpoint struct {
	Interface string // host side of the veth
	Pod       string // namespace/name, for comments and messages
	Addrs     []netip.Addr
	Sources   []netip.Prefix // nothing that is neither of these nor of Addrs may come out of Interface
	// Floating addresses lead to the one of Addrs of their family, which is there:
	// packets to them are translated before anybody decides about them. What the pod
	// sends to outside of desired.InsideSet with its own address leaves with the first
	// of the family. Ascending.
	Floating   []netip.Addr
	Generation uint64 // of event.Endpoint
	Rates      Rates
	// Ingress decides about packets to the pod, Egress about packets from it.
	Ingress, Egress ir.Chain
}

// Rates bound what a pod gets (Ingress) and sends (Egress), in bits a second; 0: not.
type Rates struct {
	Ingress uint64 `json:"ingress,omitempty"`
	Egress  uint64 `json:"egress,omitempty"`
}

// AnyInterface is the key of the host endpoint that stands for every interface
// that has none of its own, those of pods aside.
const AnyInterface = "*"

// HostEndpoint is an interface of this node, or AnyInterface, whose traffic
// policies decide about.
type HostEndpoint struct {
	Name      string       // of the API object
	Interface string       // AnyInterface or a name
	Addrs     []netip.Addr // by which policies know it, as its object says
	// Normal decides about packets that begin or end on the node, Forward about
	// those that it passes on. PreDNAT and Untracked are asked before them: what a
	// rule there allows is not asked again at this endpoint in this direction, and
	// what no rule decides, which their Default allows, goes on. PreDNAT has no
	// Egress. What keeps the node alive is for the backend to let in before all
	// but Forward. eval.Host is the whole law.
	Normal, Forward, PreDNAT, Untracked Chains
}

// Chains are the two directions, seen from the endpoint.
type Chains struct{ Ingress, Egress ir.Chain }

// RouteKind is what a route does with a packet.
type RouteKind uint8

// Local: out of a local pod's veth, scope link. Unreachable: an own block's
// address that no pod holds. Via: through next hops learned by BGP, or nodes on the
// same link that the API tells of. Tunneled: through this node's end of a tunnel,
// which every next hop is behind. Closed: nowhere, though other nodes may have pods
// there, as no tunnel encrypts what goes to them and it may not travel in clear.
const (
	Local RouteKind = iota
	Unreachable
	Via
	Tunneled
	Closed
)

// Route is one kernel route. There is at most one per prefix: the engine has
// settled conflicts.
type Route struct {
	Prefix    netip.Prefix
	Kind      RouteKind
	Interface string       // Local and Tunneled
	NextHops  []netip.Addr // of Via and Tunneled; more than one is ECMP. Sorted, each once
	// Weights are those of NextHops, 1 to 255, nil: all equal. A next hop of the
	// other family has the route's packets on its link (RFC 8950); one that is
	// link-local has its interface as zone.
	Weights []uint8
}

// SetChange is the change of one address set.
type SetChange struct {
	Kind ir.SetKind
	// Gone: nobody refers to the set any more. Add and Del are nil.
	Gone bool
	// Whole: the set's members are exactly Add, whatever they were before.
	Whole    bool
	Add, Del map[ir.Member]struct{}
}

// Delta is a change of what is desired. In each map a nil value means that the
// key is not desired any more. Applying the same Delta twice is the same as once.
type Delta struct {
	Endpoints map[string]*Endpoint // by host interface
	// Programs, by policy and direction, are those of enforced policies; chains
	// name staged ones as Pending only.
	Programs map[ir.ProgramID]*ir.Program
	Sets     map[ir.SetID]*SetChange // by set
	Routes   map[netip.Prefix]*Route // by prefix
	Paths    map[PathKey]*bgp.Path   // what we originate
	Speaker  *bgp.Config             // nil: unchanged
	// Closed are sessions that somebody wants and that cannot be as they are
	// written, with the reason as their LastError; nil: unchanged. For reports alone.
	Closed *[]bgp.Session
	Pools  *[]netip.Prefix // all pools' CIDRs, sorted; nil: unchanged
	// HostEndpoints of this node, by interface, AnyInterface for the rest. The
	// engine has found the interfaces of those that are given by address, and
	// settled who stands for an interface that several name.
	HostEndpoints map[string]*HostEndpoint
	Settings      *Settings // nil: unchanged
	// Tunnels are this node's ends of tunnels, TunnelPeers those of others.
	Tunnels     map[TunnelKind]*TunnelDevice
	TunnelPeers map[TunnelEnd]*TunnelPeer
	// EncryptedPeers are the other nodes' ends of WireGuard tunnels.
	EncryptedPeers map[EncryptedEnd]*EncryptedPeer
	// Rules are those of policy routing.
	Rules map[Rule]*struct{}
	// Ways say how other nodes are reached, for reports alone, by pool.
	Ways map[string]*PoolWays
	MTU  *MTU // nil: unchanged
	// Policies that select something here, staged ones too: for reports alone.
	Policies map[policy.Key]*PolicyUse
	// Complete: the API server and the CNI journal have told all they know, so
	// what is not desired may be removed. Once true it stays true.
	Complete bool
	// Learned: the BGP neighbours have told all they know as well, so Via routes
	// that are not desired may be removed. Once true it stays true.
	Learned bool
}

// PathKey identifies an originated path: a block of one address and a pod on
// that address are two paths, and one more for each BGPAdvertisement of them.
type PathKey struct {
	Prefix        netip.Prefix
	Kind          bgp.Advertise
	Advertisement string
}

// Empty reports whether d says nothing.
func (d *Delta) Empty() bool {
	return len(d.Endpoints) == 0 && len(d.HostEndpoints) == 0 && len(d.Programs) == 0 && len(d.Sets) == 0 && len(d.Routes) == 0 &&
		len(d.Tunnels) == 0 && len(d.TunnelPeers) == 0 && len(d.EncryptedPeers) == 0 && len(d.Rules) == 0 && len(d.Ways) == 0 && d.MTU == nil && len(d.Paths) == 0 && d.Speaker == nil && d.Closed == nil && d.Settings == nil && d.Pools == nil && len(d.Policies) == 0 && !d.Complete && !d.Learned
}

// Merge makes d say what d and then next say. It lets changes pile up, bounded
// by the number of keys, while the kernel is busy. next is not used afterwards.
func (d *Delta) Merge(next Delta) {
	merge(&d.Endpoints, next.Endpoints)
	merge(&d.HostEndpoints, next.HostEndpoints)
	merge(&d.Programs, next.Programs)
	merge(&d.Routes, next.Routes)
	merge(&d.Paths, next.Paths)
	merge(&d.Policies, next.Policies)
	merge(&d.Tunnels, next.Tunnels)
	merge(&d.TunnelPeers, next.TunnelPeers)
	merge(&d.EncryptedPeers, next.EncryptedPeers)
	merge(&d.Rules, next.Rules)
	merge(&d.Ways, next.Ways)
	for id, c := range next.Sets {
		if d.Sets == nil {
			d.Sets = map[ir.SetID]*SetChange{}
		}
		d.Sets[id] = d.Sets[id].then(c)
	}
	if next.Closed != nil {
		d.Closed = next.Closed
	}
	if next.Speaker != nil {
		d.Speaker = next.Speaker
	}
	if next.Pools != nil {
		d.Pools = next.Pools
	}
	if next.MTU != nil {
		d.MTU = next.MTU
	}
	if next.Settings != nil {
		d.Settings = next.Settings
	}
	d.Complete = d.Complete || next.Complete
	d.Learned = d.Learned || next.Learned
}

func merge[K comparable, V any](into *map[K]V, from map[K]V) {
	if *into == nil {
		*into = from
		return
	}
	for k, v := range from {
		(*into)[k] = v
	}
}

// Apply makes of the members that the set had before c those that it has after.
func (c *SetChange) Apply(members map[ir.Member]struct{}) {
	if c.Whole || c.Gone {
		clear(members)
	}
	maps.Copy(members, c.Add)
	for m := range c.Del {
		delete(members, m)
	}
}

// then returns the change that has the effect of c followed by next.
func (c *SetChange) then(next *SetChange) *SetChange {
	if c == nil || next.Gone || next.Whole {
		return next
	}
	if c.Gone {
		// A set that went and came back without Whole would lack its members: the
		// engine always sends a set that begins as Whole.
		panic("bug: change of a set that is gone")
	}
	for m := range next.Add {
		c.add(m)
	}
	for m := range next.Del {
		c.del(m)
	}
	return c
}

func (c *SetChange) add(m ir.Member) {
	delete(c.Del, m)
	if c.Add == nil {
		c.Add = map[ir.Member]struct{}{}
	}
	c.Add[m] = struct{}{}
}

func (c *SetChange) del(m ir.Member) {
	delete(c.Add, m)
	if c.Whole {
		return
	}
	if c.Del == nil {
		c.Del = map[ir.Member]struct{}{}
	}
	c.Del[m] = struct{}{}
}
