package nft

import (
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/nftables"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// write brings the table, in memory, to what is wanted.
func (f *Firewall) write() {
	if f.complete {
		f.table.AllowRemoval()
	}
	f.sets.release(f.complete)
	if f.dirtyStatics {
		f.writeStatics()
		f.dirtyStatics = false
	}
	for iface := range f.dirtyEndpoints {
		f.use(iface)
	}
	for iface := range f.dirtyEndpoints {
		f.writeEndpoint(iface)
	}
	clear(f.dirtyEndpoints)
	for id := range f.dirtyPrograms {
		f.writeProgram(id)
	}
	clear(f.dirtyPrograms)
}

// writeEndpoint writes the chains of one pod, and takes away those it had before.
func (f *Firewall) writeEndpoint(iface string) {
	e, old := f.endpoints[iface], f.sources[iface]
	var next []string
	if e != nil {
		from, fromNeeds := f.style.fromEndpoint(e, f)
		to, toNeeds := f.style.toEndpoint(e, f)
		f.wantChains(from, fromNeeds, &next)
		f.wantChains(to, toNeeds, &next)
		f.table.WantVerdict(fromPodsMap, nftables.Interface(iface), nftables.Goto(from[0].Name))
		f.table.WantVerdict(toPodsMap, nftables.Interface(iface), nftables.Goto(to[0].Name))
		other := nftables.Goto(forgedSource)
		if len(e.Sources) > 0 {
			c := f.style.furtherSources(e)
			f.wantChains([]nftables.Chain{c}, nil, &next)
			other = nftables.Goto(c.Name)
		}
		f.table.WantVerdict(knownPods, nftables.Interface(iface), other)
		f.sources[iface] = e
	} else if old != nil {
		for _, m := range []string{fromPodsMap, toPodsMap, knownPods} {
			f.table.UnwantVerdict(m, nftables.Interface(iface))
		}
		delete(f.sources, iface)
	}
	f.writeSources(old, e)
	f.chains.unwantOthers(f.written[iface], next)
	if delete(f.written, iface); next != nil {
		f.written[iface] = next
	}
}

// wantChains writes the chains of an endpoint in one direction; the first stands
// for what all of them need.
func (f *Firewall) wantChains(all []nftables.Chain, needs constants, names *[]string) {
	for _, c := range all {
		f.chains.want(c, needs)
		*names = append(*names, c.Name)
		needs = nil
	}
}

// use notes which programs an endpoint asks, and how: none, as long as its chains
// are inherited. Where that changes in whose
// chain the rules of a program stand, the chains of its other user are written
// anew as well.
func (f *Firewall) use(iface string) {
	var all []printed
	if e := f.endpoints[iface]; e != nil && !f.chains.inherits(fromPrefix+attachment(e)) {
		for _, id := range references(e.Egress) {
			all = append(all, printed{id, returns})
		}
		for _, id := range references(e.Ingress) {
			all = append(all, printed{id, accepts})
		}
	}
	f.turned(f.chains.use(user{iface}, all))
}

func (f *Firewall) turned(programs []ir.ProgramID) {
	for _, id := range programs {
		f.dirtyPrograms[id] = struct{}{}
		if users := f.chains.endpointsOf(id); len(users) <= 2 {
			for iface := range users {
				f.dirtyEndpoints[iface] = struct{}{}
			}
		}
	}
}

func references(c ir.Chain) []ir.ProgramID {
	var all []ir.ProgramID
	for _, t := range c.Tiers {
		all = append(all, t.Programs...)
	}
	return all
}

func (f *Firewall) writeSources(old, e *desired.Endpoint) {
	if old != nil {
		for _, a := range old.Addrs {
			f.table.UnwantVerdict(sourcesOf(familyOf(a)), sourceKey(old, a))
		}
	}
	if e != nil {
		for _, a := range e.Addrs {
			f.table.WantVerdict(sourcesOf(familyOf(a)), sourceKey(e, a), nftables.Accept)
		}
	}
}

// writeProgram writes the chains of a policy in all the ways that it is used.
func (f *Firewall) writeProgram(id ir.ProgramID) {
	own := f.own(id)
	for o := range ownChains {
		if own || !f.chains.used(printed{id, o}) {
			f.chains.unwant(programChain(id, o))
			continue
		}
		chain, needs := f.style.program(id, f.programs[id], o)
		f.chains.want(chain, needs)
	}
}

// writeStatics writes what is there whatever pods there are, and the chains of
// host endpoints. Those wait until all is known: a node is not closed because its
// policies have not been told yet.
func (f *Firewall) writeStatics() {
	for _, m := range []nftables.Map{
		{Name: sources4, Key: []nftables.Field{nftables.IfName, nftables.IPv4Addr}},
		{Name: sources6, Key: []nftables.Field{nftables.IfName, nftables.IPv6Addr}},
		{Name: knownPods, Key: []nftables.Field{nftables.IfName}},
		{Name: fromPodsMap, Key: []nftables.Field{nftables.IfName}},
		{Name: toPodsMap, Key: []nftables.Field{nftables.IfName}},
	} {
		f.table.WantMap(m)
	}
	f.sets.wantFixed()
	known := map[string]*desired.HostEndpoint{}
	if f.complete {
		known = f.hosts
	}
	h := hostsOf(known)
	for _, c := range f.style.statics(f.settings, h) {
		f.chains.want(c, nil)
	}
	f.writeHosts(h)
	f.writeTunnels()
	f.writeClear()
	f.writeFloating()
	// A base chain costs every packet something, so these are there only with a
	// purpose.
	f.chains.wantIf(f.sets.any(desired.MasqueradeSet), f.style.masquerade(f.settings.Masquerade))
	f.chains.wantIf(f.settings.ClampMSS, clamping())
	f.chains.wantIf(f.sets.any(desired.ServicesSet) && f.settings.Loops == policy.Deny, f.style.unserved())
}

// writeHosts writes the chains and maps of host endpoints, and takes away those
// that are not needed any more. They are few.
func (f *Firewall) writeHosts(h hosts) {
	old := f.hostly
	f.hostly = map[string]struct{}{}
	keep := func(c nftables.Chain, needs constants) {
		f.chains.want(c, needs)
		f.hostly[c.Name] = struct{}{}
	}
	for _, c := range h.baseChains(f.style) {
		keep(c, nil)
	}
	var all []printed
	for p := range points {
		if !h.used[p] {
			f.table.UnwantMap(p.chain())
			continue
		}
		f.table.UnwantMap(p.chain()) // and with it what it says about those that went
		f.table.WantMap(nftables.Map{Name: p.chain(), Key: []nftables.Field{nftables.IfName}})
		keep(h.dispatch(p, f.style, f.settings))
		for iface, e := range h.endpoints {
			for _, c := range h.endpoint(e, p, f.style, f.settings, f) {
				keep(c, nil)
			}
			for _, id := range references(p.of(e)) {
				all = append(all, printed{id, p.outcome()})
			}
			if iface != desired.AnyInterface {
				f.table.WantVerdict(p.chain(), nftables.Interface(iface), nftables.Goto(hostChain(p, iface)))
			}
		}
	}
	f.turned(f.chains.use(user{}, all))
	for name := range old {
		if _, still := f.hostly[name]; !still {
			f.chains.unwant(name)
		}
	}
}
