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
	printed   map[ir.ProgramID]sheet // rules of programs in chains of endpoints
	unusable  map[string]error       // endpoints whose interface is none of a pod

	// What has to be written into the table before the next Apply. Writing waits
	// for it because only a Resync tells what was inherited.
	dirtyEndpoints map[string]struct{}
	dirtyPrograms  map[ir.ProgramID]struct{}
	dirtyStatics   bool

	written map[string][]string // chains of endpoints in the table, by interface
	sources map[string]*desired.Endpoint
	hostly  map[string]struct{} // chains and maps of host endpoints in the table
	// floating are the chains of floating addresses in the table.
	floating map[string]struct{}

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
		programs: map[ir.ProgramID]*ir.Program{}, printed: map[ir.ProgramID]sheet{}, unusable: map[string]error{},
		dirtyEndpoints: map[string]struct{}{}, dirtyPrograms: map[ir.ProgramID]struct{}{}, dirtyStatics: true,
		written: map[string][]string{}, sources: map[string]*desired.Endpoint{}, hostly: map[string]struct{}{}, floating: map[string]struct{}{},
		pending: map[string]struct{}{}, families: map[ir.Family]struct{}{},
	}
	f.style = styleOf(f.settings)
	f.style.ends = tunnels{}
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
		known := f.style.ends
		f.style = styleOf(f.settings)
		f.style.ends = known
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
	turned := f.style.ends.want(d.Tunnels)
	if f.sets.want(d) || turned {
		f.dirtyStatics = true
	}
}

// everythingAnew makes the next Apply write all chains: those that come out the
// same cost a hash.
func (f *Firewall) everythingAnew() {
	clear(f.printed)
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
	f.dirtyStatics = f.dirtyStatics || !slices.Equal(floatsOf(f.endpoints[iface]), floatsOf(e))
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
	delete(f.printed, id)
	if delete(f.programs, id); p != nil {
		f.programs[id] = p
	}
	turned := passes(old) != passes(p) || harmless(old) != harmless(p) || wasOwn || f.own(id)
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
func (f *Firewall) own(id ir.ProgramID) bool { return small(f.programs[id]) && f.chains.sole(id) }

// sheet is what is printed of a program for one outcome.
type sheet struct {
	outcome outcome
	rules   []nftables.Rule
	needs   constants
}

// rules implements book. They are printed once: with each of its programs, the
// chain of an endpoint is put together anew.
func (f *Firewall) rules(id ir.ProgramID, o outcome) ([]nftables.Rule, constants) {
	s, ok := f.printed[id]
	if !ok || s.outcome != o {
		s = sheet{outcome: o, needs: constants{}}
		s.rules = nftables.Prepared(f.style.programRules(id, f.programs[id], o, s.needs))
		f.printed[id] = s
	}
	return s.rules, s.needs
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
// better than what we would write, and it stays. Where there were host endpoints
// it is also the chains that lead to them.
func (f *Firewall) inherit() {
	hosts := false
	for o := range f.table.Found() {
		switch {
		case o.Kind == nftables.AChain && lasting.MatchString(o.Name):
			f.chains.inherit(o.Name)
		case o.Kind == nftables.ASet:
			f.sets.inherit(o.Name)
		}
		hosts = hosts || o.Kind == nftables.AChain && strings.HasPrefix(o.Name, hostsPrefix)
	}
	if hosts {
		for _, name := range []string{rawIn, forward, input} {
			f.chains.inherit(name)
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
