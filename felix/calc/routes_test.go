package calc_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/event"
)

// route describes the route to a prefix.
func (r *run) route(prefix string) string {
	rt, exists := r.world.Routes[netip.MustParsePrefix(prefix)]
	switch {
	case !exists:
		return "none"
	case rt.Kind == desired.Local:
		return "dev " + rt.Interface
	case rt.Kind == desired.Unreachable:
		return "unreachable"
	case rt.Kind == desired.Closed:
		return "closed"
	}
	return "via " + strings.Trim(fmt.Sprint(rt.NextHops), "[]")
}

func TestRoutes(t *testing.T) {
	v4, ep := pool("10.0.0.0/16"), endpoint("kor1", "a/web", 1, "10.0.0.1")
	routesAre(t, map[string]routeCase{
		"a local pod's address goes out of its veth": {
			[]evs{{ep}}, "10.0.0.1/32", "dev kor1",
		},
		"a local pod wins over what neighbours say, also when they say it later": {
			[]evs{{v4, ep}, {learned("10.0.0.1/32", "172.16.0.9")}}, "10.0.0.1/32", "dev kor1",
		},
		"what neighbours say of an address counts when the local pod went": {
			[]evs{{v4, ep, learned("10.0.0.1/32", "172.16.0.9")}, {gone(ep)}}, "10.0.0.1/32", "via 172.16.0.9",
		},
		"a pod whose object is gone keeps its route until its sandbox goes": {
			[]evs{{ep, pod("a/web", "me", "", "10.0.0.1")}, {gone(pod("a/web", "", ""))}}, "10.0.0.1/32", "dev kor1",
		},
		"an own block is unreachable where no pod is": {
			[]evs{{v4, block("10.0.0.0/26", "me")}}, "10.0.0.0/26", "unreachable",
		},
		"an own block wins over what neighbours say of it": {
			[]evs{{v4, block("10.0.0.0/26", "me"), learned("10.0.0.0/26", "172.16.0.9")}}, "10.0.0.0/26", "unreachable",
		},
		"nobody else speaks for an address inside an own block": {
			[]evs{{v4, learned("10.0.0.7/32", "172.16.0.9")}, {block("10.0.0.0/26", "me")}}, "10.0.0.7/32", "none",
		},
		"a block that went to another node is learned from there": {
			[]evs{
				{v4, block("10.0.0.0/26", "me"), learned("10.0.0.0/26", "172.16.0.9"), learned("10.0.0.7/32", "172.16.0.9")},
				{block("10.0.0.0/26", "other")},
			}, "10.0.0.7/32", "via 172.16.0.9",
		},
		"another node's block has no route of its own": {
			[]evs{{v4, block("10.0.0.0/26", "other")}}, "10.0.0.0/26", "none",
		},
		"an own block of one address is not unreachable": {
			[]evs{{v4, block("10.0.0.1/32", "me")}}, "10.0.0.1/32", "none",
		},
		"an own block of one address belongs to its pod": {
			[]evs{{v4, block("10.0.0.1/32", "me"), ep}}, "10.0.0.1/32", "dev kor1",
		},
		"a prefix around an own block may be learned": {
			[]evs{{v4, block("10.0.0.0/26", "me"), learned("10.0.0.0/20", "172.16.0.9")}}, "10.0.0.0/20", "via 172.16.0.9",
		},
		"equal paths become one route with sorted next hops, each once": {
			[]evs{{v4, learned("10.0.9.0/26", "172.16.0.9", "172.16.0.10", "172.16.0.9")}}, "10.0.9.0/26", "via 172.16.0.9 172.16.0.10",
		},
		"a path without next hops is withdrawn": {
			[]evs{{v4, learned("10.0.9.0/26", "172.16.0.9")}, {learned("10.0.9.0/26")}}, "10.0.9.0/26", "none",
		},
		"a default route is never learned": {
			[]evs{{v4, learned("0.0.0.0/0", "172.16.0.9")}}, "0.0.0.0/0", "none",
		},
		"a prefix outside all pools is not learned": {
			[]evs{{v4, learned("192.0.2.0/24", "172.16.0.9")}}, "192.0.2.0/24", "none",
		},
		"a prefix wider than its pool is not learned": {
			[]evs{{v4, learned("10.0.0.0/8", "172.16.0.9")}}, "10.0.0.0/8", "none",
		},
		"a pool that comes later lets in what was heard before": {
			[]evs{{learned("10.0.9.0/26", "172.16.0.9")}, {v4}}, "10.0.9.0/26", "via 172.16.0.9",
		},
		"a pool that goes takes its learned routes along": {
			[]evs{{v4, learned("10.0.9.0/26", "172.16.0.9")}, {gone(v4)}}, "10.0.9.0/26", "none",
		},
		"the node itself is not a next hop": {
			[]evs{{v4, node("me", "", "172.16.0.1"), learned("10.0.9.0/26", "172.16.0.1", "172.16.0.9")}}, "10.0.9.0/26", "via 172.16.0.9",
		},
		"of two endpoints with one address the newer has it": {
			[]evs{{endpoint("kor1", "a/web", 7, "10.0.0.1"), endpoint("kor2", "a/db", 8, "10.0.0.1")}}, "10.0.0.1/32", "dev kor2",
		},
		"the older of two endpoints has the address again when the newer goes": {
			[]evs{
				{endpoint("kor1", "a/web", 7, "10.0.0.1"), endpoint("kor2", "a/db", 8, "10.0.0.1")},
				{gone(endpoint("kor2", "a/db", 8))},
			}, "10.0.0.1/32", "dev kor1",
		},
		"IPv6 goes the same way": {
			[]evs{{
				pool("fd00:10::/64"), block("fd00:10::/122", "me"), endpoint("kor1", "a/web", 1, "fd00:10::1"),
				learned("fd00:10::1:0/122", "fe80::1"),
			}}, "fd00:10::1:0/122", "via fe80::1",
		},
	})
}

