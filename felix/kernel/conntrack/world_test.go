package conntrack

import (
	"fmt"
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/desired/desiredtest"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/eval"
	"github.com/koratnet/korat/policy/ir"
)

// The little universe of the property: three interfaces, six addresses, three
// policies, and a set of each kind.
var (
	someIfaces = []string{"kor1", "kor2", "kor3"}
	someAddrs  = []netip.Addr{
		netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.1.3"), netip.MustParseAddr("192.0.2.1"),
		netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2"),
	}
	someNets  = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/64"), netip.MustParsePrefix("0.0.0.0/0")}
	someSets  = map[ir.SetID]ir.SetKind{"addrs": ir.Addrs, "nets": ir.Nets, "ports": ir.AddrPorts}
	someNames = []string{"p", "q", "r"}
)

func program(name string, d policy.Direction) ir.ProgramID {
	return ir.ProgramID{Policy: policy.Key{Kind: policy.NetworkPolicy, Namespace: "shop", Name: name}, Direction: d}
}

func drawMember(t *rapid.T, kind ir.SetKind) ir.Member {
	a := rapid.SampledFrom(someAddrs).Draw(t, "address")
	m := ir.Member{Prefix: netip.PrefixFrom(a, a.BitLen())}
	switch kind {
	case ir.Nets:
		m.Prefix = rapid.SampledFrom(append([]netip.Prefix{m.Prefix}, someNets...)).Draw(t, "net")
	case ir.AddrPorts:
		m.Protocol, m.Port = policy.TCP, uint16(rapid.IntRange(80, 81).Draw(t, "port"))
	}
	return m
}

func drawRule(t *rapid.T) ir.Rule {
	r := ir.Rule{Action: rapid.SampledFrom([]policy.Action{policy.Allow, policy.Deny, policy.Pass, policy.Log}).Draw(t, "action")}
	list := func(ids ...ir.SetID) []ir.SetID { return ids }
	switch rapid.IntRange(0, 8).Draw(t, "criterion") {
	case 0:
		r.SrcSets = list("addrs")
	case 1:
		r.DstSets = list("nets")
	case 2:
		r.NotSrcSets = list("nets")
	case 3:
		r.NotDstSets = list("addrs")
	case 4:
		r.Protocol, r.DstPortSets = policy.TCP, list("ports")
	case 5:
		r.Protocol, r.NotDstPortSets = policy.TCP, list("ports")
	case 6:
		r.Protocol, r.DstPorts = policy.TCP, []ir.PortRange{{First: 80, Last: 80}}
	case 8:
		r.Protocol, r.SrcPorts = policy.TCP, []ir.PortRange{{First: 50000, Last: 50000}}
	}
	return r
}

func drawChain(t *rapid.T, d policy.Direction) ir.Chain {
	c := ir.Chain{Default: rapid.SampledFrom([]policy.Action{policy.Allow, policy.Deny}).Draw(t, "default")}
	for i := range rapid.IntRange(0, 2).Draw(t, "tiers") {
		tier := ir.Tier{Name: fmt.Sprint(i), End: rapid.SampledFrom([]policy.Action{policy.Deny, policy.Pass}).Draw(t, "end")}
		for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom(someNames), 0, 2, rapid.ID).Draw(t, "policies") {
			tier.Programs = append(tier.Programs, program(name, d))
		}
		c.Tiers = append(c.Tiers, tier)
	}
	return c
}

// drawDelta draws changes as the engine makes them: a set begins whole, and no two
// endpoints hold an address.
func drawDelta(t *rapid.T, now *desiredtest.World) desired.Delta {
	d := desired.Delta{
		Endpoints: map[string]*desired.Endpoint{}, Programs: map[ir.ProgramID]*ir.Program{}, Sets: map[ir.SetID]*desired.SetChange{},
	}
	if rapid.Bool().Draw(t, "an endpoint") {
		iface := rapid.SampledFrom(someIfaces).Draw(t, "interface")
		d.Endpoints[iface] = nil
		if rapid.IntRange(0, 3).Draw(t, "comes") > 0 {
			d.Endpoints[iface] = drawEndpoint(t, iface, now)
		}
	}
	if rapid.Bool().Draw(t, "a program") {
		id := program(rapid.SampledFrom(someNames).Draw(t, "policy"), rapid.SampledFrom(policy.Directions[:]).Draw(t, "direction"))
		d.Programs[id] = nil
		if rapid.IntRange(0, 4).Draw(t, "comes") > 0 {
			d.Programs[id] = &ir.Program{ID: id, Rules: rapid.SliceOfN(rapid.Custom(drawRule), 0, 3).Draw(t, "rules")}
		}
	}
	if rapid.Bool().Draw(t, "a set") {
		id := rapid.SampledFrom([]ir.SetID{"addrs", "nets", "ports"}).Draw(t, "set")
		d.Sets[id] = drawSet(t, id, now)
	}
	return d
}

