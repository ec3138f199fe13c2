package whatif

import (
	"slices"

	"github.com/koratnet/korat/policy/eval"
)

// Lone are pods of which only one of two clusters knows. Their traffic is not
// compared, because there is nothing to compare it with.
type Lone struct {
	Gone  []string `json:"gone"`  // known before
	Added []string `json:"added"` // known after
}

// Alone returns the pods, by namespace/name, that only one of the clusters has.
func Alone(before, after *eval.Cluster) Lone {
	was, is := podNames(before), podNames(after)
	return Lone{Gone: without(was, is), Added: without(is, was)}
}

// podNames returns the names of all pods, sorted.
func podNames(c *eval.Cluster) []string {
	names := make([]string, 0, len(c.Pods))
	for i := range c.Pods {
		names = append(names, c.Pods[i].Namespace+"/"+c.Pods[i].Name)
	}
	slices.Sort(names)
	return names
}

// without returns what of names is not among others; both are sorted.
func without(names, others []string) []string {
	out := []string{}
	for _, n := range names {
		if _, found := slices.BinarySearch(others, n); !found {
			out = append(out, n)
		}
	}
	return out
}
