package conntrack

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/eval"
	"github.com/koratnet/korat/policy/ir"
)

// world is what decides about connections: the endpoints of this node with their
// chains, programs and sets, and in doubt, whose connections have to be asked about
// again. It is pure.
type world struct {
	endpoints map[string]*desired.Endpoint // by interface
	at        map[netip.Addr]*desired.Endpoint
	programs  map[ir.ProgramID]*ir.Program
	sets      map[ir.SetID]*members
	users     map[ir.ProgramID]map[string]struct{} // interfaces whose chains name a program
	usedBy    map[ir.SetID]map[ir.ProgramID]struct{}
	bySource  map[ir.ProgramID]struct{} // programs that ask for source ports
	eval      eval.Evaluator

	doubt doubt
}

// doubt is whose policy has changed: endpoints as a whole, by interface, and
// addresses that programs mean now or meant before, which are the other end.
type doubt struct {
	endpoints map[string]struct{}
	peers     map[netip.Addr]struct{}
}

// maxPeers is how many addresses are remembered one by one. Beyond it everybody's
// connections are asked about: as when all is told at once.
const maxPeers = 1024

func (d *doubt) empty() bool { return len(d.endpoints)+len(d.peers) == 0 }

func newDoubt() doubt {
	return doubt{endpoints: map[string]struct{}{}, peers: map[netip.Addr]struct{}{}}
}

func newWorld() *world {
	w := &world{
		endpoints: map[string]*desired.Endpoint{}, at: map[netip.Addr]*desired.Endpoint{}, programs: map[ir.ProgramID]*ir.Program{},
		sets: map[ir.SetID]*members{}, users: map[ir.ProgramID]map[string]struct{}{}, usedBy: map[ir.SetID]map[ir.ProgramID]struct{}{},
		bySource: map[ir.ProgramID]struct{}{},
		doubt:    newDoubt(),
	}
	w.eval = eval.Evaluator{
		Program: func(id ir.ProgramID) *ir.Program { return w.programs[id] },
		InSet:   func(id ir.SetID, a netip.Addr) bool { return w.sets[id].has(a) },
		InPortSet: func(id ir.SetID, a netip.Addr, p policy.Protocol, port uint16) bool {
			return w.sets[id].hasPort(a, p, port)
		},
	}
	return w
}

// want takes in a change of what is desired.
func (w *world) want(d desired.Delta) {
	for id, p := range d.Programs {
		w.wantProgram(id, p)
	}
	for iface, e := range d.Endpoints {
		w.wantEndpoint(iface, e)
	}
	for iface, e := range d.Endpoints { // after all that left: an address may have moved
		if e != nil {
			for _, a := range e.Addrs {
				w.at[a] = w.endpoints[iface]
			}
		}
	}
	for id, c := range d.Sets {
		w.wantSet(id, c)
	}
	if len(w.doubt.peers) > maxPeers {
		clear(w.doubt.peers)
		for iface := range w.endpoints {
			w.doubt.endpoints[iface] = struct{}{}
		}
	}
}

func (w *world) wantProgram(id ir.ProgramID, p *ir.Program) {
	for set := range setsOf(w.programs[id]) {
		if delete(w.usedBy[set], id); len(w.usedBy[set]) == 0 {
			delete(w.usedBy, set)
		}
	}
	delete(w.programs, id)
	delete(w.bySource, id)
	if p != nil {
		w.programs[id] = p
		if slices.ContainsFunc(p.Rules, asksForSourcePorts) {
			w.bySource[id] = struct{}{}
		}
		for set := range setsOf(p) {
			put(w.usedBy, set, id)
		}
	}
	maps.Copy(w.doubt.endpoints, w.users[id])
}

func asksForSourcePorts(r ir.Rule) bool {
	return len(r.SrcPorts)+len(r.SrcPortSets)+len(r.NotSrcPortSets) > 0
}

func put[K, V comparable](into map[K]map[V]struct{}, k K, v V) {
	if into[k] == nil {
		into[k] = map[V]struct{}{}
	}
	into[k][v] = struct{}{}
}

func (w *world) wantEndpoint(iface string, e *desired.Endpoint) {
	if old := w.endpoints[iface]; old != nil {
		for id := range programsOf(old) {
			if delete(w.users[id], iface); len(w.users[id]) == 0 {
				delete(w.users, id)
			}
		}
		for _, a := range old.Addrs {
			if w.at[a] == old {
				delete(w.at, a)
			}
		}
	}
	delete(w.endpoints, iface)
	delete(w.doubt.endpoints, iface)
	if e != nil {
		w.endpoints[iface] = e
		for id := range programsOf(e) {
			put(w.users, id, iface)
		}
		w.doubt.endpoints[iface] = struct{}{}
	}
}

