package selector

// Selector is a predicate over labels. It is immutable and used by pointer; a
// nil *Selector is valid everywhere and selects everything.
type Selector struct {
	root  *node
	hooks [][]Hook
}

// newSelector takes a canonical node.
func newSelector(n *node) *Selector { return &Selector{root: n, hooks: n.hooks()} }

func (s *Selector) node() *node {
	if s == nil {
		return allNode
	}
	return s.root
}

// All selects everything.
func All() *Selector { return newSelector(allNode) }

// Equals selects what has the label key with exactly this value.
func Equals(key, value string) *Selector { return In(key, value) }

// NotEquals selects what has no label key, or has it with another value.
func NotEquals(key, value string) *Selector { return NotIn(key, value) }

// In selects what has the label key with one of the values; with no values it selects nothing.
func In(key string, values ...string) *Selector { return newSelector(setNode(key, values, false)) }

// NotIn selects what has no label key, or has it with none of the values.
func NotIn(key string, values ...string) *Selector { return newSelector(setNode(key, values, true)) }

// Has selects what has the label key, whatever its value.
func Has(key string) *Selector { return newSelector(leafNode(has, key, "")) }

// Not selects what s does not.
func Not(s *Selector) *Selector { return newSelector(s.node().negated()) }

// And selects what every one of the selectors selects; with no selectors, everything.
func And(selectors ...*Selector) *Selector { return newSelector(join(and, nodes(selectors))) }

// Or selects what at least one of the selectors selects; with no selectors, nothing.
func Or(selectors ...*Selector) *Selector { return newSelector(join(or, nodes(selectors))) }

func nodes(selectors []*Selector) []*node {
	ns := make([]*node, len(selectors))
	for i, s := range selectors {
		ns[i] = s.node()
	}
	return ns
}

// String returns the canonical text, which identifies the selector. Parse reads
// it back to an equal selector, unless it is longer than MaxLength or names a
// label or value that the language cannot quote: such a word appears as \ and a
// Go string literal, which keeps the text unique but cannot be parsed.
func (s *Selector) String() string { return s.node().text }

// Equal reports whether both have the same canonical text.
func (s *Selector) Equal(o *Selector) bool { return s.String() == o.String() }

// IsAll reports whether s selects everything by its form, whatever the labels.
func (s *Selector) IsAll() bool { return s.node() == allNode }

// Matches reports whether s selects a thing with these labels. global() is
// false here: things with labels of their own kind live in namespaces.
func (s *Selector) Matches(l Labels) bool { return s == nil || s.root.matches(l) }

// Hooks returns alternatives: each is a list of hooks of which at least one is
// present on everything that s selects, so an index may use whichever
// alternative is the rarest. nil means that s has no hook (a purely negative
// selector, or all()), and every thing must be asked. An alternative that is
// empty means that s selects nothing. The result is shared: do not change it.
func (s *Selector) Hooks() [][]Hook {
	if s == nil {
		return nil
	}
	return s.hooks
}
