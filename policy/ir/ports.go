package ir

import (
	"cmp"
	"slices"
)

// Merged returns the same ports in as few ranges as possible, in order.
func Merged(ranges []PortRange) []PortRange {
	sorted := slices.Clone(ranges)
	slices.SortFunc(sorted, func(a, b PortRange) int { return cmp.Compare(a.First, b.First) })
	var out []PortRange
	for _, r := range sorted {
		if r.First > r.Last {
			continue
		}
		if n := len(out); n > 0 && int(r.First) <= int(out[n-1].Last)+1 {
			out[n-1].Last = max(out[n-1].Last, r.Last)
			continue
		}
		out = append(out, r)
	}
	return out
}
