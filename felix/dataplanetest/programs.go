package dataplanetest

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// Programs is Differential for compiled policy that was drawn as such: with
// criteria, lists and programs that nobody knows as no object makes them.
func Programs(t *testing.T, b Backend) {
	t.Helper()
	oneCPU(t)
	j := newJudge(t, b)
	j.judge(wantedOfPrograms, func(seed uint64) trial {
		g := drawPrograms(seed)
		d := g.delta(j.open())
		return trial{cluster: g.cluster, node: lawOf(g.world), shots: g.shots(j.world), tell: func() {
			if err := j.plane.want(t.Context(), d); err != nil {
				t.Fatalf("-seed=%d: %v\n%s", seed, err, &g.text)
			}
		}}
	})
}

// programs draws rule sets that talk about the addresses, ports and messages that
// the packets have.
type programs struct {
	*cluster // of which only the dice are used
	world    desired.Delta
}

const (
	programsPerDirection = 12
	setsPerKind          = 3 // named by the first letter of the kind
)

func drawPrograms(seed uint64) *programs {
	g := &programs{cluster: &cluster{dice: dice{rand.New(rand.NewPCG(seed, 2))}, seed: seed}}
	g.settings = desired.DefaultSettings()
	g.world.Sets = map[ir.SetID]*desired.SetChange{}
	for i := range setsPerKind {
		var addrs, nets, services []ir.Member
		for range g.IntN(6) {
			addrs = append(addrs, single(g.addr()))
		}
		for _, n := range g.prefixes(4) {
			nets = append(nets, ir.Member{Prefix: n})
		}
		for range g.IntN(200) {
			m := single(g.addr())
			m.Protocol, m.Port = pick(g.dice, policy.TCP, policy.UDP, policy.SCTP), g.number()
			services = append(services, m)
		}
		g.set(setName("a", i), ir.Addrs, addrs)
		g.set(setName("n", i), ir.Nets, nets)
		g.set(setName("p", i), ir.AddrPorts, services)
	}
	return g
}

func (g *programs) set(id ir.SetID, kind ir.SetKind, members []ir.Member) {
	c := &desired.SetChange{Kind: kind, Whole: true, Add: map[ir.Member]struct{}{}}
	for _, m := range members {
		c.Add[m] = struct{}{}
	}
	g.world.Sets[id] = c
}

func setName(kind string, i int) ir.SetID { return ir.SetID(fmt.Sprint(kind, i)) }

func single(a netip.Addr) ir.Member { return ir.Member{Prefix: netip.PrefixFrom(a, a.BitLen())} }

func (g *programs) addr() netip.Addr {
	return pick(g.dice, addrsOf(pick(g.dice, "a", "b", "c", "host", "out0", "rem0", "out1"))...)
}

// number returns one of the ports that packets have, or another.
func (g *programs) number() uint16 {
	return pick(g.dice, 80, 80, 81, 443, 22, 53, 8080, 6443, uint16(1000+3*g.IntN(40)))
}

// prefixes returns up to so many, mostly narrow ones; long lists are of one family.
func (g *programs) prefixes(upTo int) []netip.Prefix {
	var out []netip.Prefix
	is4 := g.one(2)
	for range g.IntN(upTo + 1) {
		a := g.addr()
		for upTo > 4 && a.Is4() != is4 {
			a = g.addr()
		}
		bits := a.BitLen() - g.IntN(2)
		if g.one(16) {
			bits = pick(g.dice, a.BitLen()-8, a.BitLen()/2, 8, 0)
		}
		p, _ := a.Prefix(bits)
		out = append(out, p)
	}
	return out
}

// seldom returns n one time in so many, else 0.
func (g *programs) seldom(times, n int) int {
	if g.one(times) {
		return n
	}
	return 0
}

func (g *programs) sets(times int, kinds ...string) []ir.SetID {
	var out []ir.SetID
	for range g.seldom(times, 1+g.IntN(2)) {
		out = append(out, setName(pick(g.dice, kinds...), g.IntN(setsPerKind)))
	}
	return out
}

func (g *programs) drawRule() ir.Rule {
	r := ir.Rule{
		Action:  pick(g.dice, policy.Allow, policy.Allow, policy.Allow, policy.Deny, policy.Pass, policy.Log),
		SrcNets: g.prefixes(g.seldom(4, 4)), DstNets: g.prefixes(g.seldom(4, 4)),
		NotSrcNets: g.prefixes(g.seldom(4, 3)), NotDstNets: g.prefixes(g.seldom(4, 3)),
		SrcSets: g.sets(6, "a", "n"), DstSets: g.sets(6, "a", "n"),
		NotSrcSets: g.sets(6, "a", "n"), NotDstSets: g.sets(6, "a", "n"),
		SrcPortSets: g.sets(12, "p"), DstPortSets: g.sets(8, "p"),
		NotSrcPortSets: g.sets(8, "p"), NotDstPortSets: g.sets(8, "p"),
	}
	if g.one(6) {
		r.Family = pick(g.dice, ir.IPv4, ir.IPv6)
	}
	if g.traffic(&r); g.one(6) { // long lists, too many to multiply
		r.SrcNets, r.DstNets = g.prefixes(8), g.prefixes(8)
	}
	return r
}

func (g *programs) protocol() policy.Protocol {
	return pick(g.dice, policy.TCP, policy.UDP, policy.SCTP, policy.ICMP, policy.ICMPv6)
}

