package calc_test

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/felix/calc"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/policy/selector"
)

// as returns what the node of that name computes when it is told evs.
func as(name string, evs ...event.Event) bgp.Config {
	e := calc.New(calc.Config{Node: name})
	e.Synced(everyone)
	for _, ev := range evs {
		e.Put(ev)
	}
	return *e.Flush().Speaker
}

// toward returns the session that a configuration has with an address.
func toward(c bgp.Config, addr string) *bgp.Peer {
	for i := range c.Peers {
		if c.Peers[i].Addr == netip.MustParseAddr(addr) {
			return &c.Peers[i]
		}
	}
	return nil
}

func (r *run) closed() string {
	var out []string
	for _, s := range r.world.Closed {
		out = append(out, s.Peer+": "+s.LastError)
	}
	return strings.Join(out, "\n")
}

func TestItem67NoPeerTakesRoutesThatAreNotItsToGive(t *testing.T) {
	r := ready(t, bgpConfig(false), node("me", "", "172.16.0.5"), pool("10.0.0.0/16"), block("10.0.5.0/26", "me"),
		learned("0.0.0.0/0", "172.16.0.1"), learned("10.0.7.0/26", "172.16.0.1"), learned("192.0.2.0/24", "172.16.0.1"), learned("10.0.5.0/26", "172.16.0.1"))
	if got, want := len(r.world.Routes), 2; got != want || r.world.Routes[netip.MustParsePrefix("10.0.7.0/26")].Kind != desired.Via {
		t.Errorf("routes are %v, want the own block and that of the other node", r.world.Routes)
	}
	r.tell(event.Set("default", &event.BGP{ASN: 64512, ListenPort: 179, Learn: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}}))
	if _, taken := r.world.Routes[netip.MustParsePrefix("0.0.0.0/0")]; !taken {
		t.Error("a default route that is asked for does not enter")
	}
}

func TestItem68ReflectorsLeaveTheMeshAndBothEndsAgree(t *testing.T) {
	world := evs{
		event.Set("default", &event.BGP{ASN: 64512, Mesh: true, ListenPort: 179, Reflectors: &event.Reflectors{
			Nodes: selector.Has("reflector"), ClusterID: netip.MustParseAddr("244.0.0.1"),
		}}),
		node("r1", "reflector=", "172.16.0.1"), node("r2", "reflector=", "172.16.0.2"), node("c1", "", "172.16.0.3"), node("c2", "", "172.16.0.4"),
		node("x", "", "172.16.0.9"), network("x", 65009),
	}
	r1, r2, c1, c2 := as("r1", world...), as("r2", world...), as("c1", world...), as("c2", world...)
	if r1.ClusterID.String() != "244.0.0.1" || c1.ClusterID.IsValid() {
		t.Errorf("cluster ids are %s and %s", r1.ClusterID, c1.ClusterID)
	}
	if p := toward(r1, "172.16.0.2"); p == nil || p.ReflectorClient {
		t.Errorf("between reflectors it is %+v, want a session without a client", p)
	}
	if p := toward(r2, "172.16.0.3"); p == nil || !p.ReflectorClient || !p.AddPaths || p.NextHop != bgp.NextHopAuto {
		t.Errorf("a client of a reflector is %+v, want next hops kept", p)
	}
	if len(r1.Peers) != 3 || len(c1.Peers) != 2 || toward(c1, "172.16.0.4") != nil || toward(c2, "172.16.0.1").ReflectorClient {
		t.Errorf("a reflector has %d sessions, a client %d", len(r1.Peers), len(c1.Peers))
	}
}

