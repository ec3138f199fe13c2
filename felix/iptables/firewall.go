package iptables

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// Config is what a Firewall needs.
type Config struct {
	Family  ir.Family // IPv4 or IPv6
	Flavour Flavour   // where Settings do not say; Auto: asked of Detect at the first Resync
	Log     *slog.Logger
}

// Firewall keeps the chains of one family. It is a reconciler, a gate and a
// checker of felix/apply, and used by one goroutine at a time. The programs that
// it starts, and its sockets, are of the network namespace of the calling thread.
type Firewall struct {
	cfg  Config
	tool tool

	raw, mangle, filter, nat *table
	libraries                map[*table]*library

	endpoints map[string]*desired.Endpoint
	hosts     map[string]*desired.HostEndpoint
	sources   map[string][]netip.Prefix // by interface, those of pods beside their addresses
	floats    map[string][]float        // by interface, floating addresses
	tunnels   map[desired.TunnelKind]desired.TunnelDevice
	programs  map[ir.ProgramID]*ir.Program
	fixed     map[ir.SetID]map[ir.Member]struct{} // members of the sets that our own rules name
	settings  desired.Settings
	style     style

	unnamable map[string]error // endpoints whose interface cannot stand in a rule
	marksErr  error            // why Settings.Marks are not used
	moved     bool             // endpoints came or went since the tries were made
	restyled  bool             // style is behind what is known

	complete   bool
	chosen     bool // the flavour is, for these settings:
	chosenFor  desired.Flavour
	read       bool
	cleaned    bool   // nothing of ours is left in the other flavour
	generation uint32 // of nf_tables, when the kernel was as the tables know it
}

// New makes a Firewall that knows nothing yet.
func New(cfg Config) *Firewall {
	f := &Firewall{
		cfg: cfg, tool: tool{cfg.Family, cfg.Flavour},
		endpoints: map[string]*desired.Endpoint{}, hosts: map[string]*desired.HostEndpoint{},
		sources: map[string][]netip.Prefix{}, floats: map[string][]float{}, tunnels: map[desired.TunnelKind]desired.TunnelDevice{},
		programs: map[ir.ProgramID]*ir.Program{}, fixed: map[ir.SetID]map[ir.Member]struct{}{},
		settings: desired.DefaultSettings(), unnamable: map[string]error{},
		libraries: map[*table]*library{}, moved: true,
	}
	f.raw, f.mangle = newTable("raw", &f.tool), newTable("mangle", &f.tool)
	f.filter, f.nat = newTable("filter", &f.tool), newTable("nat", &f.tool)
	for _, t := range []*table{f.raw, f.mangle, f.filter} {
		f.libraries[t] = newLibrary(t)
	}
	f.restyle()
	return f
}

// tables are in the order in which they are written.
func (f *Firewall) tables() []*table { return []*table{f.raw, f.mangle, f.filter, f.nat} }

// Name returns "iptables-ipv4" or "iptables-ipv6".
func (f *Firewall) Name() string { return fmt.Sprintf("iptables-ipv%d", f.cfg.Family) }

// Want takes in what changed.
func (f *Firewall) Want(d desired.Delta) {
	if d.Complete && !f.complete {
		f.complete, f.moved, f.restyled = true, true, true
		for _, t := range f.tables() {
			t.release()
		}
	}
	if d.Settings != nil && !f.settings.Equal(*d.Settings) {
		f.read = f.read && f.settings.Flavour == d.Settings.Flavour // else another kernel interface
		f.settings, f.restyled = *d.Settings, true
	}
	for iface, e := range d.HostEndpoints {
		f.restyled = true
		if e == nil {
			delete(f.hosts, iface)
		} else {
			f.hosts[iface] = e
		}
	}
	for id, change := range d.Sets {
		f.wantFixed(id, change)
	}
	f.wantTunnels(d.Tunnels)
	for id, p := range d.Programs {
		if p == nil {
			delete(f.programs, id)
		} else {
			f.programs[id] = p
		}
	}
	for iface, e := range d.Endpoints {
		f.wantSources(iface, e)
		f.wantFloats(iface, e)
	}
	if f.restyled {
		f.restyle()
	}
	for id := range d.Programs {
		for _, l := range f.libraries {
			l.renew(id, f.render)
		}
	}
	for iface, e := range d.Endpoints {
		f.wantEndpoint(iface, e)
	}
}

