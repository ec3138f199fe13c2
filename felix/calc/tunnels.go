package calc

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/gaissmai/bart"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/event"
)

// tunnels decides how packets reach other nodes: in what, by the mode of the pool
// that the destination belongs to; and to whom, by the blocks, floating addresses
// among them, where packets travel in VXLAN or nothing else is known, and by the next
// hop that BGP taught where they travel in IPIP. The routes stage asks it.
//
// A node's end of a tunnel is known from its Node object alone: the address around
// packets is in it, the hardware address follows from the name. So nothing waits
// for another node's agent.
type tunnels struct {
	node   string
	pools  []poolMode
	self   [2]netip.Addr // this node's addresses around packets: IPv4, IPv6
	silent bool          // this node has no BGP neighbours

	claims map[netip.Addr]map[string]struct{}       // other nodes by the address that carries tunnels
	told   map[netip.Addr]desired.TunnelEnd         // what of them is in ends
	owned  map[string]map[netip.Prefix]struct{}     // blocks by owner
	byHop  map[netip.Addr]map[netip.Prefix]struct{} // learned prefixes by next hop
	taught *bart.Lite                               // all learned prefixes, to be asked for the parts of a block

	dirty   map[netip.Prefix]struct{} // whose route may be another
	devices said[desired.TunnelKind, desired.TunnelDevice]
	ends    said[desired.TunnelEnd, desired.TunnelPeer]
	ways    said[string, desired.PoolWays]
	mtu     words[desired.MTU]

	encryption
}

func newTunnels(node string) tunnels {
	return tunnels{
		node: node, claims: map[netip.Addr]map[string]struct{}{}, told: map[netip.Addr]desired.TunnelEnd{},
		owned: map[string]map[netip.Prefix]struct{}{}, byHop: map[netip.Addr]map[netip.Prefix]struct{}{},
		taught:  &bart.Lite{},
		dirty:   map[netip.Prefix]struct{}{},
		devices: newSaid[desired.TunnelKind](identical[desired.TunnelDevice]),
		ends:    newSaid[desired.TunnelEnd](identical[desired.TunnelPeer]),
		ways:    newSaid[string](sameWays),
		mtu:     words[desired.MTU]{same: identicalValues[desired.MTU]},

		encryption: newEncryption(),
	}
}

func (t *tunnels) drain(in *inputs, settings *settings, blocks *blocks, speaker *speaker) {
	touched := t.follow(in, blocks)
	self := t.selfAddrs(in)
	silent := len(speaker.said.last.Peers) == 0
	whole := t.followKeys(in) || len(in.pools.was)+len(in.tunnelKeys.was) > 0 || self != t.self || silent != t.silent || settings.encryption != t.encryption.ways
	if whole {
		// Whole, because a person edits a pool, or this node has another address.
		t.self, t.silent, t.encryption.ways = self, silent, settings.encryption
		t.markAll(in, blocks)
		t.followPools(in)
		for a := range t.claims {
			touched[a] = struct{}{}
		}
	}
	if whole || len(in.bgp.was) > 0 {
		t.sayRules(in)
	}
	t.followTurn(in)
	turned := t.sayEncrypted(in)
	if !whole && !turned && len(touched)+len(in.tunnelAddrs.was) == 0 {
		return
	}
	t.sayPeers(touched)
	t.sayDevices(in)
	t.sayWays(in)
}

// followPools takes over pools, and what they and the settings ask for.
func (t *tunnels) followPools(in *inputs) {
	t.pools = poolModes(&in.pools, t.encryption.ways)
	t.keyed = t.encryption.ways.mode != event.Disabled
	for _, pool := range t.pools {
		t.keyed = t.keyed || pool.closed
		t.dirty[pool.cidr] = struct{}{}
	}
	t.own = map[desired.TunnelKind]desired.Key{}
	for _, k := range in.tunnelKeys.now {
		t.own[k.Kind] = k.Key
	}
}

// markAll marks every route, and every node.
func (t *tunnels) markAll(in *inputs, blocks *blocks) {
	for _, pool := range t.pools { // those that were
		t.dirty[pool.cidr] = struct{}{}
	}
	for p := range blocks.owner {
		t.dirty[p] = struct{}{}
	}
	for _, l := range in.learned.now {
		t.dirty[l.Prefix] = struct{}{}
	}
	for name := range in.nodes.now {
		t.unsure[name] = struct{}{}
	}
}