// message returns one that begins a connection.
func (g *programs) message(p policy.Protocol) policy.Message {
	m := policy.Message{Compare: policy.MessagePart(1 + g.IntN(2)), Type: echoRequest6, Code: uint8(g.IntN(2))}
	if p == policy.ICMP {
		m.Type = pick(g.dice, uint8(echoRequest), timestampRequest)
	}
	return m
}

// traffic draws the criteria of the protocol and what depends on it.
func (g *programs) traffic(r *ir.Rule) {
	switch g.IntN(4) {
	case 0, 1:
		r.Protocol = g.protocol()
	case 2:
		for range g.seldom(2, 1+g.IntN(3)) {
			if p := g.protocol(); !slices.Contains(r.NotProtocols, p) {
				r.NotProtocols = append(r.NotProtocols, p)
			}
		}
	}
	switch {
	case r.Protocol.HasMessages():
		if g.one(2) {
			r.Message = g.message(r.Protocol)
		}
		for range g.seldom(3, 1+g.IntN(2)) {
			r.NotMessages = append(r.NotMessages, g.message(r.Protocol))
		}
	case r.Protocol.HasPorts() || g.one(8):
		for range g.seldom(2, g.IntN(40)) {
			p := g.number()
			r.DstPorts = append(r.DstPorts, ir.PortRange{First: p, Last: p + uint16(g.IntN(4))})
		}
		for range g.seldom(4, g.IntN(20)) {
			p := uint16(firstSrc + g.IntN(65000-firstSrc))
			r.SrcPorts = append(r.SrcPorts, ir.PortRange{First: p, Last: p + uint16(g.IntN(500))})
		}
	}
}

func (g *programs) tiers(d policy.Direction, ends ...policy.Action) []ir.Tier {
	var tiers []ir.Tier
	for range g.IntN(4) {
		t := ir.Tier{Name: fmt.Sprint("t", len(tiers)), End: pick(g.dice, ends...)}
		for range 1 + g.IntN(3) {
			id := programName(g.IntN(programsPerDirection), d)
			if g.world.Programs[id] == nil && !g.one(20) { // else it stays unknown
				p := &ir.Program{ID: id}
				for i := range g.IntN(5) {
					r := g.drawRule()
					r.Origin = i
					p.Rules = append(p.Rules, r)
				}
				g.world.Programs[id] = p
			}
			t.Programs = append(t.Programs, id)
		}
		tiers = append(tiers, t)
	}
	return tiers
}

func programName(i int, d policy.Direction) ir.ProgramID {
	return ir.ProgramID{Policy: policy.Key{Kind: policy.GlobalNetworkPolicy, Name: fmt.Sprint("p", i)}, Direction: d}
}

// delta makes the chains of all pods and, now and then, of a host endpoint, and
// forgets the programs of earlier rule sets.
func (g *programs) delta(d desired.Delta) desired.Delta {
	g.world.Endpoints, g.world.Complete, g.world.Settings = d.Endpoints, true, &g.settings
	g.world.Programs = map[ir.ProgramID]*ir.Program{}
	for i := range programsPerDirection {
		for _, dir := range policy.Directions {
			g.world.Programs[programName(i, dir)] = nil
		}
	}
	chain := func(dir policy.Direction, by policy.Action, ends ...policy.Action) ir.Chain {
		c := ir.Chain{Default: by, Tiers: g.tiers(dir, ends...)}
		if g.one(4) { // staged policies decide nothing
			c.Pending = g.tiers(dir, ends...)
		}
		return c
	}
	both := func(by policy.Action, ends ...policy.Action) desired.Chains {
		return desired.Chains{Ingress: chain(policy.Ingress, by, ends...), Egress: chain(policy.Egress, by, ends...)}
	}
	for _, pod := range pods {
		ep := d.Endpoints[desired.HostInterface("test", pod)]
		ep.Ingress = chain(policy.Ingress, policy.Action(g.IntN(2)), policy.Deny, policy.Pass, policy.Pass)
		ep.Egress = chain(policy.Egress, policy.Action(g.IntN(2)), policy.Deny, policy.Pass, policy.Pass)
	}
	g.world.HostEndpoints = map[string]*desired.HostEndpoint{"eth0": nil, desired.AnyInterface: nil}
	for _, iface := range []string{"eth0", desired.AnyInterface} {
		if g.one(3) {
			h := &desired.HostEndpoint{
				Name: "h", Interface: iface, Normal: both(policy.Deny, policy.Deny, policy.Pass), Forward: both(policy.Allow, policy.Deny, policy.Pass),
				PreDNAT: both(policy.Allow, policy.Pass), Untracked: both(policy.Allow, policy.Pass),
			}
			h.PreDNAT.Egress = ir.Chain{Default: policy.Allow}
			g.world.HostEndpoints[iface] = h
		}
	}
	g.write()
	return g.world
}

// write puts everything into words.
func (g *programs) write() {
	for iface, ep := range g.world.Endpoints {
		fmt.Fprintf(&g.text, "pod %s: ingress %+v\n\tegress %+v\n", iface, ep.Ingress, ep.Egress)
	}
	for iface, h := range g.world.HostEndpoints {
		if h != nil {
			fmt.Fprintf(&g.text, "host %s: %+v\n", iface, *h)
		}
	}
	for id, p := range g.world.Programs {
		if p == nil {
			continue
		}
		fmt.Fprintf(&g.text, "%s %s\n", id.Policy, id.Direction)
		for i := range p.Rules {
			fmt.Fprintf(&g.text, "\t%s\n", &p.Rules[i])
		}
	}
	for id, s := range g.world.Sets {
		fmt.Fprintf(&g.text, "set %s: %v\n", id, slices.Collect(maps.Keys(s.Add)))
	}
}
