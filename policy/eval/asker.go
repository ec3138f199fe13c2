package eval

import (
	"net/netip"

	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// Asker answers many questions about a cluster that nobody changes meanwhile:
// it compiles the policies once, and remembers whom they select. It is used by
// one goroutine.
type Asker struct {
	cluster   *Cluster
	evaluator *Evaluator
	endpoints map[*Pod]*Endpoint
}

// Asker returns an Asker of c.
func (c *Cluster) Asker() *Asker {
	type member struct {
		set      ir.SetID
		addr     netip.Addr
		protocol policy.Protocol
		port     uint16
	}
	e := c.evaluator()
	known := map[member]bool{}
	remember := func(m member, ask func() bool) bool {
		in, ok := known[m]
		if !ok {
			in = ask()
			known[m] = in
		}
		return in
	}
	inSet, inPortSet := e.InSet, e.InPortSet
	e.InSet = func(id ir.SetID, a netip.Addr) bool {
		return remember(member{set: id, addr: a}, func() bool { return inSet(id, a) })
	}
	e.InPortSet = func(id ir.SetID, a netip.Addr, protocol policy.Protocol, port uint16) bool {
		return remember(member{id, a, protocol, port}, func() bool { return inPortSet(id, a, protocol, port) })
	}
	return &Asker{cluster: c, evaluator: e, endpoints: map[*Pod]*Endpoint{}}
}

// Verdict answers like Cluster.Verdict.
func (a *Asker) Verdict(p Packet) Verdict { return a.cluster.verdict(p, a.evaluator, a.endpoint) }

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
