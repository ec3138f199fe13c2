package nftables

import "iter"

// Found yields the chains, sets and maps that are in the kernel, as far as that
// is known: as of the last Resync, and what Apply has made since.
func (t *Table) Found() iter.Seq[Object] {
	return func(yield func(Object) bool) {
		for name, c := range t.chains {
			if c.have != nil && !yield(Object{Kind: AChain, Name: name}) {
				return
			}
		}
		for name, s := range t.sets {
			if s.have != nil && !yield(Object{Kind: s.kind, Name: name}) {
				return
			}
		}
	}
}

// Settled reports whether nothing is left to write: what is wanted and may be
// there is in the kernel, and what the kernel refused is named by Refused.
func (t *Table) Settled() bool {
	return t.known && len(t.dirtyChains) == 0 && len(t.dirtySets) == 0
}
