package gobgp

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/server"
)

// policy keeps a server's policy. Each change is a new program under new names
// that takes the place of the old one at once: GoBGP cannot change sets and
// statements in place without paths passing in between.
type policy struct {
	srv        *server.BgpServer
	generation int
	print      string  // of the program in force; empty: none
	inForce    program // under its names
	named      string  // the prefix of its names
	terms      map[netip.Addr]terms
}

// set makes the terms be in force for their peers.
func (p *policy) set(ctx context.Context, peers map[netip.Addr]terms, known []label) error {
	if print := compile(0, peers, known).print(); print != p.print {
		p.generation++
		next := compile(p.generation, peers, known)
		if err := p.install(ctx, next, fmt.Sprintf("%d", p.generation)); err != nil {
			return fmt.Errorf("bgp policy: %w", err)
		}
		p.print = print
	}
	p.terms = maps.Clone(peers)
	return nil
}

// install puts next into force and then forgets what was.
func (p *policy) install(ctx context.Context, next program, name string) error {
	for _, s := range next.sets {
		if err := p.srv.AddDefinedSet(ctx, &api.AddDefinedSetRequest{DefinedSet: s}); err != nil {
			return fmt.Errorf("set %s: %w", s.Name, err)
		}
	}
	err := errors.Join(
		p.assign(ctx, api.PolicyDirection_POLICY_DIRECTION_IMPORT, name+"/import", next.imports, accept),
		p.assign(ctx, api.PolicyDirection_POLICY_DIRECTION_EXPORT, name+"/export", next.exports, reject),
	)
	if err != nil {
		return err
	}
	old, oldName := p.inForce, p.named
	p.inForce, p.named = next, name
	if oldName == "" {
		return nil
	}
	return p.remove(ctx, old, oldName)
}

func (p *policy) assign(ctx context.Context, d api.PolicyDirection, name string, statements []*api.Statement, otherwise api.RouteAction) error {
	one := &api.Policy{Name: name, Statements: statements}
	if err := p.srv.AddPolicy(ctx, &api.AddPolicyRequest{Policy: one}); err != nil {
		return fmt.Errorf("add %s: %w", name, err)
	}
	err := p.srv.SetPolicyAssignment(ctx, &api.SetPolicyAssignmentRequest{Assignment: &api.PolicyAssignment{
		Direction: d, Policies: []*api.Policy{one}, DefaultAction: otherwise,
	}})
	if err != nil {
		return fmt.Errorf("assign %s: %w", name, err)
	}
	return nil
}

func (p *policy) remove(ctx context.Context, old program, name string) error {
	var errs []error
	for _, one := range []string{name + "/import", name + "/export"} {
		errs = append(errs, p.srv.DeletePolicy(ctx, &api.DeletePolicyRequest{Policy: &api.Policy{Name: one}, All: true}))
	}
	for _, s := range old.sets {
		errs = append(errs, p.srv.DeleteDefinedSet(ctx, &api.DeleteDefinedSetRequest{
			DefinedSet: &api.DefinedSet{DefinedType: s.DefinedType, Name: s.Name}, All: true,
		}))
	}
	return errors.Join(errs...)
}