// TestItem77ReflectorsHearOfServices, so that routers that have sessions with them
// alone do too.
func TestItem77ReflectorsHearOfServices(t *testing.T) {
	world := evs{node("r1", "reflector=", "172.16.0.1"), node("r2", "reflector=", "172.16.0.2"), node("c1", "", "172.16.0.3")}
	cluster := event.BGP{ASN: 64512, Mesh: true, ListenPort: 179}
	if p := toward(as("c1", append(world, event.Set("default", &cluster))...), "172.16.0.1"); p.Advertise != bgp.Blocks {
		t.Errorf("in a mesh nodes are told %v, want blocks alone", p.Advertise)
	}
	reflected := cluster
	reflected.Reflectors = &event.Reflectors{Nodes: selector.Has("reflector"), ClusterID: netip.MustParseAddr("244.0.0.1")}
	world = append(world, event.Set("default", &reflected))
	for from, to := range map[string]string{"c1": "172.16.0.1", "r1": "172.16.0.2", "r2": "172.16.0.3"} {
		if p := toward(as(from, world...), to); p == nil || p.Advertise != bgp.Blocks|bgp.Services {
			t.Errorf("%s has with %s the session %+v, want blocks and services told", from, to, p)
		}
	}
}

// TestTheGatewayIsThatOfTheSession: of two BGPPeers with one address the one that has
// the session says what leads there.
func TestTheGatewayIsThatOfTheSession(t *testing.T) {
	behind := func(name, gateway string) event.Event {
		p := peer(name, nil, "172.16.9.1", 65000)
		p.Value.(*event.Peer).Gateway = netip.MustParseAddr(gateway)
		return p
	}
	to := netip.MustParsePrefix("172.16.9.1/32")
	r := ready(t, bgpConfig(false), node("me", "", "172.16.0.5"), behind("a", "172.16.0.1"), behind("b", "172.16.0.2"))
	if hops := r.world.Routes[to].NextHops; len(hops) != 1 || hops[0].String() != "172.16.0.1" {
		t.Errorf("route to the neighbour leads to %v, want the gateway of a", hops)
	}
	r.tell(gone(behind("a", "172.16.0.1")))
	if hops := r.world.Routes[to].NextHops; len(hops) != 1 || hops[0].String() != "172.16.0.2" {
		t.Errorf("when a is gone the route leads to %v, want the gateway of b", hops)
	}
	r.tell(peer("a", nil, "172.16.9.1", 65000))
	if hops := r.world.Routes[to].NextHops; len(hops) != 0 {
		t.Errorf("a is back without a gateway, and the route leads to %v", hops)
	}
}

func TestItem68EveryPairOfNodesAgreesAboutItsSession(t *testing.T) {
	for seed := range uint64(100) {
		d := newDice(seed, 8)
		var world evs
		for _, name := range []string{"a", "b", "c", "d", "e"} {
			world = append(world, node(name, pick(d, "", "app=x", "app=y"), "172.16.0."+string('1'+rune(name[0]-'a'))))
			n := &event.NodeNetwork{Name: name, ASN: pick[uint32](d, 0, 0, 64999)}
			if d.chance(60) {
				n.Group, n.Reflector = netip.MustParseAddr(pick(d, "244.0.0.1", "244.0.0.2")), d.chance(50)
			}
			world = append(world, event.Set(name, n))
		}
		_, c := d.cluster()
		c.(*event.BGP).Password = nil
		world = append(world, event.Set("default", c), event.Set("between", &event.Peer{
			Name: "between", Nodes: d.selector(), Others: d.selector(), FromNode: true, Session: bgp.Peer{Hold: bgp.MeshHold, Keepalive: bgp.MeshKeepalive},
		}))
		configs := map[string]bgp.Config{}
		for _, name := range []string{"a", "b", "c", "d", "e"} {
			configs[name] = as(name, world...)
		}
		for one, x := range configs {
			for other, y := range configs {
				here, there := toward(x, y.RouterID.String()), toward(y, x.RouterID.String())
				switch {
				case (here == nil) != (there == nil):
					t.Fatalf("seed %d: %s has %+v with %s, which has %+v", seed, one, here, other, there)
				case here == nil:
				case here.Passive == there.Passive || here.ASN != y.ASN || here.ReflectorClient && there.ReflectorClient || here.Hold != there.Hold:
					t.Fatalf("seed %d: %s and %s do not fit:\n%+v\n%+v", seed, one, other, here, there)
				}
			}
		}
	}
}

