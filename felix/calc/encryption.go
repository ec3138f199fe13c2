package calc

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/ipam"
)

// encryption decides which nodes are reached through WireGuard, and with what. It is
// a part of tunnels: what it decides takes the place of what a pool asks for.
//
// A node takes encrypted packets if its agent has announced a key. This node sends
// them so where a pool requires it, and where it is preferred once it has announced
// its own key: the others have heard of both by then.
//
// Of two ends that another node has packets take the one whose turn it is, unless it
// is the other alone that is proved to be reached.
type encryption struct {
	ways  encryptionWays
	keyed bool // something here asks for encryption
	own   map[desired.TunnelKind]desired.Key
	turn  *event.Turn

	keys      map[desired.EncryptedEnd]map[string]struct{} // who announces an end, this node too
	reached   map[string]map[desired.TunnelKind]reached    // what of other nodes is in encrypted
	unsure    map[string]struct{}                          // other nodes to look at again
	encrypted said[desired.EncryptedEnd, desired.EncryptedPeer]
	rules     said[desired.Rule, struct{}]
}

// reached is another node's end that this one knows.
type reached struct {
	desired.EncryptedEnd
	idle bool // packets take another
}

// encryptionWays is what the settings say.
type encryptionWays struct {
	mode    event.Encryption
	hosts   bool // what nodes send each other is encrypted too
	rotates bool // there are second ends
	port    [desired.WireGuard6Odd + 1]uint16
}

func newEncryptionWays() (w encryptionWays) {
	w.port[desired.WireGuard4], w.port[desired.WireGuard6] = desired.WireGuardPort4, desired.WireGuardPort6
	w.port[desired.WireGuard4Odd], w.port[desired.WireGuard6Odd] = desired.WireGuardPort4Odd, desired.WireGuardPort6Odd
	return w
}

func (w *encryptionWays) override(c event.EncryptionConfiguration) {
	override(&w.mode, c.Mode)
	override(&w.hosts, c.Hosts)
	override(&w.port[desired.WireGuard4], c.Port4)
	override(&w.port[desired.WireGuard6], c.Port6)
	override(&w.port[desired.WireGuard4Odd], c.Odd4)
	override(&w.port[desired.WireGuard6Odd], c.Odd6)
}

// closes reports whether packets to and from the pods of p never travel in clear. A
// pool for services alone has none: its addresses are translated on the way, and a
// route to nowhere would be asked first.
func (w encryptionWays) closes(p *event.Pool) bool {
	return p.Encrypted || w.mode == event.Required && p.Uses != ipam.LoadBalancer
}

func newEncryption() encryption {
	return encryption{
		keys:      map[desired.EncryptedEnd]map[string]struct{}{},
		reached:   map[string]map[desired.TunnelKind]reached{},
		unsure:    map[string]struct{}{},
		turn:      &event.Turn{},
		encrypted: newSaid[desired.EncryptedEnd](samePeer),
		rules:     newSaid[desired.Rule](identical[struct{}]),
	}
}

// followKeys takes over which ends of tunnels nodes announce. It reports whether
// this node's own are others.
func (t *tunnels) followKeys(in *inputs) (own bool) {
	for name, was := range in.networks.was {
		is := in.networks.now[name]
		if slices.Equal(endsOf(was), endsOf(is)) {
			continue
		}
		own = own || name == t.node
		for _, e := range endsOf(was) {
			drop(t.keys, e.EncryptedEnd, name)
			maps.Copy(t.unsure, t.keys[e.EncryptedEnd])
		}
		for _, e := range endsOf(is) {
			add(t.keys, e.EncryptedEnd, name)
			maps.Copy(t.unsure, t.keys[e.EncryptedEnd])
		}
		t.unsure[name] = struct{}{}
	}
	return own
}

func endsOf(n *event.NodeNetwork) []event.WireGuardEnd {
	if n == nil {
		return nil
	}
	return n.WireGuard
}

