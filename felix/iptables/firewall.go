package iptables

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy/ir"
)

// Config is what a Firewall needs.
type Config struct {
	Family  ir.Family // IPv4 or IPv6
	Flavour Flavour   // Auto: asked of Detect at the first Resync
	Log     *slog.Logger
}

// Firewall keeps the chains of one family. It is a reconciler and a gate of
// felix/apply, and used by one goroutine at a time. The programs that it starts
// see the network namespace of the calling thread.
type Firewall struct {
	cfg         Config
	tool        tool
	raw, filter *table

	endpoints map[string]*desired.Endpoint
	programs  map[ir.ProgramID]*ir.Program
	users     map[ir.ProgramID]map[string]struct{} // endpoints by the programs they name
	programBy map[string]ir.ProgramID              // by chain, of those in users
	unnamable map[string]error                     // endpoints whose interface cannot stand in a rule
	tries     map[string]struct{}                  // chains of the tries that are wanted
	moved     bool                                 // endpoints came or went since the tries were made

	complete bool
	// inherited are the chains that an earlier life of the agent left. Until all is
	// known they are better than what we would write, and stay.
	inherited map[string]struct{}
	read      bool
}

// New makes a Firewall that knows nothing yet.
func New(cfg Config) *Firewall {
	f := &Firewall{
		cfg: cfg, tool: tool{cfg.Family, cfg.Flavour},
		endpoints: map[string]*desired.Endpoint{}, programs: map[ir.ProgramID]*ir.Program{},
		users: map[ir.ProgramID]map[string]struct{}{}, programBy: map[string]ir.ProgramID{},
		unnamable: map[string]error{}, tries: map[string]struct{}{}, inherited: map[string]struct{}{},
		moved: true,
	}
	f.raw = newTable("raw", &f.tool, rawHooks(), rawChains(cfg.Family))
	f.filter = newTable("filter", &f.tool, filterHooks(), filterChains(cfg.Family))
	return f
}

// Name returns "iptables-ipv4" or "iptables-ipv6".
func (f *Firewall) Name() string { return fmt.Sprintf("iptables-ipv%d", f.cfg.Family) }

// Want takes in what changed.
func (f *Firewall) Want(d desired.Delta) {
	if d.Complete && !f.complete {
		f.complete, f.moved = true, true
		clear(f.inherited)
	}
	for id, p := range d.Programs {
		if p == nil {
			delete(f.programs, id)
		} else {
			f.programs[id] = p
		}
		if len(f.users[id]) > 0 {
			f.filter.set(programOf(id, p, f.cfg.Family))
		}
	}
	for iface, e := range d.Endpoints {
		f.wantEndpoint(iface, e)
	}
}

// wantEndpoint renders an endpoint. One without an address of this family needs
// no chains: to the tries it is unknown, and so closed.
func (f *Firewall) wantEndpoint(iface string, e *desired.Endpoint) {
	old := f.endpoints[iface]
	delete(f.endpoints, iface)
	delete(f.unnamable, iface)
	if e != nil && !ifaceName.MatchString(iface) {
		f.unnamable[iface] = fmt.Errorf("interface name %q: want %s and up to 12 of a-z and 0-9", iface, desired.InterfacePrefix)
		e = nil
	}
	shown := e != nil && len(familyAddrs(e, f.cfg.Family)) > 0
	wasShown := old != nil && len(familyAddrs(old, f.cfg.Family)) > 0
	if e != nil {
		f.endpoints[iface] = e
	}
	// New references first, so that a chain in use by both is not touched.
	if shown {
		for id := range references(e) {
			f.use(id, iface)
		}
		f.filter.set(fromPod(e, f.cfg.Family))
		f.filter.set(toPod(e, f.cfg.Family))
	}
	if wasShown {
		keep := map[ir.ProgramID]struct{}{}
		if shown {
			keep = references(e)
		} else {
			f.filter.unset(fromPrefix + iface)
			f.filter.unset(toPrefix + iface)
		}
		for id := range references(old) {
			if _, ok := keep[id]; !ok {
				f.release(id, iface)
			}
		}
	}
	f.moved = f.moved || shown != wasShown
}