func TestItem69OfTwoNodesOneCalls(t *testing.T) {
	world := evs{bgpConfig(true), node("a", "", "172.16.0.9", "fd00::a"), node("b", "", "172.16.0.10", "fd00::9")}
	a, b := as("a", world...), as("b", world...)
	for _, c := range []struct{ caller, waiter *bgp.Peer }{
		{toward(a, "172.16.0.10"), toward(b, "172.16.0.9")}, // as numbers, not as texts
		{toward(b, "fd00::a"), toward(a, "fd00::9")},
	} {
		if c.caller == nil || c.waiter == nil || c.caller.Passive || !c.waiter.Passive {
			t.Errorf("caller %+v, waiter %+v", c.caller, c.waiter)
		}
	}
}

func TestItem69APasswordChangesOneSessionAlone(t *testing.T) {
	secret := func(value bgp.Password) event.Event {
		return event.Set("s", &event.Secret{Name: "s", Values: map[string]bgp.Password{"tor": value}})
	}
	tor := peer("tor", nil, "172.16.0.254", 65000)
	tor.Value.(*event.Peer).Password = &event.SecretKey{Secret: "s", Key: "tor"}
	r := ready(t, bgpConfig(true), node("me", "", "172.16.0.5"), node("n1", "", "172.16.0.1"), tor)
	const why = `bgppeer/tor: spec.password: Secret "s" does not exist in the namespace of the agents, or they may not read it`
	if got := r.closed(); got != why || toward(r.world.Speaker, "172.16.0.254") != nil {
		t.Errorf("without its secret: %s", got)
	}
	r.tell(secret("old"))
	before := r.world.Speaker
	r.tell(secret("new"))
	after := r.world.Speaker
	if got := toward(after, "172.16.0.254").Password; got != "new" || r.closed() != "" {
		t.Errorf("password is %q, closed: %s", string(got), r.closed())
	}
	if !reflect.DeepEqual(toward(before, "172.16.0.1"), toward(after, "172.16.0.1")) {
		t.Error("the session of the mesh changed too")
	}
	r.tell(event.Set("s", &event.Secret{Name: "s", Values: map[string]bgp.Password{"x": "y"}}))
	if got := r.closed(); got != `bgppeer/tor: spec.password: Secret "s" has no key "tor"` {
		t.Errorf("without the key: %s", got)
	}
	if text := r.world.Speaker.Peers; strings.Contains(fmt.Sprintf("%v %+v %#v", text, text, text), "new") {
		t.Error("a password is printed")
	}
}

func TestItem79AddressesOfNodesAreFollowed(t *testing.T) {
	r := ready(t, bgpConfig(true), node("me", "", "172.16.0.5"), node("n1", "", "172.16.0.1"))
	r.tell(node("n1", "", "172.16.0.7"))
	if got := r.peers(); got != "nodenetwork/n1@172.16.0.7/64512" {
		t.Errorf("when the other node moved neighbours are %q", got)
	}
	r.tell(node("me", "", "172.16.0.8"))
	if p := toward(r.world.Speaker, "172.16.0.7"); p == nil || p.LocalAddr.String() != "172.16.0.8" || !p.Passive || r.world.Speaker.RouterID.String() != "172.16.0.8" {
		t.Errorf("when this node moved its session is %+v", p)
	}
	nodes := r.world.Sets[desired.NodesSet]
	if len(nodes) != 2 {
		t.Errorf("the set of nodes is %v", nodes)
	}
}

func TestItem79TwoNodesWithOneAddressAreTold(t *testing.T) {
	r := ready(t, bgpConfig(true), node("me", "", "172.16.0.5"), node("n1", "", "172.16.0.5"), node("n2", "", "172.16.0.6"))
	if got := r.closed(); got != "nodenetwork/n1: node n1 has the address 172.16.0.5 of this node, expected one of its own" {
		t.Errorf("closed: %s", got)
	}
	if got := r.peers(); got != "nodenetwork/n2@172.16.0.6/64512" {
		t.Errorf("neighbours are %q", got)
	}
	r.tell(node("n1", "", "172.16.0.7"))
	if got := r.closed(); got != "" {
		t.Errorf("healed, but closed: %s", got)
	}
}
