package policy

import (
	"slices"
	"testing"

	"github.com/koratnet/korat/policy/selector"
)

// TestCompare covers item 49 of the order in which policies are evaluated.
func TestCompare(t *testing.T) {
	want := []*Policy{
		{Tier: "a", Order: 5, Key: Key{Name: "z"}},
		{Tier: "default", Order: 1, Key: Key{Name: "z"}},
		{Tier: "default", Order: 2, Key: Key{Name: "a", Namespace: "y"}},
		{Tier: "default", Order: 2, Key: Key{Name: "b", Namespace: "x"}},
		{Tier: "default", Order: 2, Key: Key{Name: "b", Namespace: "y"}},
	}
	got := slices.Clone(want)
	slices.Reverse(got)
	slices.SortFunc(got, Compare)
	if !slices.Equal(got, want) {
		t.Errorf("sorted to %v", got)
	}
}

func TestScopeText(t *testing.T) {
	for want, s := range map[string]Scope{
		"namespaces all(); pods all()":         {},
		"namespace shop; pods all()":           {Namespace: "shop", Pods: selector.All()},
		"namespaces a == 'b'; pods has(c)":     {Namespaces: selector.Equals("a", "b"), Pods: selector.Has("c")},
		"namespace shop; pods a in {'x', 'y'}": {Namespace: "shop", Pods: selector.In("a", "y", "x")},
	} {
		if got := s.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