// follow takes over what changed of nodes, blocks and learned next hops, and
// returns the addresses of nodes to look at again.
func (t *tunnels) follow(in *inputs, blocks *blocks) map[netip.Addr]struct{} {
	touched := map[netip.Addr]struct{}{}
	for name, was := range in.nodes.was {
		if name == t.node {
			continue
		}
		for _, a := range carriers(was) {
			drop(t.claims, a, name)
			touched[a] = struct{}{}
		}
		for _, a := range carriers(in.nodes.now[name]) {
			add(t.claims, a, name)
			touched[a] = struct{}{}
		}
		t.mark(t.owned[name])
		t.unsure[name] = struct{}{}
		for _, e := range endsOf(in.networks.now[name]) {
			maps.Copy(t.unsure, t.keys[e.EncryptedEnd])
		}
	}
	for name, was := range in.reach.was {
		for _, r := range []*event.Reach{was, in.reach.now[name]} {
			if r != nil {
				touched[r.Addr] = struct{}{}
			}
		}
	}
	t.followLearned(in)
	t.followBlocks(blocks)
	for a := range touched {
		t.mark(t.byHop[a])
		for name := range t.claims[a] {
			t.mark(t.owned[name])
			t.unsure[name] = struct{}{}
		}
	}
	return touched
}

func (t *tunnels) followLearned(in *inputs) {
	for name, was := range in.learned.was {
		if was != nil {
			t.taught.Delete(was.Prefix)
			for _, h := range was.NextHops {
				drop(t.byHop, h, was.Prefix)
			}
		}
		if is := in.learned.now[name]; is != nil {
			t.taught.Insert(is.Prefix)
			for _, h := range is.NextHops {
				add(t.byHop, h, is.Prefix)
			}
		}
	}
}

// followBlocks comes after followLearned, which knows what is inside of them.
func (t *tunnels) followBlocks(blocks *blocks) {
	for p, was := range blocks.moved {
		if was != "" {
			drop(t.owned, was, p)
			t.unsure[was] = struct{}{}
		}
		if is := blocks.owner[p]; is != "" {
			add(t.owned, is, p)
			t.unsure[is] = struct{}{}
		}
		t.dirty[p] = struct{}{}
		t.markInside(p)
	}
}

// markInside marks what was learned of a block and of parts of it: whose they are to
// speak for may be another. What was learned of more than the block asks wider blocks.
func (t *tunnels) markInside(block netip.Prefix) {
	if pool := t.poolOf(block); pool == nil || pool.modes.Sends.Encapsulation == desired.Plain && !t.keyed {
		return
	}
	for p := range t.taught.Subnets(block) {
		t.dirty[p] = struct{}{}
	}
}

func (t *tunnels) mark(prefixes map[netip.Prefix]struct{}) { maps.Copy(t.dirty, prefixes) }

func (t *tunnels) settle() { forget(&t.dirty) }

// carriers are the addresses of a node around packets, one of each family.
func carriers(n *event.Node) (out []netip.Addr) {
	if n == nil {
		return nil
	}
	for _, v4 := range []bool{true, false} {
		if a := addrOf(n, v4); a.IsValid() {
			out = append(out, a)
		}
	}
	return out
}

func (t *tunnels) selfAddrs(in *inputs) (self [2]netip.Addr) {
	if n := in.nodes.now[t.node]; n != nil {
		self = [2]netip.Addr{addrOf(n, true), addrOf(n, false)}
	}
	return self
}

// holder returns which node has an address that carries tunnels: of several that
// say so, the first by name.
func (t *tunnels) holder(a netip.Addr) (name string, held bool) {
	for n := range t.claims[a] {
		if !held || n < name {
			name, held = n, true
		}
	}
	return name, held && !slices.Contains(t.self[:], a)
}

// kindOf returns the tunnel for packets in e to an address around them, if this
// node can have it.
func (t *tunnels) kindOf(e desired.Encapsulation, v6 bool) (desired.TunnelKind, bool) {
	kind, ok := desired.TunnelOf(e, v6)
	if v6 {
		return kind, ok && t.self[1].IsValid()
	}
	return kind, ok && t.self[0].IsValid()
}

// poolOf returns the pool that p belongs to, nil if there is none.
func (t *tunnels) poolOf(p netip.Prefix) *poolMode {
	for i, pool := range t.pools {
		if pool.cidr.Bits() <= p.Bits() && pool.cidr.Contains(p.Addr()) {
			return &t.pools[i]
		}
	}
	return nil
}

func add[K, V comparable](m map[K]map[V]struct{}, k K, v V) {
	if m[k] == nil {
		m[k] = map[V]struct{}{}
	}
	m[k][v] = struct{}{}
}

func drop[K, V comparable](m map[K]map[V]struct{}, k K, v V) {
	if delete(m[k], v); len(m[k]) == 0 {
		delete(m, k)
	}
}
