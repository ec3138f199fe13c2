package iptables

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/eval"
	"github.com/koratnet/korat/policy/ir"
)

// shotsPerWay is how many packets of a case go every way.
const shotsPerWay = 6

// generator makes random rule sets that talk about the addresses, ports and
// messages that the packets have.
type generator struct {
	*rand.Rand
	programs map[ir.ProgramID]*ir.Program
	sets     sets
	// lastSrc is the source port before those of the case. They are another range
	// in every case, in which nothing else depends on more than the seed.
	lastSrc uint16
}

// Three sets of each kind, by their first letter.
const setsPerKind = 3

func newGenerator(seed uint64, lastSrc uint16) *generator {
	g := &generator{rand.New(rand.NewPCG(seed, 1)), map[ir.ProgramID]*ir.Program{}, sets{}, max(lastSrc, firstSrc-1)}
	for i := range setsPerKind {
		var addrs, nets, services []ir.Member
		for range g.IntN(6) {
			addrs = append(addrs, one(g.addr()))
		}
		for _, n := range g.nets(4) {
			nets = append(nets, ir.Member{Prefix: n})
		}
		for range g.IntN(400) {
			m := one(g.addr())
			m.Protocol, m.Port = g.portProtocol(), g.port()
			if g.IntN(3) == 0 {
				m.Port = g.srcPort()
			}
			services = append(services, m)
		}
		g.sets[setID("a", i)] = setOf(ir.Addrs, addrs...)
		g.sets[setID("n", i)] = setOf(ir.Nets, nets...)
		g.sets[setID("p", i)] = setOf(ir.AddrPorts, services...)
	}
	return g
}

func setID(kind string, i int) ir.SetID { return ir.SetID(fmt.Sprint(kind, i)) }

var universe = []string{
	"10.1.0.2", "10.1.0.3", "192.168.7.1", "192.168.7.9", "10.9.9.9",
	"fd01::2", "fd01::3", "fd07::1", "fd07::9", "fd09::9",
}

func (g *generator) addr() netip.Addr { return netip.MustParseAddr(universe[g.IntN(len(universe))]) }

// port returns one of few ports that are not neighbours, so that lists of them stay long.
func (g *generator) port() uint16 { return 1000 + 3*uint16(g.IntN(40)) }

// srcPort returns one of the source ports that the case's packets will have.
func (g *generator) srcPort() uint16 { return g.lastSrc + 1 + uint16(g.IntN(shotsPerWay*len(ways))) }

func (g *generator) portProtocol() policy.Protocol {
	return []policy.Protocol{policy.TCP, policy.UDP, policy.SCTP}[g.IntN(3)]
}

func (g *generator) protocol(is6 bool) policy.Protocol {
	switch p := g.IntN(4); {
	case p > 0:
		return g.portProtocol()
	case is6:
		return policy.ICMPv6
	}
	return policy.ICMP
}