func references(e *desired.Endpoint) map[ir.ProgramID]struct{} {
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

func (f *Firewall) use(id ir.ProgramID, iface string) {
	if f.users[id] == nil {
		f.users[id] = map[string]struct{}{}
		f.programBy[programChain(id)] = id
		f.filter.set(programOf(id, f.programs[id], f.cfg.Family))
	}
	f.users[id][iface] = struct{}{}
}

func (f *Firewall) release(id ir.ProgramID, iface string) {
	delete(f.users[id], iface)
	if len(f.users[id]) == 0 {
		delete(f.users, id)
		delete(f.programBy, programChain(id))
		f.filter.unset(programChain(id))
	}
}

// Resync reads our chains back.
func (f *Firewall) Resync(ctx context.Context) error {
	if f.tool.flavour == Auto {
		flavour, err := Detect(ctx)
		if err != nil {
			return err
		}
		f.tool.flavour = flavour
		f.cfg.Log.Info("iptables flavour detected", "family", int(f.cfg.Family), "flavour", string(flavour))
	}
	if err := errors.Join(f.raw.read(ctx), f.filter.read(ctx)); err != nil {
		return err
	}
	if !f.read && !f.complete {
		for name := range f.filter.have.chains {
			if closable.MatchString(name) {
				f.inherited[name] = struct{}{}
			}
		}
	}
	f.read, f.moved = true, true
	return nil
}

// Apply writes what differs: the guard against forged sources first, then the
// rest, each table in one transaction.
func (f *Firewall) Apply(ctx context.Context) error {
	if !f.read {
		if err := f.Resync(ctx); err != nil {
			return err
		}
	}
	f.plant()
	all := scope{sweep: f.complete, leave: func(string) bool { return false }}
	if err := f.raw.apply(ctx, all); err != nil {
		return err
	}
	errs := []error{f.filter.apply(ctx, scope{sweep: f.complete, leave: f.frozen})}
	for _, iface := range slices.Sorted(maps.Keys(f.unnamable)) {
		errs = append(errs, f.unnamable[iface])
	}
	return errors.Join(errs...)
}

// plant makes the tries. Until all is known they also lead to the chains that are
// in the kernel already: those pods run.
func (f *Firewall) plant() {
	if !f.moved {
		return
	}
	f.moved = false
	known := map[string]struct{}{}
	for iface, e := range f.endpoints {
		if len(familyAddrs(e, f.cfg.Family)) > 0 {
			known[iface] = struct{}{}
		}
	}
	if !f.complete {
		for name := range f.filter.have.chains {
			if iface, ok := strings.CutPrefix(name, fromPrefix); ok {
				known[iface] = struct{}{}
			}
		}
	}
	old := f.tries
	f.tries = map[string]struct{}{}
	for _, c := range dispatch(slices.Sorted(maps.Keys(known))) {
		f.tries[c.name] = struct{}{}
		f.filter.set(c)
	}
	for name := range old {
		if _, ok := f.tries[name]; !ok {
			f.filter.unset(name)
		}
	}
}

// frozen reports whether a chain stays as an earlier life of the agent left it.
// The chains of an endpoint do while they are of the same attachment, which their
// first rule tells.
func (f *Firewall) frozen(name string) bool {
	if _, ok := f.inherited[name]; !ok {
		return false
	}
	have, there := f.filter.have.chains[name]
	if !there {
		return false
	}
	if strings.HasPrefix(name, fromPrefix) || strings.HasPrefix(name, toPrefix) {
		want, wanted := f.filter.want[name]
		return !wanted || len(have) > 0 && have[0] == want.hashes[0]
	}
	return true
}

var errPending = errors.New("rules are not in the kernel yet")

// Closed returns the endpoints whose rules, or whose policies' rules, are not in
// the kernel as they should be.
func (f *Firewall) Closed() map[string]error {
	closed := maps.Clone(f.unnamable)
	blame := func(iface string, err error) {
		if _, wanted := f.endpoints[iface]; wanted && closed[iface] == nil {
			closed[iface] = err
		}
	}
	if !f.read || !f.raw.hooked() || !f.filter.hooked() || len(f.raw.dirty) > 0 {
		for iface := range f.endpoints {
			blame(iface, errPending)
		}
	}
	for name := range f.filter.dirty {
		if f.frozen(name) {
			continue
		}
		err := errPending
		if refused := f.filter.refused[name]; refused != nil {
			err = fmt.Errorf("chain %s: %w", name, refused)
		}
		_, wanted := f.filter.want[name]
		switch {
		case !wanted: // a leftover harms nobody
		case strings.HasPrefix(name, fromPrefix):
			blame(strings.TrimPrefix(name, fromPrefix), err)
		case strings.HasPrefix(name, toPrefix):
			blame(strings.TrimPrefix(name, toPrefix), err)
		case f.programBy[name] != ir.ProgramID{}:
			for iface := range f.users[f.programBy[name]] {
				blame(iface, err)
			}
		default: // a chain that all go through
			for iface := range f.endpoints {
				blame(iface, err)
			}
		}
	}
	return closed
}
