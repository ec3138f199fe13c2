package policy

import (
	"math"
	"slices"
	"testing"

	"github.com/koratnet/korat/policy/selector"
)

func TestItem49OrderOfPolicies(t *testing.T) {
	want := []*Policy{
		{Tier: "a", Order: 5, Key: Key{Name: "z"}},
		{Tier: AdminTier, Order: 9, Key: Key{Name: "a"}},
		{Tier: "default", Order: 1, Key: Key{Name: "z"}},
		{Tier: "default", Order: 2, Key: Key{Name: "a", Namespace: "y"}},
		{Tier: "default", Order: 2, Key: Key{Name: "b", Namespace: "x"}},
		{Tier: "default", Order: 2, Key: Key{Name: "b", Namespace: "y"}},
		{Tier: "default", Order: 2, Key: Key{Kind: NetworkPolicy, Name: "b", Namespace: "y"}},
		{Tier: "default", Order: math.Inf(1), Key: Key{Name: "a"}},
		{Tier: BaselineTier, Order: 0, Key: Key{Name: "a"}},
		{Tier: "b", Order: 0, Key: Key{Name: "a"}},
		{Tier: "nobody defined", Order: 0, Key: Key{Name: "a"}},
	}
	got := slices.Clone(want)
	slices.Reverse(got)
	slices.SortFunc(got, Tiers{"a": {Order: 5}, "b": {Order: math.Inf(1)}}.Compare)
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

func TestTiers(t *testing.T) {
	tiers := Tiers{"a": {Order: 7, End: Pass}, "b": {End: Log}, DefaultTier: {Order: 1, End: Pass}, AdminTier: {Order: 9, End: Deny}}
	for name, want := range map[string]Tier{
		"a":          {Name: "a", Order: 7, End: Pass},
		"b":          {Name: "b"},
		"c":          {Name: "c", Order: math.Inf(1)},
		DefaultTier:  {Name: DefaultTier, Order: 1_000_000},
		AdminTier:    {Name: AdminTier, Order: 1000, End: Pass},
		BaselineTier: {Name: BaselineTier, Order: 10_000_000, End: Pass},
	} {
		if got := tiers.Get(name); got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
}

func TestScopeOfOneKind(t *testing.T) {
	app := selector.Equals("app", "db")
	s := Scope{Namespace: "shop", Pods: app, Things: Pods | HostEndpoints}
	for kind, want := range map[Things]Scope{
		Pods:          {Namespace: "shop", Pods: app},
		HostEndpoints: {Pods: app},
	} {
		if got, ok := s.For(kind); !ok || got != want {
			t.Errorf("%s: %s, %v; want %s", kind, got, ok, want)
		}
	}
	if got, ok := s.For(NetworkSets); ok {
		t.Errorf("network sets are selected by %s", got)
	}
	if _, ok := (Scope{}).For(Pods); !ok {
		t.Error("a scope that says nothing does not select pods")
	}
}

func TestServiceAccountsAreLabels(t *testing.T) {
	l := PodLabels(selector.MakeLabels(map[string]string{"z": "1", "a": "2"}), "builder", selector.MakeLabels(map[string]string{"team": "ops"}))
	for text, want := range map[string]bool{
		"":               true,
		"team == 'ops'":  true,
		"team == 'shop'": false,
		"z == '1'":       false, // a label of the pod, not of the account
		"!has(team)":     false,
	} {
		s, err := selector.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := Account(nil, s).Matches(l); got != want {
			t.Errorf("account %q: %v, want %v", text, got, want)
		}
	}
	if !Account([]string{"x", "builder"}, nil).Matches(l) || Account([]string{"x"}, nil).Matches(l) {
		t.Error("accounts are not told by their names")
	}
	if Account(nil, selector.Not(selector.Has("x"))).Matches(nil) {
		t.Error("a pod without a known account has one without label x")
	}
	if bare := PodLabels(nil, "", nil); bare != nil {
		t.Errorf("labels without an account: %v", bare)
	}
}