// wires are the interfaces of WireGuard that this node has, each with its address around
// packets.
func (t *tunnels) wires() map[string]netip.Addr {
	out := map[string]netip.Addr{}
	for kind, d := range t.devices.last {
		if kind.Encapsulation() == desired.WireGuard {
			out[kind.Device()] = d.Underlay
		}
	}
	return out
}

// followTurn takes over which ends are reached, and whose turn it is.
func (t *tunnels) followTurn(in *inputs) {
	for name, was := range in.turns.was {
		is := in.turns.now[name]
		if was == nil {
			was = &event.Turn{}
		}
		if is == nil {
			is = &event.Turn{}
		}
		for end := range was.Live {
			if _, still := is.Live[end]; !still {
				maps.Copy(t.unsure, t.keys[end])
			}
		}
		for end := range is.Live {
			if _, before := was.Live[end]; !before {
				maps.Copy(t.unsure, t.keys[end])
			}
		}
		if t.turn = is; is.Odd != was.Odd || is.Hosts != was.Hosts {
			for name := range t.reached {
				t.unsure[name] = struct{}{}
			}
		}
	}
}

// sayEncrypted tells of the ends of the nodes that are to be looked at again, and
// reports whether one is reached now that was not, or the other way round. What goes
// is settled before what comes: a key may have moved.
func (t *tunnels) sayEncrypted(in *inputs) (turned bool) {
	news := map[desired.EncryptedEnd]*desired.EncryptedPeer{}
	before := map[string]map[desired.TunnelKind]reached{}
	for name := range t.unsure {
		before[name] = t.reached[name]
		for _, end := range t.reached[name] {
			news[end.EncryptedEnd] = nil
		}
		delete(t.reached, name)
	}
	for name := range t.unsure {
		now := map[desired.TunnelKind]reached{}
		for _, e := range endsOf(in.networks.now[name]) {
			underlay, ok := t.listens(name, e.EncryptedEnd, in)
			if _, twice := now[e.Kind]; !ok || twice {
				continue
			}
			now[e.Kind] = reached{EncryptedEnd: e.EncryptedEnd}
			news[e.EncryptedEnd] = &desired.EncryptedPeer{Endpoint: netip.AddrPortFrom(underlay, e.Port), Prefixes: t.prefixes(name, underlay)}
		}
		for _, second := range []desired.TunnelKind{desired.WireGuard4Odd, desired.WireGuard6Odd} {
			if idle, two := t.rests(now, second); two {
				news[idle.EncryptedEnd].Idle, idle.idle = true, true
				now[idle.Kind] = idle
			}
		}
		for _, end := range now {
			_, proved := t.turn.Live[end.EncryptedEnd]
			news[end.EncryptedEnd].Host = proved && !end.idle && t.encryption.ways.hosts && t.turn.Hosts
		}
		if len(now) > 0 {
			t.reached[name] = now
		}
		if !maps.Equal(now, before[name]) {
			turned = true
			t.mark(t.owned[name])
			for p := range t.owned[name] {
				t.markInside(p)
			}
		}
	}
	for end, p := range news {
		t.encrypted.say(end, p)
	}
	forget(&t.unsure)
	return turned
}

// rests returns which of two ends of a node in the family of second packets do not
// take now.
func (t *tunnels) rests(ends map[desired.TunnelKind]reached, second desired.TunnelKind) (idle reached, two bool) {
	first, _ := desired.TunnelOf(desired.WireGuard, second.Is6())
	even, one := ends[first]
	odd, other := ends[second]
	if !one || !other {
		return reached{}, false
	}
	turn, waits := even, odd
	if t.turn.Odd {
		turn, waits = odd, even
	}
	_, works := t.turn.Live[turn.EncryptedEnd]
	if _, better := t.turn.Live[waits.EncryptedEnd]; better && !works {
		return turn, true
	}
	return waits, true
}

// carrier returns the tunnel that packets of a family to another node take, if they
// are encrypted.
func (t *tunnels) carrier(name string, v6 bool) (kind desired.TunnelKind, ok bool) {
	for kind, end := range t.reached[name] {
		if kind.Is6() == v6 && !end.idle {
			return kind, true
		}
	}
	return 0, false
}

