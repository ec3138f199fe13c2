package dataplanetest

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/koratnet/korat/felix/apply"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
)

// Backend is a data plane that is put to the test.
type Backend struct {
	Name string
	// New makes its reconcilers, in the phases of an apply.Loop, as a process that
	// starts does: they know nothing. It is called on a thread in the namespace of
	// the node, and so are all methods of the reconcilers, with
	// Uninstall of those that have it.
	New func() ([]apply.Phase, error)
	// Dump prints all that the backend has in the kernel of the node: the same text
	// for the same rules and sets, whatever was there before. Counters are none of it.
	Dump func(node *kerneltest.Namespace) string
}

// plane is a running backend in the namespace of a node.
type plane struct {
	node   *kerneltest.Namespace // nil: that of the calling thread
	phases []apply.Phase
	read   bool
	// between, if set, is called after every reconciler has worked.
	between func()
}

// start makes a plane of a backend.
func (b Backend) start(node *kerneltest.Namespace) (*plane, error) {
	p := &plane{node: node}
	var err error
	node.Do(func() { p.phases, err = b.New() })
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", b.Name, err)
	}
	return p, nil
}

// want applies a change, in the order of the phases.
func (p *plane) want(ctx context.Context, d desired.Delta) error {
	for _, phase := range p.phases {
		for _, r := range phase {
			var err error
			p.do(func() { err = p.run(ctx, r, d) })
			if err != nil {
				return fmt.Errorf("%s: %w", r.Name(), err)
			}
			if p.between != nil {
				p.between()
			}
		}
	}
	p.read = true
	return p.closed()
}

func (p *plane) do(f func()) {
	if p.node == nil {
		f()
		return
	}
	p.node.Do(f)
}

func (p *plane) run(ctx context.Context, r apply.Reconciler, d desired.Delta) error {
	r.Want(d)
	if !p.read {
		if err := r.Resync(ctx); err != nil {
			return fmt.Errorf("read back: %w", err)
		}
	}
	return r.Apply(ctx)
}

// closed returns an error where an endpoint is held closed.
func (p *plane) closed() error {
	var errs []error
	for _, phase := range p.phases {
		for _, r := range phase {
			if g, ok := r.(apply.Gated); ok {
				for iface, why := range g.Closed() {
					errs = append(errs, fmt.Errorf("%s: %s is closed: %w", r.Name(), iface, why))
				}
			}
		}
	}
	return errors.Join(errs...)
}

// uninstall removes all that the backend has in the kernel.
func (p *plane) uninstall(ctx context.Context) error {
	for _, phase := range slices.Backward(p.phases) {
		for _, r := range phase {
			u, ok := r.(interface{ Uninstall(context.Context) error })
			if !ok {
				continue
			}
			var err error
			p.do(func() { err = u.Uninstall(ctx) })
			if err != nil {
				return fmt.Errorf("%s: uninstall: %w", r.Name(), err)
			}
			if p.between != nil {
				p.between()
			}
		}
	}
	return nil
}
