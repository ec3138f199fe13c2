package nft

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/nftables"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// Firewall keeps the table. It is a reconciler and a gate of felix/apply, and used
// by one goroutine at a time, Watch aside.
type Firewall struct {
	table *nftables.Table

	settings desired.Settings
	style    style

	endpoints map[string]*desired.Endpoint
	hosts     map[string]*desired.HostEndpoint
	programs  map[ir.ProgramID]*ir.Program
	sets      *sets
	chains    *chains
	unusable  map[string]error // endpoints whose interface is none of a pod

	// What has to be written into the table before the next Apply. Writing waits
	// for it because only a Resync tells what was inherited.
	dirtyEndpoints map[string]struct{}
	dirtyPrograms  map[ir.ProgramID]struct{}
	dirtyStatics   bool

	written map[string][]string // chains of endpoints in the table, by interface
	sources map[string]*desired.Endpoint
	hostly  map[string]struct{} // chains and maps of host endpoints in the table

	// families are those that pods have had addresses of. A pod with the first of
	// another has all rules written anew.
	families map[ir.Family]struct{}

	pending map[string]struct{} // endpoints that are not, or not as wanted, in the kernel
	failure error               // of the last Apply, where it concerns everything

	complete bool
	read     bool
}

// New returns the Firewall of the network namespace of the calling thread. It
// knows nothing yet, and has done nothing.
func New() (*Firewall, error) {
	table, err := nftables.Open(nftables.Inet, TableName)
	if err != nil {
		return nil, err
	}
	f := &Firewall{
		table: table, settings: desired.DefaultSettings(),
		endpoints: map[string]*desired.Endpoint{}, hosts: map[string]*desired.HostEndpoint{},
		programs: map[ir.ProgramID]*ir.Program{}, unusable: map[string]error{},
		dirtyEndpoints: map[string]struct{}{}, dirtyPrograms: map[ir.ProgramID]struct{}{}, dirtyStatics: true,
		written: map[string][]string{}, sources: map[string]*desired.Endpoint{}, hostly: map[string]struct{}{},
		pending: map[string]struct{}{}, families: map[ir.Family]struct{}{},
	}
	f.style = styleOf(f.settings)
	f.sets = newSets(table)
	f.chains = newChains(table)
	return f, nil
}

// Close closes the sockets. The table stays in the kernel.
func (f *Firewall) Close() error { return f.table.Close() }

// Name implements apply.Reconciler.
func (f *Firewall) Name() string { return "nftables" }

// Watch calls tell whenever others have changed the table, until ctx ends. The
// next Apply mends it. Watch may run beside everything else, once at a time.
func (f *Firewall) Watch(ctx context.Context, tell func()) error { return f.table.Watch(ctx, tell) }

// Uninstall removes the table with everything in it.
func (f *Firewall) Uninstall(ctx context.Context) error { return f.table.Uninstall(ctx) }

// Want implements apply.Reconciler.
func (f *Firewall) Want(d desired.Delta) {
	if d.Settings != nil {
		f.settings = *d.Settings
		f.style = styleOf(f.settings)
		f.everythingAnew()
	}
	if d.Complete && !f.complete {
		f.complete = true
		f.chains.inherited = nil
		f.everythingAnew()
	}
	for id, p := range d.Programs {
		f.wantProgram(id, p)
	}
	for iface, e := range d.Endpoints {
		f.wantEndpoint(iface, e)
	}
	for iface, e := range d.HostEndpoints {
		f.dirtyStatics = true
		if delete(f.hosts, iface); e != nil {
			f.hosts[iface] = e
		}
	}
	f.chooseFamilies()
	if f.sets.want(d) {
		f.dirtyStatics = true
	}
}

// everythingAnew makes the next Apply write all chains: those that come out the
// same cost a hash.
func (f *Firewall) everythingAnew() {
	f.dirtyStatics = true
	for iface := range f.endpoints {
		f.dirtyEndpoints[iface] = struct{}{}
	}
	for id := range f.chains.users {
		f.dirtyPrograms[id.ProgramID] = struct{}{}
	}
}