// listens returns the address at which another node takes what is encrypted for
// its key. Of several nodes with one key the first by name counts, and none if this
// node is among them: a disk was copied, and packets for one would be read by all.
func (t *tunnels) listens(name string, end desired.EncryptedEnd, in *inputs) (underlay netip.Addr, ok bool) {
	n := in.nodes.now[name]
	if n == nil || name == t.node || !t.uses(end.Kind) || end.Key == t.own[end.Kind] {
		return underlay, false
	}
	for other := range t.keys[end] {
		if other == t.node || other < name && in.nodes.now[other] != nil {
			return underlay, false
		}
	}
	underlay = addrOf(n, !end.Kind.Is6())
	holder, held := t.holder(underlay)
	return underlay, held && holder == name
}

// prefixes are the blocks of a node that packets of a family are for, and the address
// at which it listens: pods reach it there too. The node's own address inside of the
// tunnel is in one of the blocks.
func (t *tunnels) prefixes(name string, underlay netip.Addr) []netip.Prefix {
	out := []netip.Prefix{single(underlay)}
	for p := range t.owned[name] {
		if p.Addr().Is6() == underlay.Is6() {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return slices.Compact(out)
}

// encrypts reports whether this node sends encrypted to another one for a pool.
func (t *tunnels) encrypts(pool *poolMode, name string, in *inputs) bool {
	v6 := pool.cidr.Addr().Is6()
	if _, reached := t.carrier(name, v6); !reached {
		return false
	}
	return pool.closed || t.announced(v6, in)
}

// announced reports whether others can have heard of an end of this node's own.
func (t *tunnels) announced(v6 bool, in *inputs) bool {
	own := func(e event.WireGuardEnd) bool { return e.Kind.Is6() == v6 }
	return slices.ContainsFunc(endsOf(in.networks.now[t.node]), own)
}

// sayRules tells of which pools packets go through tunnels also to nodes, and whether
// what the node itself sends does. It walks all pools, which are few.
func (t *tunnels) sayRules(in *inputs) {
	wanted := t.hostRules(in)
	for i := range t.pools {
		pool := &t.pools[i]
		kind, _ := desired.TunnelOf(desired.WireGuard, pool.cidr.Addr().Is6())
		if t.uses(kind) && (pool.closed || t.encryption.ways.mode != event.Disabled && t.announced(kind.Is6(), in)) {
			wanted[desired.Rule{Priority: desired.ToNodesRule, From: pool.cidr, Table: desired.ToNodesTable}] = struct{}{}
		}
	}
	for r := range t.rules.last {
		if _, still := wanted[r]; !still {
			t.rules.say(r, nil)
		}
	}
	for r := range wanted {
		t.rules.say(r, &struct{}{})
	}
}

// encryptedRoute returns the route to p if it is encryption that decides: into the
// tunnel, or nowhere where nothing may travel in clear. A pool as a whole leads
// nowhere then, so that nothing else takes what no block's route does, also while an
// interface is away.
func (t *tunnels) encryptedRoute(pool *poolMode, p netip.Prefix, in *inputs, blocks *blocks) (r *desired.Route, decided bool) {
	if !t.keyed {
		return nil, false
	}
	block, owner, owned := blocks.around(p)
	through := owned && t.encrypts(pool, owner, in)
	switch {
	case through && block == p:
		kind, _ := t.carrier(owner, p.Addr().Is6())
		return &desired.Route{Prefix: p, Kind: desired.Tunneled, Interface: kind.Device()}, true
	case through:
		return nil, true // nobody else speaks for a part of it
	case pool.closed && (owned && block == p || p == pool.cidr):
		return &desired.Route{Prefix: p, Kind: desired.Closed}, true
	}
	return nil, pool.closed
}

func samePeer(a, b *desired.EncryptedPeer) bool {
	return a.Endpoint == b.Endpoint && a.Idle == b.Idle && a.Host == b.Host && slices.Equal(a.Prefixes, b.Prefixes)
}