func (w *world) wantSet(id ir.SetID, c *desired.SetChange) {
	used := false
	for program := range w.usedBy[id] {
		used = used || len(w.users[program]) > 0
	}
	had := w.sets[id]
	if had == nil || c.Whole {
		w.sets[id] = newMembers()
	}
	now := w.sets[id]
	if used && had != nil && (c.Whole || c.Gone) {
		for m := range had.all {
			if _, still := c.Add[m]; !still {
				w.changed(id, m, used)
			}
		}
	}
	for m := range c.Add {
		if isNew := had == nil || !c.Whole || !had.holds(m); isNew {
			w.changed(id, m, used)
		}
		now.put(m)
	}
	for m := range c.Del {
		now.remove(m)
		w.changed(id, m, used)
	}
	if c.Gone {
		delete(w.sets, id)
	}
}

// changed notes that a member came or went. A single address is the other end of
// few connections; a range may be of any.
func (w *world) changed(id ir.SetID, m ir.Member, used bool) {
	switch {
	case !used:
	case m.Prefix.IsSingleIP():
		w.doubt.peers[m.Prefix.Addr()] = struct{}{}
	default:
		for program := range w.usedBy[id] {
			maps.Copy(w.doubt.endpoints, w.users[program])
		}
	}
}

// concerns reports whether an entry has to be asked about.
func (w *world) concerns(e *entry) bool {
	for _, a := range []netip.Addr{e.orig.src, e.reply.src} {
		if _, peer := w.doubt.peers[a]; peer {
			return true
		}
		if local := w.at[a]; local != nil {
			if _, doubtful := w.doubt.endpoints[local.Interface]; doubtful {
				return true
			}
		}
	}
	return false
}

// addrs returns the addresses of which an entry must have one to be concerned.
func (w *world) addrs() map[netip.Addr]struct{} {
	all := maps.Clone(w.doubt.peers)
	for iface := range w.doubt.endpoints {
		if e := w.endpoints[iface]; e != nil {
			for _, a := range e.Addrs {
				all[a] = struct{}{}
			}
		}
	}
	return all
}

// judge answers for connections, each kind of them once: most differ from others
// in their source port alone. It is valid as long as its world does not change.
type judge struct {
	*world
	own   map[netip.Addr]struct{} // the node's addresses, from which pods are always reached
	known map[eval.Packet]bool
}

func (w *world) judge(own map[netip.Addr]struct{}) judge {
	return judge{w, own, map[eval.Packet]bool{}}
}

// maxKnown bounds the memory of a judge.
const maxKnown = 1 << 16

// denies reports whether policy denies the packet that would open e now. The
// firewall sees the destination after and the source before it is translated. What
// an allowed connection announced is allowed with it, and a pod always reaches
// itself.
func (j judge) denies(e *entry) bool {
	from, to := j.at[e.orig.src], j.at[e.reply.src]
	if from == to || e.status&statusExpected != 0 {
		return false
	}
	p := eval.Packet{
		Src: e.orig.src, Dst: e.reply.src, Protocol: e.orig.protocol, DstPort: e.reply.srcPort, Type: e.orig.kind, Code: e.orig.code,
	}
	if len(j.bySource) > 0 {
		p.SrcPort = e.orig.srcPort
	}
	denied, known := j.known[p]
	if !known {
		path := eval.Path{From: chains(from), To: chains(to)}
		_, path.FromOwnHost = j.own[e.orig.src]
		denied = j.eval.Path(path, p).Action == policy.Deny
		if len(j.known) < maxKnown {
			j.known[p] = denied
		}
	}
	return denied
}

// chains leaves out what staged policies would say.
func chains(e *desired.Endpoint) *eval.Endpoint {
	if e == nil {
		return nil
	}
	x := &eval.Endpoint{Ingress: e.Ingress, Egress: e.Egress}
	x.Ingress.Pending, x.Egress.Pending = nil, nil
	return x
}

func programsOf(e *desired.Endpoint) map[ir.ProgramID]struct{} {
	ids := map[ir.ProgramID]struct{}{}
	for _, c := range []ir.Chain{e.Ingress, e.Egress} {
		for _, t := range c.Tiers {
			for _, id := range t.Programs {
				ids[id] = struct{}{}
			}
		}
	}
	return ids
}

func setsOf(p *ir.Program) map[ir.SetID]struct{} {
	ids := map[ir.SetID]struct{}{}
	if p == nil {
		return ids
	}
	for i := range p.Rules {
		r := &p.Rules[i]
		for _, list := range [][]ir.SetID{
			r.SrcSets, r.DstSets, r.NotSrcSets, r.NotDstSets, r.SrcPortSets, r.DstPortSets, r.NotSrcPortSets, r.NotDstPortSets,
		} {
			for _, id := range list {
				ids[id] = struct{}{}
			}
		}
	}
	return ids
}
