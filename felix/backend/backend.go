// Package backend knows the data planes that a node can have: which of them
// settings ask for, of which something is in the kernel, and of what parts each
// is made. felix/agent hands it to felix/apply, which runs the parts and switches
// from one plane to another. It writes nothing to the kernel itself.
//
//	plane      parts
//	IPTables   ipset, iptables
//	NFTables   nft
package backend

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/koratnet/korat/felix/apply"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/iptables"
	"github.com/koratnet/korat/felix/kernel/ipset"
	"github.com/koratnet/korat/felix/nft"
	"github.com/koratnet/korat/policy/ir"
)

// The parts.
const (
	setsPart   = "ipset"
	tablesPart = "iptables"
	nftPart    = "nft"
)

// The planes have the names that settings have for them.
var (
	ipTables = apply.Plane{Name: string(desired.IPTables), Parts: []string{setsPart, tablesPart}}
	nfTables = apply.Plane{Name: string(desired.NFTables), Parts: []string{nftPart}}
)

// Planes implements apply.Planes for the network namespace of the thread that
// calls it.
type Planes struct{ log *slog.Logger }

// New returns the planes of a node.
func New(log *slog.Logger) *Planes { return &Planes{log} }

// Choose implements apply.Planes.
func (p *Planes) Choose(_ context.Context, s desired.Settings) (apply.Plane, string) {
	switch s.Backend {
	case desired.NFTables:
		return nfTables, "a NodeConfiguration asks for it"
	case desired.IPTables:
		return ipTables, "a NodeConfiguration asks for it"
	}
	switch found, err := ProxyUsesNFTables(); {
	case found:
		return nfTables, "kube-proxy has its table in nf_tables"
	case err != nil:
		return ipTables, fmt.Sprintf("whether kube-proxy has a table in nf_tables cannot be read: %v", err)
	}
	return ipTables, "kube-proxy has no table in nf_tables"
}

// The phases of parts among those of felix/agent's loop over the kernel: what is
// added comes before the rules that refer to it, what is removed after them.
const (
	Added = iota + 1
	Rules
	Connections // no part of a data plane: what changes hands begins anew
	Routes      // nor this: the gate stands before it
	Removed
)

// Make implements apply.Planes.
func (p *Planes) Make(part string) (apply.Part, error) {
	switch part {
	case setsPart:
		return sets()
	case tablesPart:
		return p.firewalls(), nil
	case nftPart:
		return nftables()
	}
	panic("bug: unknown part of a data plane: " + part)
}

func sets() (apply.Part, error) {
	s, err := ipset.New()
	if err != nil {
		return apply.Part{}, err
	}
	return apply.Part{
		Phases: []apply.Phase{Added: {ipset.Adder{Sets: s}}, Removed: {ipset.Remover{Sets: s}}},
		Uninstall: func(ctx context.Context) error {
			if err := s.Uninstall(ctx); err != nil {
				return err
			}
			return s.Close()
		},
	}, nil
}

// firewalls makes those of both families. A host that cannot filter IPv6 still
// has pods that need none; which host that is does not change while it runs.
func (p *Planes) firewalls() apply.Part {
	of := func(f ir.Family, flavour iptables.Flavour) *iptables.Firewall {
		return iptables.New(iptables.Config{Family: f, Flavour: flavour, Log: p.log})
	}
	ctx := context.Background() // bounded by the programs' own time
	flavour, err := iptables.Detect(ctx)
	if err != nil { // each asks again, and says so, until it knows
		p.log.Warn("iptables flavour not detected", "err", err)
		return both(of(ir.IPv4, iptables.Auto), of(ir.IPv6, iptables.Auto))
	}
	p.log.Info("iptables flavour detected", "flavour", string(flavour))
	if why := iptables.Usable(ctx, ir.IPv6, flavour); why != nil {
		p.log.Warn("this host cannot filter IPv6: pods with an IPv6 address stay closed", "err", why)
		part := both(of(ir.IPv4, flavour), of(ir.IPv6, flavour)) // which left rules when the host still could
		part.Phases[Rules][1] = iptables.NewUnfiltered(why)
		return part
	}
	return both(of(ir.IPv4, flavour), of(ir.IPv6, flavour))
}

func both(v4, v6 *iptables.Firewall) apply.Part {
	return apply.Part{
		Phases:    []apply.Phase{Rules: {v4, v6}},
		Uninstall: func(ctx context.Context) error { return errors.Join(v4.Uninstall(ctx), v6.Uninstall(ctx)) },
	}
}

func nftables() (apply.Part, error) {
	f, err := nft.New()
	if err != nil {
		return apply.Part{}, err
	}
	return apply.Part{
		Phases: []apply.Phase{Rules: {f}},
		Watch:  f.Watch,
		Uninstall: func(ctx context.Context) error {
			if err := f.Uninstall(ctx); err != nil {
				return err
			}
			return f.Close()
		},
	}, nil
}
