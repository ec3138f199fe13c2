package iptables

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/eval"
	"github.com/koratnet/korat/policy/ir"
)

var (
	cases = flag.Int("cases", 60, "number of random cases per flavour and test")
	seed  = flag.Uint64("seed", 0, "replay one rule set of the differential test")
)

// TestKernelAgreesWithEval loads random rule sets and sends real packets all
// ways: what arrives must be what policy/eval lets through.
func TestKernelAgreesWithEval(t *testing.T) {
	for _, flavour := range []Flavour{NFT, Legacy} {
		t.Run(string(flavour), func(t *testing.T) {
			oneCPU(t)
			w := newWorld(t, flavour)
			w.apply(w.open())
			w.openMarkers()
			w.compareMany("rule sets", w.compareRules)
		})
	}
}

// compareMany judges many random cases, or the one that -seed names, and makes
// sure that they say something.
func (w *world) compareMany(what string, compare func(seed uint64) (passed, all int)) {
	w.t.Helper()
	if *seed != 0 {
		compare(*seed)
		return
	}
	passed, all := 0, 0
	for range *cases {
		p, n := compare(rand.Uint64())
		passed, all = passed+p, all+n
	}
	w.t.Logf("%d %s, %d packets, %d of them let through", *cases, what, all, passed)
	if passed < all/10 || passed > all*9/10 {
		w.t.Error("too few or too many were let through to say much")
	}
}

// compareRules judges one random rule set with packets and returns how many were
// expected to pass, of how many.
func (w *world) compareRules(seed uint64) (passed, all int) {
	w.t.Helper()
	g := newGenerator(seed)
	w.loadSets(g.sets)
	d, chains := g.delta(w)
	w.apply(d)

	ev := &eval.Evaluator{
		Program: func(id ir.ProgramID) *ir.Program { return g.programs[id] },
		InSet:   func(id ir.SetID, a netip.Addr) bool { return g.sets[id][a] },
	}
	var shots []shot
	var want []bool
	for _, way := range ways {
		for range 6 {
			is6 := g.IntN(2) == 0
			s := shot{way[0], way[1], w.fresh(way[0], way[1], is6, g.protocol(is6), g.port())}
			path := eval.Path{From: chains[s.from], To: chains[s.to], FromOwnHost: s.from == "host"}
			v := ev.Path(path, eval.Packet{Src: s.packet.from, Dst: s.packet.to, Protocol: s.proto, DstPort: s.dst})
			shots, want = append(shots, s), append(want, v.Action == policy.Allow)
		}
	}
	for i, arrived := range w.fire(shots) {
		if want[i] {
			passed++
		}
		if arrived != want[i] {
			text, _ := json.MarshalIndent(chains, "", " ")
			w.t.Fatalf("-seed=%d: %s: arrived %v, eval says %v\nchains %s\nprograms %+v\nsets %v", seed, shots[i], arrived, want[i], text, g.programs, g.sets)
		}
	}
	return passed, len(shots)
}

// loadSets makes the kernel's sets, each in both families.
func (w *world) loadSets(sets map[ir.SetID]map[netip.Addr]bool) {
	w.t.Helper()
	var b strings.Builder
	for id, members := range sets {
		for _, f := range families {
			family := "inet"
			if f == ir.IPv6 {
				family = "inet6"
			}
			fmt.Fprintf(&b, "create %s hash:ip family %s -exist\nflush %[1]s\n", setName(id, f), family)
			for a := range members {
				if f.Is(a) {
					fmt.Fprintf(&b, "add %s %s\n", setName(id, f), a)
				}
			}
		}
	}
	w.host.Run("sh", "-c", "ipset restore <<'END'\n"+b.String()+"END")
}

// generator makes random rule sets that talk about the addresses and ports that
// the packets have.
type generator struct {
	*rand.Rand
	programs map[ir.ProgramID]*ir.Program
	sets     map[ir.SetID]map[netip.Addr]bool
}

func newGenerator(seed uint64) *generator {
	g := &generator{rand.New(rand.NewPCG(seed, 1)), map[ir.ProgramID]*ir.Program{}, map[ir.SetID]map[netip.Addr]bool{}}
	for i := range 4 {
		members := map[netip.Addr]bool{}
		for range g.IntN(6) {
			members[g.addr()] = true
		}
		g.sets[ir.SetID(fmt.Sprint("s", i))] = members
	}
	return g
}

var universe = []string{
	"10.1.0.2", "10.1.0.3", "192.168.7.1", "192.168.7.9", "10.9.9.9",
	"fd01::2", "fd01::3", "fd07::1", "fd07::9", "fd09::9",
}