// chooseFamilies finds out of which families the packets are that policies decide
// about. Those of hosts may be of any.
func (f *Firewall) chooseFamilies() {
	use := bothFamilies
	if len(f.hosts) == 0 && len(f.families) > 0 {
		use = slices.Sorted(maps.Keys(f.families))
	}
	if !slices.Equal(use, f.style.families) {
		f.style.families = use
		f.everythingAnew()
	}
}

func (f *Firewall) wantEndpoint(iface string, e *desired.Endpoint) {
	delete(f.endpoints, iface)
	delete(f.unusable, iface)
	delete(f.pending, iface)
	f.dirtyEndpoints[iface] = struct{}{}
	if e == nil {
		return
	}
	f.pending[iface] = struct{}{}
	if !strings.HasPrefix(iface, desired.InterfacePrefix) || len(iface) >= interfaceBytes || e.Interface != iface {
		f.unusable[iface] = fmt.Errorf("interface name %q of %s: want %s and at most %d characters",
			iface, e.Interface, desired.InterfacePrefix, interfaceBytes-1)
		return
	}
	f.endpoints[iface] = e
	for _, a := range e.Addrs {
		f.families[familyOf(a)] = struct{}{}
	}
}

// wantProgram has everything written anew that depends on the program: its own
// chains, and those of endpoints that hold its rules, or of which the shape
// depends on whether it may pass or deny.
func (f *Firewall) wantProgram(id ir.ProgramID, p *ir.Program) {
	old, had := f.programs[id]
	wasOwn := had && small(old) && f.chains.sole(id)
	if delete(f.programs, id); p != nil {
		f.programs[id] = p
	}
	_, own := f.own(id)
	turned := passes(old) != passes(p) || harmless(old) != harmless(p) || own || wasOwn
	f.dirtyPrograms[id] = struct{}{}
	for iface := range f.chains.endpointsOf(id) {
		f.pending[iface] = struct{}{}
		if turned {
			f.dirtyEndpoints[iface] = struct{}{}
		}
	}
	f.dirtyStatics = f.dirtyStatics || turned && len(f.hosts) > 0
}

func (f *Firewall) passes(id ir.ProgramID) bool { return passes(f.programs[id]) }

func (f *Firewall) mild(id ir.ProgramID) bool { return harmless(f.programs[id]) }

// own implements book. Every change of the table makes the kernel walk through all
// of it, and what makes that long is the number of chains and rules that are far
// from each other in memory. Where each pod has its own policies, chains for them
// would be most of it.
func (f *Firewall) own(id ir.ProgramID) (*ir.Program, bool) {
	p := f.programs[id]
	return p, small(p) && f.chains.sole(id)
}

// maxOwn is how many rules a program may have to stand in the chain of an
// endpoint, which is written whole.
const maxOwn = 16

func small(p *ir.Program) bool { return p != nil && len(p.Rules) <= maxOwn && !passes(p) }

// Resync implements apply.Reconciler.
func (f *Firewall) Resync(ctx context.Context) error {
	if err := f.table.Resync(ctx); err != nil {
		return err
	}
	if !f.read {
		f.read = true
		if !f.complete {
			f.inherit()
		}
	}
	return nil
}

// inherit notes what an earlier life of the agent left: until all is known that is
// better than what we would write, and it stays.
func (f *Firewall) inherit() {
	for o := range f.table.Found() {
		switch {
		case o.Kind == nftables.AChain && lasting.MatchString(o.Name):
			f.chains.inherit(o.Name)
		case o.Kind == nftables.ASet:
			f.sets.inherit(o.Name)
		}
	}
}

// Apply implements apply.Reconciler.
func (f *Firewall) Apply(ctx context.Context) error {
	if !f.read {
		if err := f.Resync(ctx); err != nil {
			return err
		}
	}
	f.write()
	err := f.table.Apply(ctx)
	f.failure = nil
	if err != nil && !f.table.Settled() {
		f.failure = err
		return err
	}
	clear(f.pending)
	for _, why := range f.unusable {
		err = errors.Join(err, why)
	}
	return err
}

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
		f.table.WantVerdict(knownPods, nftables.Interface(iface), nftables.Goto(forgedSource))
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
	_, own := f.own(id)
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
	// A base chain costs every packet something, so these are there only with a
	// purpose.
	f.chains.wantIf(f.sets.any(desired.MasqueradeSet), masquerade(f.settings.Masquerade))
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
