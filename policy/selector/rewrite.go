package selector

// Prefixed returns the selector that asks for labels with prefix before their
// key wherever s asks for a label.
func (s *Selector) Prefixed(prefix string) *Selector {
	return newSelector(s.node().mapped(func(n *node) *node {
		switch n.kind {
		case all, global:
			return n
		case in:
			values := make([]string, len(n.values))
			for i, p := range n.values {
				values[i] = p.Value().Value
			}
			return setNode(prefix+n.key, values, n.not)
		}
		m := *n
		m.key = prefix + n.key
		return leaf(m)
	}))
}

// Split takes global() out of a selector of namespaces: it returns the selector
// of the namespaces that s selects, where global() is false, and whether s
// selects what has no namespace, where global() is true and nothing else is.
func (s *Selector) Split() (namespaces *Selector, outside bool) {
	inside := s.node().mapped(func(n *node) *node {
		switch {
		case n.kind != global:
			return n
		case n.not:
			return allNode
		}
		return noneNode
	})
	return newSelector(inside), s.node().mapped(func(n *node) *node {
		if n.kind == global && !n.not {
			return allNode
		}
		return noneNode
	}) == allNode
}

// IsNone reports whether s selects nothing by its form, whatever the labels.
func (s *Selector) IsNone() bool { return s.node() == noneNode }

// mapped returns n with every leaf replaced.
func (n *node) mapped(leaf func(*node) *node) *node {
	if n.kind != and && n.kind != or {
		return leaf(n)
	}
	kids := make([]*node, len(n.kids))
	for i, k := range n.kids {
		kids[i] = k.mapped(leaf)
	}
	return join(n.kind, kids)
}