// restyle renders everything anew that is as settings, host endpoints and sets
// say; what stays the same costs no write.
func (f *Firewall) restyle() {
	f.restyled = false
	_, inside := f.fixed[desired.InsideSet]
	_, nodes := f.fixed[desired.NodesSet]
	s := style{
		family: f.cfg.Family, settings: f.settings, hosts: newHosts(f.hosts), marks: f.marks(), formerly: f.style.formerly,
		services:   f.holds(desired.ServicesSet),
		sources:    f.sources,
		tunnelEnds: f.ends(),
		closed:     inside && nodes && f.holds(desired.EncryptedSet),
		masquerade: inside && f.holds(desired.MasqueradeSet),
		inside:     inside, floats: f.allFloats(),
	}
	if early := s.hosts.early(policy.Ingress) || s.hosts.early(policy.Egress); early && f.read && f.style.marks != s.marks {
		s.formerly = f.style.marks.accept
	}
	everywhere := s.marks != f.style.marks || s.settings.DropRecords != f.style.settings.DropRecords ||
		s.settings.Invalid != f.style.settings.Invalid || s.settings.PodTunnels != f.style.settings.PodTunnels
	f.style = s
	f.lay()
	if !everywhere {
		return
	}
	f.moved = true
	for _, e := range f.endpoints {
		f.wantEndpoint(e.Interface, e)
	}
	for _, l := range f.libraries {
		for id := range l.users {
			l.renew(id, f.render)
		}
	}
}

// lay gives the tables what is neither a pod's nor a policy's.
func (f *Firewall) lay() {
	for t, l := range map[*table]layer{f.raw: f.style.raw(), f.mangle: f.style.mangle(), f.filter: f.style.filter(), f.nat: f.style.nat()} {
		t.hook(l.hooks)
		t.replace("layer", l.chains)
		if library := f.libraries[t]; library != nil {
			library.lend(hostUser, f.style.hosts.programs(l.points...), f.render)
		}
	}
}

// hostUser leads to the policies of host endpoints. No interface is called so.
const hostUser = "host endpoints"

func (f *Firewall) render(id ir.ProgramID) chain { return f.style.programOf(id, f.programs[id]) }

// marks returns those that the rules shall use: until all is known, those that an
// earlier life's rules use, because these stay.
func (f *Firewall) marks() marks {
	if have := f.filter.have.marks; have != 0 && !f.complete {
		if m, err := newMarks(have); err == nil {
			return m
		}
	}
	m, err := newMarks(f.settings.Marks)
	f.marksErr = err
	switch {
	case err == nil:
		return m
	case f.style.marks != (marks{}):
		return f.style.marks
	}
	m, _ = newMarks(desired.DefaultSettings().Marks)
	return m
}

// Resync reads our chains back.
func (f *Firewall) Resync(ctx context.Context) error {
	if err := f.choose(ctx); err != nil {
		return err
	}
	if err := f.readAll(); err != nil {
		return err
	}
	for _, t := range f.tables() {
		clear(t.refused)
		if !f.read && !f.complete {
			t.inherit()
		}
	}
	if !f.read && f.filter.have.marks != 0 {
		f.restyle()
	}
	f.read, f.moved, f.cleaned = true, true, false
	return nil
}

// choose decides about the flavour. After a change, the other flavour is cleaned
// when this one is in force.
func (f *Firewall) choose(ctx context.Context) error {
	if f.chosen && f.chosenFor == f.settings.Flavour {
		return nil
	}
	want := flavourOf(f.settings.Flavour)
	if want == Auto {
		want = f.cfg.Flavour
	}
	if want == Auto {
		var err error
		if want, err = Detect(ctx); err != nil {
			return err
		}
		f.cfg.Log.Info("iptables flavour detected", "family", int(f.cfg.Family), "flavour", string(want))
	}
	f.tool.flavour, f.chosen, f.chosenFor = want, true, f.settings.Flavour
	return nil
}

