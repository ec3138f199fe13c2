package nftables

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/kernel/nlsock"
)

// Feature is something that a kernel may lack: a rule that it has to take.
type Feature struct {
	Name string // in words
	Base Hook   // of the chain that the rule is tried in; zero for one without hook
	Rule Rule
}

// probeTable is the name of a table that never comes to be.
const probeTable = "korat-probe"

// Probe asks the kernel whether it has what every Table needs, and features
// besides. The error names all that is missing, and the kernel. Nothing is
// changed: the kernel is asked by a transaction that cannot succeed.
func Probe(_ context.Context, family Family, features ...Feature) error {
	conn, err := nlsock.Open(unix.NETLINK_NETFILTER)
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	defer conn.Close()
	p := &probe{table: Table{family: family, name: probeTable}}
	p.ask(fmt.Sprintf("tables (NF_TABLES) of family %d", family), func(m *nlsock.Messages) { p.table.newTable(m) })
	p.askBasics()
	for i, f := range features {
		p.askFeature(fmt.Sprint("feature", i), f)
	}
	p.ask("", func(m *nlsock.Messages) { p.table.delChain(m, "no such chain") })
	refusals, err := conn.Commit(subsystem, 0, p.messages.Bytes())
	if err != nil {
		return fmt.Errorf("nftables: ask the kernel of %s: %w", release(), err)
	}
	missing := p.errs
	for _, r := range refusals {
		if what := p.about[r.Index]; what != "" {
			missing = append(missing, fmt.Errorf("%s has no %s: %w", release(), what, r.Err))
		}
	}
	return errors.Join(missing...)
}

// probe is the transaction under construction.
type probe struct {
	table    Table
	messages nlsock.Messages
	about    []string // what each message asks for
	errs     []error  // what cannot even be asked
}

// ask adds messages that succeed where there is such a thing.
func (p *probe) ask(what string, add func(*nlsock.Messages)) {
	add(&p.messages)
	for len(p.about) < p.messages.Count() {
		p.about = append(p.about, what)
	}
}

// askBasics asks for the kinds of sets and maps.
func (p *probe) askBasics() {
	for i, set := range []struct {
		what string
		header
	}{
		{"sets", setHeader([]Field{IPv4Addr}, false)},
		{"sets of prefixes", setHeader([]Field{IPv4Addr}, true)},
		{"sets of addresses with ports", setHeader([]Field{IPv6Addr, L4Proto, L4Port}, false)},
		{"verdict maps by interface", mapHeader([]Field{IfName})},
	} {
		p.ask(set.what, func(m *nlsock.Messages) { p.table.newSetMessage(m, fmt.Sprint("set", i), set.header) })
	}
	p.askFeature("basics", Feature{"lookups in verdict maps", Hook{Type: Filter, Number: Forward}, Rule{Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1}, &expr.Lookup{SourceRegister: 1, SetName: "set3", IsDestRegSet: true},
	}}})
}

func (p *probe) askFeature(name string, f Feature) {
	var scratch nlsock.Messages
	c, _ := encode(f.Base, []Rule{f.Rule}, nil, &scratch)
	if c.err != nil {
		p.errs = append(p.errs, fmt.Errorf("%s: %w", f.Name, c.err))
	}
	p.ask(f.Name, func(m *nlsock.Messages) {
		p.table.newChain(m, name, f.Base)
		p.table.newRules(m, name, c)
	})
}

// release names the kernel.
func release() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "this kernel"
	}
	return unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:])
}