// message returns one that begins a connection.
func (g *generator) message(p policy.Protocol) policy.Message {
	m := policy.Message{Compare: policy.MessagePart(1 + g.IntN(2)), Type: echoRequest6, Code: uint8(g.IntN(2))}
	if p == policy.ICMP {
		m.Type = []uint8{echoRequest, timestampRequest}[g.IntN(2)]
	}
	return m
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

// seldom returns n one time in so many, else 0.
func (g *generator) seldom(times, n int) int {
	if g.IntN(times) == 0 {
		return n
	}
	return 0
}

// setIDs returns names of sets of the kinds, seldom any.
func (g *generator) setIDs(times int, kinds ...string) []ir.SetID {
	var out []ir.SetID
	for range g.seldom(times, 1+g.IntN(2)) {
		out = append(out, setID(kinds[g.IntN(len(kinds))], g.IntN(setsPerKind)))
	}
	return out
}

func (g *generator) rule() ir.Rule {
	r := ir.Rule{
		Action:  []policy.Action{policy.Allow, policy.Allow, policy.Allow, policy.Deny, policy.Pass, policy.Log}[g.IntN(6)],
		SrcNets: g.nets(g.seldom(4, 4)), DstNets: g.nets(g.seldom(4, 4)),
		NotSrcNets: g.nets(g.seldom(4, 3)), NotDstNets: g.nets(g.seldom(4, 3)),
		SrcSets: g.setIDs(6, "a", "n"), DstSets: g.setIDs(6, "a", "n"),
		NotSrcSets: g.setIDs(6, "a", "n"), NotDstSets: g.setIDs(6, "a", "n"),
		SrcPortSets: g.setIDs(8, "p"), DstPortSets: g.setIDs(8, "p"),
		NotSrcPortSets: g.setIDs(8, "p"), NotDstPortSets: g.setIDs(8, "p"),
	}
	if g.IntN(6) == 0 {
		r.Family = []ir.Family{ir.IPv4, ir.IPv6}[g.IntN(2)]
	}
	g.traffic(&r)
	if g.IntN(6) == 0 { // long lists, too many to multiply
		r.SrcNets, r.DstNets = g.nets(8), g.nets(8)
	}
	return r
}

// traffic draws the criteria of the protocol and what depends on it.
func (g *generator) traffic(r *ir.Rule) {
	switch g.IntN(4) {
	case 0, 1:
		r.Protocol = g.protocol(g.IntN(2) == 0)
	case 2:
		for range g.seldom(2, 1+g.IntN(3)) {
			if p := g.protocol(g.IntN(2) == 0); !slices.Contains(r.NotProtocols, p) {
				r.NotProtocols = append(r.NotProtocols, p)
			}
		}
	}
	switch {
	case r.Protocol.HasMessages():
		if g.IntN(2) == 0 {
			r.Message = g.message(r.Protocol)
		}
		for range g.seldom(3, 1+g.IntN(2)) {
			r.NotMessages = append(r.NotMessages, g.message(r.Protocol))
		}
	case r.Protocol.HasPorts() || g.IntN(8) == 0:
		for range g.seldom(2, g.IntN(40)) {
			p := g.port()
			r.DstPorts = append(r.DstPorts, ir.PortRange{First: p, Last: p + uint16(g.IntN(4))})
		}
		for range g.seldom(4, g.IntN(20)) {
			p := g.srcPort()
			r.SrcPorts = append(r.SrcPorts, ir.PortRange{First: p, Last: p + uint16(g.IntN(3))})
		}
	}
}

func (g *generator) chain(d policy.Direction) ir.Chain {
	c := ir.Chain{Default: policy.Action(g.IntN(2)), Tiers: g.tiers(d)}
	if g.IntN(4) == 0 { // staged policies decide nothing
		c.Pending = g.tiers(d)
	}
	return c
}

func (g *generator) tiers(d policy.Direction) []ir.Tier {
	var tiers []ir.Tier
	for range g.IntN(4) {
		t := ir.Tier{Name: "t", End: []policy.Action{policy.Deny, policy.Pass, policy.Pass}[g.IntN(3)]}
		for range 1 + g.IntN(3) {
			id := knp(fmt.Sprint("p", g.IntN(programsPerDirection)), d)
			if _, made := g.programs[id]; !made && g.IntN(20) > 0 { // else it stays unknown
				p := &ir.Program{ID: id}
				for range g.IntN(5) {
					p.Rules = append(p.Rules, g.rule())
				}
				g.programs[id] = p
			}
			t.Programs = append(t.Programs, id)
		}
		tiers = append(tiers, t)
	}
	return tiers
}

const programsPerDirection = 12

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
	for i := range programsPerDirection {
		for _, dir := range policy.Directions {
			id := knp(fmt.Sprint("p", i), dir)
			d.Programs[id] = g.programs[id]
		}
	}
	return d, chains
}
