package eval

import (
	"net/netip"
	"slices"

	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// Asker answers many questions about a cluster that nobody changes meanwhile:
// it compiles the policies once, and remembers who has which address, whom the
// policies select and what is in which set. It is used by one goroutine.
type Asker struct {
	cluster   *Cluster
	evaluator *Evaluator
	pods      map[netip.Addr]*Pod
	endpoints map[*Pod]*Endpoint
}

// Asker returns an Asker of c.
func (c *Cluster) Asker() *Asker {
	a := &Asker{cluster: c, pods: map[netip.Addr]*Pod{}, endpoints: map[*Pod]*Endpoint{}}
	for i := range c.Pods {
		for _, addr := range c.Pods[i].Addrs {
			if a.pods[addr] == nil {
				a.pods[addr] = &c.Pods[i]
			}
		}
	}
	all := c.things()
	thingsAt := remembered(func(addr netip.Addr) []thing {
		return slices.DeleteFunc(slices.Clone(all), func(t thing) bool { return !within(t.nets, addr) })
	})
	e := c.evaluator(thingsAt)
	type member struct {
		set      ir.SetID
		addr     netip.Addr
		protocol policy.Protocol
		port     uint16
	}
	inSet, inPortSet := e.InSet, e.InPortSet
	known := remembered(func(m member) bool { return inSet(m.set, m.addr) })
	knownPort := remembered(func(m member) bool { return inPortSet(m.set, m.addr, m.protocol, m.port) })
	e.InSet = func(id ir.SetID, addr netip.Addr) bool { return known(member{set: id, addr: addr}) }
	e.InPortSet = func(id ir.SetID, addr netip.Addr, protocol policy.Protocol, port uint16) bool {
		return knownPort(member{id, addr, protocol, port})
	}
	a.evaluator = e
	return a
}

// Verdict answers like Cluster.Verdict.
func (a *Asker) Verdict(p Packet) Verdict {
	return a.cluster.verdict(p, a.evaluator, func(addr netip.Addr) *Pod { return a.pods[addr] }, a.endpoint)
}

func (a *Asker) endpoint(p *Pod) *Endpoint {
	if p == nil {
		return nil
	}
	e, ok := a.endpoints[p]
	if !ok {
		e = a.cluster.endpoint(p)
		a.endpoints[p] = e
	}
	return e
}

// remembered asks for each key once.
func remembered[K comparable, V any](ask func(K) V) func(K) V {
	known := map[K]V{}
	return func(k K) V {
		v, ok := known[k]
		if !ok {
			v = ask(k)
			known[k] = v
		}
		return v
	}
}