// routeCase is what a node is told, and the route to a prefix that follows.
type routeCase struct {
	steps        []evs
	prefix, want string
}

func routesAre(t *testing.T, cases map[string]routeCase) {
	t.Helper()
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r := ready(t)
			for _, step := range c.steps {
				r.tell(step...)
			}
			if got := r.route(c.prefix); got != c.want {
				t.Errorf("route to %s is %q, want %q", c.prefix, got, c.want)
			}
		})
	}
}

func TestOnlyTheHolderOfAnAddressMaySendFromIt(t *testing.T) {
	r := ready(t, endpoint("kor1", "a/web", 7, "10.0.0.1", "fd00::1"), endpoint("kor2", "a/db", 8, "10.0.0.1"))
	if got := r.world.Endpoints["kor1"].Addrs; fmt.Sprint(got) != "[fd00::1]" {
		t.Errorf("the older endpoint has %v", got)
	}
	if got := r.world.Endpoints["kor2"].Addrs; fmt.Sprint(got) != "[10.0.0.1]" {
		t.Errorf("the newer endpoint has %v", got)
	}
}

func TestPathsAreOwnBlocksAndLocalPods(t *testing.T) {
	ep := endpoint("kor1", "a/web", 1, "10.0.0.1")
	r := ready(t, block("10.0.0.0/26", "me"), block("10.0.0.64/26", "other"), block("10.0.0.1/32", "me"), ep,
		pool("10.0.0.0/16"), learned("10.0.9.0/26", "172.16.0.9"))
	text := func(k desired.PathKey) string {
		return fmt.Sprint(k.Prefix, map[bgp.Advertise]string{bgp.Blocks: " block", bgp.Hosts: " host"}[k.Kind])
	}
	if got := texts(r.world.Paths, text); got != "10.0.0.0/26 block 10.0.0.1/32 block 10.0.0.1/32 host" {
		t.Errorf("paths are %s", got)
	}
	r.tell(gone(ep), gone(block("10.0.0.1/32", "")))
	if got := texts(r.world.Paths, text); got != "10.0.0.0/26 block" {
		t.Errorf("paths are %s", got)
	}
}

func TestPoolsAreToldWholeAndSorted(t *testing.T) {
	r := ready(t, pool("10.9.0.0/16"), pool("10.0.0.0/16"), pool("fd00::/64"))
	if got := fmt.Sprint(r.world.Pools); got != "[10.0.0.0/16 10.9.0.0/16 fd00::/64]" {
		t.Errorf("pools are %s", got)
	}
	r.put(pool("10.0.0.0/16"), block("10.0.0.0/26", "me"))
	if d := r.engine.Flush(); d.Pools != nil {
		t.Errorf("unchanged pools are told again: %v", *d.Pools)
	}
}

func TestNothingIsSaidBeforeTheAPIServerHasToldAll(t *testing.T) {
	r := newRun(t)
	r.put(endpoint("kor1", "a/web", 1, "10.0.0.1"), block("10.0.0.0/26", "me"), node("me", "", "172.16.0.1"), bgpConfig(true))
	r.synced(event.CNI | event.Neighbours)
	if d := r.engine.Flush(); !d.Empty() {
		t.Errorf("half informed, the engine says %+v", d)
	}
	r.synced(event.API)
	if d := r.engine.Flush(); len(d.Endpoints) != 1 || len(d.Routes) != 2 || d.Speaker == nil || !d.Complete || !d.Learned {
		t.Errorf("fully informed, the engine says %+v", d)
	}
}

func TestCompleteNeedsTheJournalAndLearnedTheNeighbours(t *testing.T) {
	for name, c := range map[string]struct {
		heard             []event.Source
		complete, learned []bool
	}{
		"one after another": {
			[]event.Source{event.API, event.CNI, event.Neighbours},
			[]bool{false, true, false},
			[]bool{false, false, true},
		},
		"neighbours before the journal": {
			[]event.Source{event.API, event.Neighbours, event.CNI},
			[]bool{false, false, true},
			[]bool{false, false, true},
		},
		"the API server last": {
			[]event.Source{event.Neighbours, event.CNI, event.API, event.API},
			[]bool{false, false, true, false},
			[]bool{false, false, true, false},
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRun(t)
			for i, src := range c.heard {
				r.engine.Synced(src)
				if d := r.engine.Flush(); d.Complete != c.complete[i] || d.Learned != c.learned[i] {
					t.Errorf("after %d sources: complete %v, learned %v", i+1, d.Complete, d.Learned)
				}
			}
		})
	}
}