func drawEndpoint(t *rapid.T, iface string, now *desiredtest.World) *desired.Endpoint {
	e := &desired.Endpoint{Interface: iface, Ingress: drawChain(t, policy.Ingress), Egress: drawChain(t, policy.Egress)}
	taken := map[netip.Addr]bool{}
	for other, o := range now.Endpoints {
		for _, a := range o.Addrs {
			taken[a] = taken[a] || other != iface
		}
	}
	for _, a := range rapid.SliceOfNDistinct(rapid.SampledFrom(someAddrs), 0, 2, rapid.ID).Draw(t, "addresses") {
		if !taken[a] {
			e.Addrs = append(e.Addrs, a)
		}
	}
	return e
}

func drawSet(t *rapid.T, id ir.SetID, now *desiredtest.World) *desired.SetChange {
	kind := someSets[id]
	c := &desired.SetChange{Kind: kind, Whole: now.Sets[id] == nil || rapid.Bool().Draw(t, "whole")}
	if !c.Whole && rapid.IntRange(0, 5).Draw(t, "goes") == 0 {
		c.Whole, c.Gone = false, true
		return c
	}
	c.Add, c.Del = map[ir.Member]struct{}{}, map[ir.Member]struct{}{}
	for range rapid.IntRange(0, 3).Draw(t, "members") {
		m := drawMember(t, kind)
		if _, in := now.Sets[id][m]; in && !c.Whole {
			c.Del[m] = struct{}{}
		} else {
			c.Add[m] = struct{}{}
		}
	}
	return c
}

// everyEntry lists connections between all addresses of a family.
func everyEntry() (all []entry) {
	for _, src := range someAddrs {
		for _, dst := range someAddrs {
			for _, ports := range [][2]uint16{{50000, 80}, {50001, 80}, {50000, 81}} {
				if src.Is4() == dst.Is4() {
					all = append(all, entry{
						orig:  tuple{src: src, dst: dst, protocol: policy.TCP, srcPort: ports[0], dstPort: ports[1]},
						reply: tuple{src: dst, dst: src, protocol: policy.TCP, srcPort: ports[1], dstPort: ports[0]},
					})
				}
			}
		}
	}
	return all
}

// denied is the second opinion: the same question, asked of what all Deltas
// together say.
func denied(w *desiredtest.World, e *entry) bool {
	has := func(id ir.SetID, is func(ir.Member) bool) bool {
		for m := range w.Sets[id] {
			if is(m) {
				return true
			}
		}
		return false
	}
	asker := eval.Evaluator{
		Program: func(id ir.ProgramID) *ir.Program {
			if p, ok := w.Programs[id]; ok {
				return &p
			}
			return nil
		},
		InSet: func(id ir.SetID, a netip.Addr) bool {
			return has(id, func(m ir.Member) bool { return m.Prefix.Contains(a) })
		},
		InPortSet: func(id ir.SetID, a netip.Addr, p policy.Protocol, port uint16) bool {
			return has(id, func(m ir.Member) bool { return m.Prefix.Addr() == a && m.Protocol == p && m.Port == port })
		},
	}
	var from, to string
	for iface, ep := range w.Endpoints {
		for _, a := range ep.Addrs {
			if a == e.orig.src {
				from = iface
			}
			if a == e.reply.src {
				to = iface
			}
		}
	}
	if from == to {
		return false
	}
	p := eval.Packet{Src: e.orig.src, Dst: e.reply.src, Protocol: policy.TCP, SrcPort: e.orig.srcPort, DstPort: e.reply.srcPort}
	return from != "" && asker.Chain(w.Endpoints[from].Egress, p).Action == policy.Deny ||
		to != "" && asker.Chain(w.Endpoints[to].Ingress, p).Action == policy.Deny
}

// TestEveryConnectionThatIsDeniedNowIsAskedAbout draws histories. What is denied
// must be what policy/eval denies; and whatever was allowed before a change and is
// denied after it has to be in doubt.
func TestEveryConnectionThatIsDeniedNowIsAskedAbout(t *testing.T) {
	entries := everyEntry()
	rapid.Check(t, func(t *rapid.T) {
		w, now := newWorld(), desiredtest.World{}
		was := make([]bool, len(entries))
		for range rapid.IntRange(1, 12).Draw(t, "changes") {
			d := drawDelta(t, &now)
			now.Apply(d)
			w.want(d)
			judge := w.judge(nil)
			for i := range entries {
				e := &entries[i]
				is := judge.denies(e)
				if want := denied(&now, e); is != want {
					t.Fatalf("%v -> %v denied is %t, want %t", e.orig.src, e.orig.dst, is, want)
				}
				if is && !was[i] && !w.concerns(e) {
					t.Fatalf("%v -> %v:%d is denied now and was not asked about", e.orig.src, e.orig.dst, e.orig.dstPort)
				}
				if a := w.addrs(); w.concerns(e) && !inside(a, e.orig.src) && !inside(a, e.reply.src) {
					t.Fatalf("%v -> %v is in doubt, but of none of %v", e.orig.src, e.orig.dst, a)
				}
				was[i] = is
			}
			if rapid.Bool().Draw(t, "asked") {
				w.doubt = newDoubt()
			}
		}
	})
}

