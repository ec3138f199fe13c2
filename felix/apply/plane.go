package apply

import (
	"context"
	"slices"

	"github.com/koratnet/korat/felix/desired"
)

// Part is a piece of a data plane: reconcilers that come and go together while a
// Loop runs, when settings ask for another plane. Two planes may share a part.
type Part struct {
	// Phases stand beside those of the Loop's Config, index by index. There may be
	// fewer.
	Phases []Phase
	// Watch, if not nil, calls tell whenever somebody else changed what the part
	// keeps in the kernel, until ctx ends: the next Apply mends it. It runs on a
	// goroutine of its own, and again after an error.
	Watch func(ctx context.Context, tell func()) error
	// Uninstall removes what the part has in the kernel. It is called after the
	// last call of its reconcilers and the end of Watch, and again until it succeeds.
	Uninstall func(context.Context) error
}

// Plane names a data plane: its parts, in the order in which they need each other.
type Plane struct {
	Name  string // for people
	Parts []string
}

// Planes knows the data planes of a node; felix/agent implements it. Its methods
// are called by the goroutine of the Loop.
type Planes interface {
	// Choose returns the plane that the settings ask for, and why it is that one. A
	// Loop asks when it hears of its first settings, of another backend, and when a
	// Delta tells everything again: the answer for Auto may be another one then.
	Choose(context.Context, desired.Settings) (p Plane, why string)
	// Present returns the planes of which something is in the kernel. A Loop asks
	// once, before it makes its first part.
	Present(context.Context) ([]Plane, error)
	// Make makes a part, of which no other is in use. Its reconcilers have not been
	// used.
	Make(part string) (Part, error)
}

// with returns p and o as one.
func (p Plane) with(o Plane) Plane {
	if p.Name != "" {
		p.Name += ", "
	}
	p.Name, p.Parts = p.Name+o.Name, slices.Clone(p.Parts)
	for _, part := range o.Parts {
		if !slices.Contains(p.Parts, part) {
			p.Parts = append(p.Parts, part)
		}
	}
	return p
}

// unmade stands for a part that could not be made. It holds every endpoint closed.
type unmade struct {
	part   string
	err    error
	closed map[string]error
}

func (u unmade) Name() string                 { return u.part }
func (u unmade) Resync(context.Context) error { return u.err }
func (u unmade) Apply(context.Context) error  { return u.err }
func (u unmade) Closed() map[string]error     { return u.closed }

func (u unmade) Want(d desired.Delta) {
	for iface, ep := range d.Endpoints {
		if delete(u.closed, iface); ep != nil {
			u.closed[iface] = u.err
		}
	}
}
