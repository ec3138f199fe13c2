package dataplanetest

import (
	"fmt"
	"slices"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// The ports of a pod that many policies are about: policy i is about firstOfMany+i.
const firstOfMany, manyPolicies = 5000, 60

// many: a pod may be selected by more policies than a chain holds in one piece,
// while some come, go and change among them.
func (w *world) many() {
	d := w.open()
	var order []int
	for i := range manyPolicies {
		order = append(order, i)
	}
	w.asks(d, order)
	w.apply(d)
	w.expectMany(order)

	order = slices.Concat([]int{70}, order[:20], []int{71}, order[21:59])
	w.asks(d, order)
	for _, dir := range policy.Directions { // one is about another port now
		d.Programs[manyName(41, dir)] = manyProgram(41, dir, 72)
		d.Programs[manyName(20, dir)] = nil
	}
	w.apply(d)
	w.expectMany(append(slices.DeleteFunc(order, func(i int) bool { return i == 41 }), 72))
}

// asks has what a sends and b receives decided by these policies, in order.
func (w *world) asks(d desired.Delta, order []int) {
	for pod, dir := range map[string]policy.Direction{"a": policy.Egress, "b": policy.Ingress} {
		tier := ir.Tier{Name: policy.DefaultTier, End: policy.Deny}
		for _, i := range order {
			id := manyName(i, dir)
			d.Programs[id] = manyProgram(i, dir, i)
			tier.Programs = append(tier.Programs, id)
		}
		ep := *d.Endpoints[w.sites[pod].iface]
		if chain := (ir.Chain{Tiers: []ir.Tier{tier}}); dir == policy.Egress {
			ep.Egress = chain
		} else {
			ep.Ingress = chain
		}
		d.Endpoints[ep.Interface] = &ep
	}
}

func manyName(i int, dir policy.Direction) ir.ProgramID {
	return ir.ProgramID{Policy: policy.Key{Namespace: "many", Name: fmt.Sprint("p", i)}, Direction: dir}
}

// manyProgram allows a port, after every fifth has denied TCP to it.
func manyProgram(i int, dir policy.Direction, port int) *ir.Program {
	p := &ir.Program{ID: manyName(i, dir)}
	at := []ir.PortRange{{First: uint16(firstOfMany + port), Last: uint16(firstOfMany + port)}}
	if i%5 == 0 {
		p.Rules = append(p.Rules, ir.Rule{Action: policy.Deny, Protocol: policy.TCP, DstPorts: at})
	}
	p.Rules = append(p.Rules, ir.Rule{Action: policy.Allow, DstPorts: at, Origin: len(p.Rules)})
	return p
}

// expectMany makes sure that exactly these ports are open from a, to b, and between
// the two.
func (w *world) expectMany(open []int) {
	w.t.Helper()
	var pass, drop []shot
	for port := -1; port < manyPolicies+20; port++ {
		for _, way := range [][2]string{{"a", "out0"}, {"out0", "b"}, {"a", "b"}} {
			udp := w.shot(way[0], way[1], port%2 == 0, policy.UDP, uint16(firstOfMany+port))
			tcp := w.shot(way[0], way[1], port%2 == 0, policy.TCP, uint16(firstOfMany+port))
			switch {
			case !slices.Contains(open, port):
				drop = append(drop, udp, tcp)
			case port%5 == 0:
				pass, drop = append(pass, udp), append(drop, tcp)
			default:
				pass = append(pass, udp, tcp)
			}
		}
	}
	w.all(true, pass)
	w.all(false, drop)
}