func inside(set map[netip.Addr]struct{}, a netip.Addr) bool {
	_, in := set[a]
	return in
}

func TestNobodyIsAskedTwice(t *testing.T) {
	w := newWorld()
	e := &desired.Endpoint{Interface: "kor1", Addrs: someAddrs[:1], Ingress: ir.Chain{Tiers: []ir.Tier{{Programs: []ir.ProgramID{program("p", policy.Ingress)}}}}}
	w.want(desired.Delta{
		Endpoints: map[string]*desired.Endpoint{"kor1": e},
		Programs: map[ir.ProgramID]*ir.Program{
			program("p", policy.Ingress): {Rules: []ir.Rule{{Action: policy.Allow, SrcSets: []ir.SetID{"addrs"}}}},
		},
	})
	w.doubt = newDoubt()
	one := map[ir.Member]struct{}{{Prefix: netip.PrefixFrom(someAddrs[1], 32)}: {}}
	w.want(desired.Delta{Sets: map[ir.SetID]*desired.SetChange{"addrs": {Whole: true, Add: one}, "unused": {Whole: true, Add: one}}})
	if a := w.addrs(); len(a) != 1 || len(w.doubt.endpoints) != 0 || !inside(a, someAddrs[1]) {
		t.Errorf("one member came: in doubt are %v", a)
	}
	w.doubt = newDoubt()
	w.want(desired.Delta{
		Sets:     map[ir.SetID]*desired.SetChange{"addrs": {Whole: true, Add: one}, "unused": {Gone: true}},
		Programs: map[ir.ProgramID]*ir.Program{program("q", policy.Ingress): {}},
	})
	if !w.doubt.empty() {
		t.Errorf("nothing changed for anybody: in doubt are %v", w.addrs())
	}
}

func TestManyChangesAtOnceAreNotRememberedOneByOne(t *testing.T) {
	w := newWorld()
	e := &desired.Endpoint{Interface: "kor1", Addrs: someAddrs[:1], Ingress: ir.Chain{Tiers: []ir.Tier{{Programs: []ir.ProgramID{program("p", policy.Ingress)}}}}}
	many := map[ir.Member]struct{}{}
	for a := netip.MustParseAddr("10.9.0.0"); len(many) <= maxPeers; a = a.Next() {
		many[ir.Member{Prefix: netip.PrefixFrom(a, 32)}] = struct{}{}
	}
	w.want(desired.Delta{
		Endpoints: map[string]*desired.Endpoint{"kor1": e},
		Programs: map[ir.ProgramID]*ir.Program{
			program("p", policy.Ingress): {Rules: []ir.Rule{{Action: policy.Allow, SrcSets: []ir.SetID{"addrs"}}}},
		},
		Sets: map[ir.SetID]*desired.SetChange{"addrs": {Whole: true, Add: many}},
	})
	if len(w.doubt.peers) != 0 || len(w.doubt.endpoints) != 1 {
		t.Errorf("in doubt are %d addresses and %d endpoints, want all endpoints", len(w.doubt.peers), len(w.doubt.endpoints))
	}
}

func TestConnectionsThatAreNeverCut(t *testing.T) {
	w := newWorld()
	deny := ir.Chain{Default: policy.Deny}
	w.want(desired.Delta{Endpoints: map[string]*desired.Endpoint{"kor1": {Interface: "kor1", Addrs: someAddrs[:1], Ingress: deny, Egress: ir.Chain{Default: policy.Allow}}}})
	pod, node := someAddrs[0], someAddrs[3]
	own := map[netip.Addr]struct{}{node: {}}
	for name, c := range map[string]struct {
		e    entry
		want bool
	}{
		"from elsewhere":              {entry{orig: tuple{src: someAddrs[1], dst: pod}, reply: tuple{src: pod}}, true},
		"behind a service":            {entry{orig: tuple{src: someAddrs[1], dst: someAddrs[2]}, reply: tuple{src: pod}}, true},
		"from the node":               {entry{orig: tuple{src: node, dst: pod}, reply: tuple{src: pod}}, false},
		"announced by another":        {entry{orig: tuple{src: someAddrs[1], dst: pod}, reply: tuple{src: pod}, status: statusExpected}, false},
		"to itself, behind a service": {entry{orig: tuple{src: pod, dst: someAddrs[2]}, reply: tuple{src: pod}}, false},
		"of nobody here":              {entry{orig: tuple{src: someAddrs[1], dst: someAddrs[2]}, reply: tuple{src: someAddrs[2]}}, false},
		"opened by the pod":           {entry{orig: tuple{src: pod, dst: someAddrs[2]}, reply: tuple{src: someAddrs[2]}}, false},
	} {
		if got := w.judge(own).denies(&c.e); got != c.want {
			t.Errorf("%s: denied is %t", name, got)
		}
	}
}
