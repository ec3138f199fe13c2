package calc_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/felix/calc"
	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/policy/selector"
)

// peers describes the neighbours, one a word: name@address/AS, with "-" behind
// those whose call is awaited.
func (r *run) peers() string {
	var out []string
	for _, p := range r.world.Speaker.Peers {
		s := fmt.Sprintf("%s@%s/%d", p.Name, p.Addr, p.ASN)
		if p.Passive {
			s += "-"
		}
		out = append(out, s)
	}
	return strings.Join(out, " ")
}

func TestNeighbours(t *testing.T) {
	me, n1, n9 := node("me", "rack=a", "172.16.0.5"), node("n1", "rack=a", "172.16.0.1"), node("n9", "rack=b", "172.16.0.9")
	rackA, rackB := selector.Equals("rack", "a"), selector.Equals("rack", "b")
	for name, c := range map[string]struct {
		told evs
		want string
	}{
		"nodes of one AS form a mesh, in which the higher address waits": {
			evs{bgpConfig(true), me, n1, n9},
			"nodenetwork/n1@172.16.0.1/64512- nodenetwork/n9@172.16.0.9/64512",
		},
		"addresses are compared as numbers, not as texts": {
			evs{bgpConfig(true), node("me", "", "172.16.0.10"), n9},
			"nodenetwork/n9@172.16.0.9/64512-",
		},
		"nodes of another AS are not in the mesh": {
			evs{bgpConfig(true), me, n1, n9, network("n9", 65009)},
			"nodenetwork/n1@172.16.0.1/64512-",
		},
		"a node with an AS of its own meshes with its like": {
			evs{bgpConfig(true), me, n1, n9, network("me", 65009), network("n9", 65009), network("n1", 0)},
			"nodenetwork/n9@172.16.0.9/65009",
		},
		"without a mesh only named neighbours remain": {
			evs{bgpConfig(false), me, n1, peer("tor", rackA, "172.16.0.254", 65000)},
			"bgppeer/tor@172.16.0.254/65000",
		},
		"a neighbour is for the nodes that its selector selects": {
			evs{bgpConfig(false), me, peer("a", rackA, "172.16.0.254", 1), peer("b", rackB, "172.16.0.253", 2), peer("all", nil, "172.16.0.252", 3)},
			"bgppeer/all@172.16.0.252/3 bgppeer/a@172.16.0.254/1",
		},
		"of two neighbours with one address the first name counts": {
			evs{bgpConfig(false), me, peer("y", nil, "172.16.0.254", 2), peer("x", nil, "172.16.0.254", 1), peer("z", nil, "172.16.0.254", 3)},
			"bgppeer/x@172.16.0.254/1",
		},
		"a named neighbour replaces the mesh's session with the same address": {
			evs{bgpConfig(true), me, n1, peer("x", nil, "172.16.0.1", 64512)},
			"bgppeer/x@172.16.0.1/64512",
		},
		"a node is not its own neighbour": {
			evs{bgpConfig(true), me, n1, peer("rr", nil, "172.16.0.5", 64512)},
			"nodenetwork/n1@172.16.0.1/64512-",
		},
		"a neighbour of a family that the node does not have is left out": {
			evs{bgpConfig(false), me, peer("six", nil, "fd00::1", 65000)},
			"",
		},
		"two families are two sessions": {
			evs{bgpConfig(true), node("me", "", "172.16.0.5", "fd00::5"), node("n1", "", "fd00::1", "172.16.0.1")},
			"nodenetwork/n1@172.16.0.1/64512- nodenetwork/n1@fd00::1/64512-",
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := ready(t, c.told...)
			if got := r.peers(); got != c.want {
				t.Errorf("neighbours are %q, want %q", got, c.want)
			}
		})
	}
}

func TestASessionComesFromTheNodesAddressOfItsFamily(t *testing.T) {
	r := ready(t, bgpConfig(true), node("me", "", "172.16.0.5", "fd00::5", "172.16.0.6"), node("n1", "", "fd00::1"),
		peer("tor", nil, "172.16.0.254", 65000))
	for _, p := range r.world.Speaker.Peers {
		if want := map[bool]string{true: "172.16.0.5", false: "fd00::5"}[p.Addr.Is4()]; p.LocalAddr.String() != want {
			t.Errorf("session with %s comes from %s, want %s", p.Addr, p.LocalAddr, want)
		}
	}
	tor, mesh := r.world.Speaker.Peers[0], r.world.Speaker.Peers[1]
	if tor.Advertise != bgp.Hosts || tor.Hold.String() != "9s" || tor.Keepalive.String() != "3s" {
		t.Errorf("named neighbour is %+v", tor)
	}
	if mesh.Advertise != bgp.Blocks || mesh.Hold != bgp.MeshHold || mesh.Keepalive != bgp.MeshKeepalive {
		t.Errorf("neighbour of the mesh is %+v", mesh)
	}
}

func TestTheSpeakerIsSilentUntilNodeAndConfigurationAreKnown(t *testing.T) {
	for name, told := range map[string]evs{
		"no configuration": {node("me", "", "172.16.0.5")},
		"no node":          {bgpConfig(true), node("n1", "", "172.16.0.1")},
		"node gone":        {bgpConfig(true), node("me", "", "172.16.0.5"), gone(node("me", ""))},
	} {
		t.Run(name, func(t *testing.T) {
			if r := ready(t, told...); !r.world.Speaker.Equal(bgp.Config{}) {
				t.Errorf("speaker is %+v", r.world.Speaker)
			}
		})
	}
	r := ready(t, bgpConfig(true), node("me", "", "172.16.0.5"))
	r.tell(gone(event.Event{Key: event.Key{Kind: event.NodeKind, Name: "me"}}))
	if !r.world.Speaker.Equal(bgp.Config{}) {
		t.Errorf("speaker of a node that is gone is %+v", r.world.Speaker)
	}
}

func TestTheRouterIDIsAnIPv4AddressOrMadeOfTheName(t *testing.T) {
	r := ready(t, bgpConfig(true), node("me", "", "fd00::5", "172.16.0.5"))
	if id := r.world.Speaker.RouterID.String(); id != "172.16.0.5" {
		t.Errorf("router id is %s", id)
	}
	seen := map[netip.Addr]string{}
	for i := range 200 {
		name := fmt.Sprint("node-", i)
		e := calc.New(calc.Config{Node: name})
		e.Synced(event.API)
		e.Put(bgpConfig(true))
		e.Put(node(name, "", "fd00::5"))
		id := e.Flush().Speaker.RouterID
		if first := id.As4()[0]; first == 0 || first > 126 || seen[id] != "" {
			t.Errorf("router id of %s is %s, which %q has", name, id, seen[id])
		}
		seen[id] = name
		seen[id] = name
	}
}