func (g *generator) addr() netip.Addr { return netip.MustParseAddr(universe[g.IntN(len(universe))]) }

// port returns one of few ports that are not neighbours, so that lists of them stay long.
func (g *generator) port() uint16 { return 1000 + 3*uint16(g.IntN(40)) }

func (g *generator) protocol(is6 bool) policy.Protocol {
	p := []policy.Protocol{policy.TCP, policy.UDP, policy.SCTP, policy.ICMP}[g.IntN(4)]
	if p == policy.ICMP && is6 {
		return policy.ICMPv6
	}
	return p
}

// nets returns up to so many prefixes, mostly narrow ones; long lists are of one family.
func (g *generator) nets(upTo int) []netip.Prefix {
	var out []netip.Prefix
	is4 := g.IntN(2) == 0
	for range g.IntN(upTo + 1) {
		a := g.addr()
		for upTo > 4 && a.Is4() != is4 {
			a = g.addr()
		}
		bits := a.BitLen() - g.IntN(2)
		if g.IntN(16) == 0 {
			bits = []int{a.BitLen() - 8, a.BitLen() / 2, 8, 0}[g.IntN(4)]
		}
		p, _ := a.Prefix(bits)
		out = append(out, p)
	}
	return out
}

// seldom returns n one time in four, else 0.
func (g *generator) seldom(n int) int {
	if g.IntN(4) == 0 {
		return n
	}
	return 0
}

func (g *generator) setIDs() []ir.SetID {
	var out []ir.SetID
	for range g.seldom(2) {
		out = append(out, ir.SetID(fmt.Sprint("s", g.IntN(4))))
	}
	return out
}

func (g *generator) rule() ir.Rule {
	r := ir.Rule{
		Action:  []policy.Action{policy.Allow, policy.Allow, policy.Deny, policy.Pass}[g.IntN(4)],
		SrcNets: g.nets(g.seldom(4)), DstNets: g.nets(g.seldom(4)),
		NotSrcNets: g.nets(g.seldom(3)), NotDstNets: g.nets(g.seldom(3)),
		SrcSets: g.setIDs(), DstSets: g.setIDs(),
	}
	if g.IntN(6) == 0 {
		r.Family = []ir.Family{ir.IPv4, ir.IPv6}[g.IntN(2)]
	}
	if g.IntN(2) == 0 {
		r.Protocol = []policy.Protocol{policy.TCP, policy.UDP, policy.SCTP, policy.ICMP, policy.ICMPv6}[g.IntN(5)]
	}
	if r.Protocol.HasPorts() || g.IntN(8) == 0 {
		for range g.IntN(30) {
			p := g.port()
			r.DstPorts = append(r.DstPorts, ir.PortRange{First: p, Last: p + uint16(g.IntN(4))})
		}
	}
	if g.IntN(3) == 0 { // long lists, too many to multiply
		r.SrcNets, r.DstNets = g.nets(8), g.nets(8)
	}
	return r
}

func (g *generator) chain(d policy.Direction) ir.Chain {
	c := ir.Chain{Default: policy.Action(g.IntN(2))}
	for range g.IntN(4) {
		t := ir.Tier{Name: "t", End: []policy.Action{policy.Deny, policy.Pass, policy.Pass}[g.IntN(3)]}
		for range 1 + g.IntN(3) {
			id := knp(fmt.Sprint("p", g.IntN(12)), d)
			if _, made := g.programs[id]; !made && g.IntN(20) > 0 { // else it stays unknown
				p := &ir.Program{ID: id}
				for range g.IntN(4) {
					p.Rules = append(p.Rules, g.rule())
				}
				g.programs[id] = p
			}
			t.Programs = append(t.Programs, id)
		}
		c.Tiers = append(c.Tiers, t)
	}
	return c
}

// delta makes both pods' chains, and forgets the programs of earlier rule sets.
func (g *generator) delta(w *world) (desired.Delta, map[string]*eval.Endpoint) {
	d := w.open()
	chains := map[string]*eval.Endpoint{}
	for _, pod := range []string{"a", "b"} {
		e := d.Endpoints[w.sites[pod].iface]
		e.Ingress, e.Egress = g.chain(policy.Ingress), g.chain(policy.Egress)
		chains[pod] = &eval.Endpoint{Ingress: e.Ingress, Egress: e.Egress}
	}
	d.Programs = map[ir.ProgramID]*ir.Program{}
	for i := range 12 {
		for _, dir := range policy.Directions {
			id := knp(fmt.Sprint("p", i), dir)
			d.Programs[id] = g.programs[id]
		}
	}
	return d, chains
}
