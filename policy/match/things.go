package match

import (
	"iter"

	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/selector"
)

// Things indexes things by their labels and namespaces. K is whatever the owner
// calls a thing by: a key, or a pointer to save a second lookup.
type Things[K comparable] struct {
	ids        map[K]uint32
	things     table[thing[K]]
	namespaces map[string]*namespace
	known      table[*namespace] // those whose labels are known
}

// thing is what a row of the table of things holds.
type thing[K comparable] struct {
	key K
	ns  *namespace
	at  uint32 // where it is in ns.things
}

// namespace exists as long as it is known or has things.
type namespace struct {
	name   string
	known  bool
	row    uint32   // in Things.known, when known
	things []uint32 // rows in Things.things, in no order
}

// NewThings returns an empty index.
func NewThings[K comparable]() *Things[K] {
	return &Things[K]{
		ids:        map[K]uint32{},
		things:     newTable[thing[K]](),
		namespaces: map[string]*namespace{},
		known:      newTable[*namespace](),
	}
}

// Set adds the thing k, or moves and relabels it.
func (x *Things[K]) Set(k K, namespace string, labels selector.Labels) {
	if id, ok := x.ids[k]; ok {
		row := &x.things.rows[id]
		if row.value.ns.name == namespace {
			x.things.relabel(id, labels)
			return
		}
		x.Remove(k)
	}
	ns := x.namespace(namespace)
	id := x.things.add(thing[K]{key: k, ns: ns, at: uint32(len(ns.things))}, labels)
	ns.things = append(ns.things, id)
	x.ids[k] = id
}

// Remove forgets the thing k; it need not exist.
func (x *Things[K]) Remove(k K) {
	id, ok := x.ids[k]
	if !ok {
		return
	}
	delete(x.ids, k)
	t := x.things.rows[id].value
	last := len(t.ns.things) - 1
	moved := t.ns.things[last]
	t.ns.things[t.at] = moved
	x.things.rows[moved].value.at = t.at
	t.ns.things = t.ns.things[:last]
	x.things.remove(id)
	x.forget(t.ns)
}

// Get returns the namespace and the labels of the thing k.
func (x *Things[K]) Get(k K) (Namespace, selector.Labels, bool) {
	id, ok := x.ids[k]
	if !ok {
		return Namespace{}, nil, false
	}
	row := &x.things.rows[id]
	return x.describe(row.value.ns), row.labels, true
}

// Len returns the number of things.
func (x *Things[K]) Len() int { return len(x.ids) }

// SetNamespace says which labels the namespace has. Things need not wait for it.
func (x *Things[K]) SetNamespace(name string, labels selector.Labels) {
	ns := x.namespace(name)
	if ns.known {
		x.known.relabel(ns.row, labels)
		return
	}
	ns.known, ns.row = true, x.known.add(ns, labels)
}

// RemoveNamespace makes the namespace unknown; its things stay until they are removed.
func (x *Things[K]) RemoveNamespace(name string) {
	ns := x.namespaces[name]
	if ns == nil || !ns.known {
		return
	}
	ns.known = false
	x.known.remove(ns.row)
	x.forget(ns)
}

// Namespace returns what is known of a namespace.
func (x *Things[K]) Namespace(name string) Namespace {
	if ns := x.namespaces[name]; ns != nil {
		return x.describe(ns)
	}
	return Namespace{Name: name}
}

// In iterates the things of one namespace.
func (x *Things[K]) In(namespace string) iter.Seq[K] {
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
func (x *Things[K]) Matching(scope policy.Scope) iter.Seq[K] {
	return func(yield func(K) bool) {
		everywhere := scope.Namespace == "" && scope.Namespaces.IsAll()
		total := len(x.ids)
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
			for _, id := range x.ids {
				if !visit(id) {
					return
				}
			}
		default:
			x.eachIn(inside, visit)
		}
	}
}

func (x *Things[K]) eachIn(inside map[*namespace]struct{}, visit func(uint32) bool) {
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
func (x *Things[K]) selected(scope policy.Scope) map[*namespace]struct{} {
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

func (x *Things[K]) describe(ns *namespace) Namespace {
	n := Namespace{Name: ns.name, Known: ns.known}
	if ns.known {
		n.Labels = x.known.rows[ns.row].labels
	}
	return n
}

func (x *Things[K]) namespace(name string) *namespace {
	ns := x.namespaces[name]
	if ns == nil {
		ns = &namespace{name: name}
		x.namespaces[name] = ns
	}
	return ns
}

func (x *Things[K]) forget(ns *namespace) {
	if !ns.known && len(ns.things) == 0 {
		delete(x.namespaces, ns.name)
	}
}