func (f *Firewall) readAll() error {
	var names []string
	for _, t := range f.tables() {
		t.known = false
		names = append(names, t.name)
	}
	r, err := f.tool.read(names...)
	if err != nil {
		return err
	}
	for _, t := range f.tables() {
		t.take(r.tables[t.name])
	}
	f.generation = r.generation
	return nil
}

// Apply writes what differs, each table in one transaction.
func (f *Firewall) Apply(ctx context.Context) error {
	if !f.read {
		if err := f.Resync(ctx); err != nil {
			return err
		}
	}
	f.plant()
	err := f.write(ctx)
	if err == nil && f.complete && !f.cleaned {
		if err = f.evict(ctx, f.tool.flavour.other()); err == nil {
			f.cleaned = true
		}
	}
	errs := []error{err, f.marksErr}
	for _, iface := range slices.Sorted(maps.Keys(f.unnamable)) {
		errs = append(errs, f.unnamable[iface])
	}
	for _, iface := range slices.Sorted(maps.Keys(f.hosts)) {
		errs = append(errs, badHost(iface))
	}
	return errors.Join(errs...)
}

// write writes the tables: the guard against forged sources first.
func (f *Firewall) write(ctx context.Context) error {
	if f.settled() && !f.refused() {
		return nil
	}
	before, err := f.tool.generation()
	if err != nil {
		return err
	}
	writes := f.writes()
	if f.style.formerly != 0 {
		err = f.changeOver(ctx)
	} else {
		err = f.writeTables(ctx, f.raw, f.mangle, f.filter, f.nat)
	}
	after, genErr := f.tool.generation()
	if genErr == nil && before == f.generation && after == before+uint32(f.writes()-writes) {
		f.generation = after // nobody else has written
	}
	return errors.Join(err, genErr)
}

// changeOver writes other marks: first who listens to the accept mark understands
// both, then who says it changes, then the old one is forgotten. So nothing is
// held up on its way from table to table, and nothing let in for another reason.
func (f *Firewall) changeOver(ctx context.Context) error {
	if err := f.writeTables(ctx, f.filter, f.mangle, f.raw, f.nat); err != nil {
		return err
	}
	f.style.formerly = 0
	f.lay()
	return f.writeTables(ctx, f.mangle, f.filter)
}

// writeTables writes tables one after another. What fails in raw, where forged
// packets are dropped, holds back the rest.
func (f *Firewall) writeTables(ctx context.Context, tables ...*table) error {
	var errs []error
	for _, t := range tables {
		err := t.apply(ctx, f.complete)
		if errs = append(errs, err); err != nil && t == f.raw {
			break
		}
	}
	return errors.Join(errs...)
}

func (f *Firewall) settled() bool {
	for _, t := range f.tables() {
		if !t.settled(f.complete) {
			return false
		}
	}
	return f.style.formerly == 0
}

// writes returns how often the kernel has taken something.
func (f *Firewall) writes() int {
	return f.raw.writes + f.mangle.writes + f.filter.writes + f.nat.writes
}

// refused reports whether the kernel did not take some chains.
func (f *Firewall) refused() bool {
	return slices.ContainsFunc(f.tables(), func(t *table) bool { return len(t.refused) > 0 })
}

// plant makes the tries. Until all is known they also lead to the chains that are
// in the kernel already: those pods run.
func (f *Firewall) plant() {
	if !f.moved {
		return
	}
	f.moved = false
	known := map[string]struct{}{}
	var places []place
	for iface, e := range f.endpoints {
		for _, a := range familyAddrs(e, f.cfg.Family) {
			known[iface] = struct{}{}
			places = append(places, place{a, iface})
		}
	}
	slices.SortFunc(places, func(a, b place) int { return cmp.Or(a.address.Compare(b.address), strings.Compare(a.iface, b.iface)) })
	if !f.complete {
		for name := range f.filter.have.chains {
			if iface, ok := strings.CutPrefix(name, fromPrefix); ok {
				known[iface] = struct{}{}
			}
		}
	}
	f.filter.replace("tries", f.style.dispatch(slices.Sorted(maps.Keys(known)), places))
}
