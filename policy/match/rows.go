package match

import (
	"iter"
	"slices"

	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/selector"
)

// Rows indexes things by their labels and namespaces, for an owner who remembers
// the row of each. K is whatever it calls a thing by: usually a pointer to all
// that it knows of it, so that who finds a thing need not look it up.
type Rows[K any] struct {
	len        int
	things     table[thing[K]]
	namespaces map[string]*namespace
	known      table[*namespace] // those whose labels are known
}

// Row is where a thing is, from Add until Remove.
type Row uint32

// thing is what a row of the table of things holds.
type thing[K any] struct {
	key K
	ns  *namespace // nil: the row is free
	at  uint32     // where it is in ns.things
}

// namespace exists as long as it is known or has things.
type namespace struct {
	name   string
	known  bool
	row    uint32   // in Rows.known, when known
	things []uint32 // rows in Rows.things, in no order
}

// NewRows returns an empty index.
func NewRows[K any]() *Rows[K] {
	return &Rows[K]{
		things:     newTable[thing[K]](),
		namespaces: map[string]*namespace{},
		known:      newTable[*namespace](),
	}
}

// Grow makes room for n more things.
func (x *Rows[K]) Grow(n int) { x.things.rows = slices.Grow(x.things.rows, n) }

// Add adds the thing k.
func (x *Rows[K]) Add(k K, namespace string, labels selector.Labels) Row {
	ns := x.namespace(namespace)
	id := x.things.add(thing[K]{key: k, ns: ns, at: uint32(len(ns.things))}, labels)
	ns.things = append(ns.things, id)
	x.len++
	return Row(id)
}

// Change says that the thing at row r is now k, and relabelled or moved.
func (x *Rows[K]) Change(r Row, k K, namespace string, labels selector.Labels) Row {
	row := &x.things.rows[r]
	if row.value.ns.name != namespace {
		x.Remove(r)
		return x.Add(k, namespace, labels)
	}
	row.value.key = k
	x.things.relabel(uint32(r), labels)
	return r
}

// Remove forgets the thing at row r.
func (x *Rows[K]) Remove(r Row) {
	t := x.things.rows[r].value
	last := len(t.ns.things) - 1
	moved := t.ns.things[last]
	t.ns.things[t.at] = moved
	x.things.rows[moved].value.at = t.at
	t.ns.things = t.ns.things[:last]
	x.things.remove(uint32(r))
	x.len--
	x.forget(t.ns)
}

// Get returns the namespace and the labels of the thing at row r.
func (x *Rows[K]) Get(r Row) (Namespace, selector.Labels) {
	row := &x.things.rows[r]
	return x.describe(row.value.ns), row.labels
}

// Len returns the number of things.
func (x *Rows[K]) Len() int { return x.len }

// SetNamespace says which labels the namespace has. Things need not wait for it.
func (x *Rows[K]) SetNamespace(name string, labels selector.Labels) {
	ns := x.namespace(name)
	if ns.known {
		x.known.relabel(ns.row, labels)
		return
	}
	ns.known, ns.row = true, x.known.add(ns, labels)
}

// RemoveNamespace makes the namespace unknown; its things stay until they are removed.
func (x *Rows[K]) RemoveNamespace(name string) {
	ns := x.namespaces[name]
	if ns == nil || !ns.known {
		return
	}
	ns.known = false
	x.known.remove(ns.row)
	x.forget(ns)
}

// Namespace returns what is known of a namespace.
func (x *Rows[K]) Namespace(name string) Namespace {
	if ns := x.namespaces[name]; ns != nil {
		return x.describe(ns)
	}
	return Namespace{Name: name}
}

// In iterates the things of one namespace.
func (x *Rows[K]) In(namespace string) iter.Seq[K] {
	return func(yield func(K) bool) {
		if ns := x.namespaces[namespace]; ns != nil {
			for _, id := range ns.things {
				if !yield(x.things.rows[id].value.key) {
					return
				}
			}
		}
	}
}

// Matching iterates the things that scope selects, each once, in no order. It
// visits the things that carry the rarest hook of scope, or those of the
// namespaces that scope selects, whichever are fewer.
func (x *Rows[K]) Matching(scope policy.Scope) iter.Seq[K] {
	return func(yield func(K) bool) {
		everywhere := scope.Namespace == "" && scope.Namespaces.IsAll()
		total := x.len
		var inside map[*namespace]struct{}
		if !everywhere {
			inside = x.selected(scope)
			total = 0
			for ns := range inside {
				total += len(ns.things)
			}
		}
		hooks, n, hooked := x.things.rarest(scope.Pods)
		visit := func(id uint32) bool {
			row := &x.things.rows[id]
			return !scope.Pods.Matches(row.labels) || yield(row.value.key)
		}
		switch {
		case hooked && (n < total || everywhere):
			x.things.each(hooks, func(id uint32) bool {
				_, in := inside[x.things.rows[id].value.ns]
				return !in && !everywhere || visit(id)
			})
		case everywhere:
			for id := range x.things.rows {
				if x.things.rows[id].value.ns != nil && !visit(uint32(id)) {
					return
				}
			}
		default:
			x.eachIn(inside, visit)
		}
	}
}

func (x *Rows[K]) eachIn(inside map[*namespace]struct{}, visit func(uint32) bool) {
	for ns := range inside {
		for _, id := range ns.things {
			if !visit(id) {
				return
			}
		}
	}
}

// selected returns the namespaces that the namespace part of scope selects,
// where that part is not everywhere.
func (x *Rows[K]) selected(scope policy.Scope) map[*namespace]struct{} {
	inside := map[*namespace]struct{}{}
	if scope.Namespace != "" {
		if ns := x.namespaces[scope.Namespace]; ns != nil {
			inside[ns] = struct{}{}
		}
		return inside
	}
	visit := func(id uint32) bool {
		if row := &x.known.rows[id]; scope.Namespaces.Matches(row.labels) {
			inside[row.value] = struct{}{}
		}
		return true
	}
	if hooks, _, hooked := x.known.rarest(scope.Namespaces); hooked {
		x.known.each(hooks, visit)
		return inside
	}
	for _, ns := range x.namespaces { // a purely negative selector: ask each
		if ns.known {
			visit(ns.row)
		}
	}
	return inside
}

func (x *Rows[K]) describe(ns *namespace) Namespace {
	n := Namespace{Name: ns.name, Known: ns.known}
	if ns.known {
		n.Labels = x.known.rows[ns.row].labels
	}
	return n
}

func (x *Rows[K]) namespace(name string) *namespace {
	ns := x.namespaces[name]
	if ns == nil {
		ns = &namespace{name: name}
		x.namespaces[name] = ns
	}
	return ns
}

func (x *Rows[K]) forget(ns *namespace) {
	if !ns.known && len(ns.things) == 0 {
		delete(x.namespaces, ns.name)
	}
}
