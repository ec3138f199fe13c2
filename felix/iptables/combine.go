package iptables

import "slices"

// rules says c in as few rules as it takes, the last of which have the target.
//
// Where OR-lists are few and short they are multiplied out, one rule per
// combination. Else, and wherever something is excluded, the packet carries the
// answer so far in a mark: every rule that follows may only clear it.
func (c criteria) rules(m marks, target string) []string {
	combinations := c.combined()
	switch {
	case combinations == nil:
		return c.marked(m, c.any, nil, target)
	case len(c.none) > 0:
		return c.marked(m, nil, combinations, target)
	}
	return c.final("", combinations, target)
}

// ending is rules for the last of a chain: what is excluded leaves the chain, and
// needs no mark.
func (c criteria) ending(m marks, target string) []string {
	combinations := c.combined()
	if combinations == nil {
		return c.rules(m, target)
	}
	var lines []string
	for _, excluded := range c.none {
		lines = append(lines, words(c.proto, excluded, "-j RETURN"))
	}
	return append(lines, c.final("", combinations, target)...)
}

// combined multiplies the OR-lists out; nil where that makes more rules than a mark
// does.
func (c criteria) combined() [][]string {
	combinations, block := [][]string{nil}, 1
	for _, list := range c.any {
		var longer [][]string
		for _, head := range combinations {
			for _, alternative := range list {
				longer = append(longer, append(slices.Clip(head), alternative))
			}
		}
		combinations, block = longer, block+len(list)+2
		if len(combinations) > block {
			return nil
		}
	}
	return combinations
}

// once says c so that at most one of the rules has the target for a packet: it is
// not the end of the packet's way.
func (c criteria) once(m marks, target string) []string {
	if len(c.any) > 0 {
		return c.marked(m, c.any, nil, target)
	}
	return c.rules(m, target)
}

// final writes one rule per combination.
func (c criteria) final(marked string, combinations [][]string, target string) []string {
	lines := make([]string, len(combinations))
	for i, parts := range combinations {
		lines[i] = words(c.proto, c.all, words(parts...), marked, target)
	}
	return lines
}

// marked writes a mark block for the lists and for what is excluded, and then
// the final rules, which ask for the mark.
func (c criteria) marked(m marks, lists, combinations [][]string, target string) []string {
	var lines []string
	for i, list := range lists {
		bit := m.block
		if i == 0 {
			bit = m.every
		}
		lines = append(lines, clearMark(bit))
		for _, alternative := range list {
			lines = append(lines, words(c.proto, alternative, setMark(bit)))
		}
		if i > 0 {
			lines = append(lines, words(noMark(m.block), clearMark(m.every)))
		}
	}
	if len(lists) == 0 {
		lines = append(lines, setMark(m.every))
	}
	for _, excluded := range c.none {
		lines = append(lines, words(c.proto, excluded, clearMark(m.every)))
	}
	if combinations == nil {
		combinations = [][]string{nil}
	}
	return append(lines, c.final(mark(m.every), combinations, target)...)
}
