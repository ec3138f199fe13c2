package match

import (
	"fmt"
	"iter"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/selector"
)

// world is the obvious model: what the indexes hold, in plain maps.
type world struct {
	things     map[string]plainThing
	namespaces map[string]selector.Labels
	scopes     map[int]policy.Scope
}

type plainThing struct {
	namespace string
	labels    selector.Labels
}

func (w *world) namespace(name string) Namespace {
	l, known := w.namespaces[name]
	return Namespace{Name: name, Labels: l, Known: known}
}

var (
	genName  = rapid.SampledFrom([]string{"n0", "n1", "n2", "n3"})
	genKey   = rapid.SampledFrom([]string{"a", "b", "c"})
	genValue = rapid.SampledFrom([]string{"x", "y", "z"})
	genText  = rapid.SampledFrom([]string{
		"", "!all()", "a == 'x'", "a in {'x','y'}", "has(b)", "has(b) && a == 'x'", "a != 'x'", "!has(c)",
		"a == 'x' || has(b)", "a == 'x' || b in {'y','z'} || has(c)", "c starts with 'x'", "has(a) && b != 'y'",
		"a == 'x' || b != 'y'", "has(a) || has(b) || has(c)",
	})
)

func drawLabels(t *rapid.T) selector.Labels {
	return selector.MakeLabels(rapid.MapOf(genKey, genValue).Draw(t, "labels"))
}

func drawSelector(t *rapid.T, name string) *selector.Selector {
	if rapid.IntRange(0, 4).Draw(t, name+" nil") == 0 {
		return nil
	}
	s, err := selector.Parse(genText.Draw(t, name))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func drawScope(t *rapid.T) policy.Scope {
	s := policy.Scope{Pods: drawSelector(t, "pods")}
	if rapid.Bool().Draw(t, "one namespace") {
		s.Namespace = genName.Draw(t, "namespace")
	} else {
		s.Namespaces = drawSelector(t, "namespaces")
	}
	return s
}

func TestIndexesAgreeWithTheObviousModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{map[string]plainThing{}, map[string]selector.Labels{}, map[int]policy.Scope{}}
		things, scopes := NewThings[string](), NewScopes[int]()
		t.Repeat(map[string]func(*rapid.T){
			"set thing": func(t *rapid.T) {
				k := fmt.Sprint(rapid.IntRange(0, 8).Draw(t, "thing"))
				p := plainThing{genName.Draw(t, "namespace"), drawLabels(t)}
				w.things[k] = p
				things.Set(k, p.namespace, p.labels)
			},
			"remove thing": func(t *rapid.T) {
				k := fmt.Sprint(rapid.IntRange(0, 8).Draw(t, "thing"))
				delete(w.things, k)
				things.Remove(k)
			},
			"set namespace": func(t *rapid.T) {
				name, l := genName.Draw(t, "namespace"), drawLabels(t)
				checkMoved(t, w, scopes, w.namespace(name), Namespace{Name: name, Labels: l, Known: true})
				w.namespaces[name] = l
				things.SetNamespace(name, l)
			},
			"remove namespace": func(t *rapid.T) {
				name := genName.Draw(t, "namespace")
				checkMoved(t, w, scopes, w.namespace(name), Namespace{Name: name})
				delete(w.namespaces, name)
				things.RemoveNamespace(name)
			},
			"set scope": func(t *rapid.T) {
				id := rapid.IntRange(0, 8).Draw(t, "scope")
				w.scopes[id] = drawScope(t)
				scopes.Set(id, w.scopes[id])
			},
			"remove scope": func(t *rapid.T) {
				id := rapid.IntRange(0, 8).Draw(t, "scope")
				delete(w.scopes, id)
				scopes.Remove(id)
			},
			"": func(t *rapid.T) { check(t, w, things, scopes) },
		})
		for k := range w.things {
			things.Remove(k)
		}
		for name := range w.namespaces {
			things.RemoveNamespace(name)
		}
		for id := range w.scopes {
			scopes.Remove(id)
		}
		checkEmpty(t, things, scopes)
	})
}

func check(t *rapid.T, w *world, things *Things[string], scopes *Scopes[int]) {
	t.Helper()
	asked := slices.Collect(maps.Values(w.scopes))
	asked = append(asked, drawScope(t), policy.Scope{})
	for _, s := range asked {
		var want []string
		for k, p := range w.things {
			if Matches(s, w.namespace(p.namespace), p.labels) {
				want = append(want, k)
			}
		}
		same(t, "things of "+s.String(), want, things.Matching(s))
	}
	for k, p := range w.things {
		var want []int
		for id, s := range w.scopes {
			if Matches(s, w.namespace(p.namespace), p.labels) {
				want = append(want, id)
			}
		}
		ns, labels, ok := things.Get(k)
		if diff := cmp.Diff(w.namespace(p.namespace), ns, cmp.Comparer(selector.Labels.Equal)); diff != "" || !ok || !labels.Equal(p.labels) {
			t.Fatalf("Get(%s): %v, labels %v want %v, namespace %s", k, ok, labels, p.labels, diff)
		}
		same(t, "scopes of "+k, want, scopes.Matching(ns, labels))
	}
	for _, name := range []string{"n0", "n1", "n2", "n3"} {
		var want []string
		for k, p := range w.things {
			if p.namespace == name {
				want = append(want, k)
			}
		}
		same(t, "things in "+name, want, things.In(name))
	}
	if things.Len() != len(w.things) || scopes.Len() != len(w.scopes) {
		t.Fatalf("%d things, %d scopes; want %d, %d", things.Len(), scopes.Len(), len(w.things), len(w.scopes))
	}
}

// checkMoved wants Moved to name exactly the scopes whose namespace part tells the two apart.
func checkMoved(t *rapid.T, w *world, scopes *Scopes[int], before, after Namespace) {
	t.Helper()
	want := map[int]bool{}
	for id, s := range w.scopes {
		if in := InNamespace(s, after); in != InNamespace(s, before) {
			want[id] = in
		}
	}
	got := map[int]bool{}
	for id, in := range scopes.Moved(before, after) {
		if _, twice := got[id]; twice {
			t.Fatalf("scope %d moved twice", id)
		}
		got[id] = in
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("from %v to %v (-want +got):\n%s", before, after, diff)
	}
}

// checkEmpty wants nothing to remain of what was removed.
func checkEmpty(t *rapid.T, things *Things[string], scopes *Scopes[int]) {
	t.Helper()
	left := len(things.namespaces) + len(things.things.byPair) + len(things.things.byKey) +
		len(things.known.byPair) + len(things.known.byKey) + len(scopes.named) + len(scopes.selected) +
		scopes.everywhere.len() + scopes.byHook.len() + len(scopes.byHook.byPair) + len(scopes.byHook.byKey)
	if left != 0 {
		t.Fatalf("%d entries of empty indexes are left", left)
	}
}

func same[V int | string](t *rapid.T, what string, want []V, got iter.Seq[V]) {
	t.Helper()
	slices.Sort(want)
	sorted := slices.Sorted(got)
	if !slices.Equal(want, sorted) {
		t.Fatalf("%s: %v, want %v", what, sorted, want)
	}
}

func TestIteratorsStop(t *testing.T) {
	things, scopes := NewThings[int](), NewScopes[int]()
	texts := []string{"", "has(a)", "a == 'x'", "!has(z)"}
	for i := range 20 {
		things.Set(i, "n", selector.MakeLabels(map[string]string{"a": "x"}))
		s, err := selector.Parse(texts[i%len(texts)])
		if err != nil {
			t.Fatal(err)
		}
		scopes.Set(i, policy.Scope{Pods: s})
		scopes.Set(100+i, policy.Scope{Namespaces: s, Pods: s})
	}
	stops := func(name string, seq iter.Seq[int]) {
		t.Helper()
		all := len(slices.Collect(seq))
		for n := 1; n <= all; n++ {
			seen := 0
			for range seq {
				if seen++; seen == n {
					break
				}
			}
			if seen != n {
				t.Errorf("%s: saw %d of %d", name, seen, n)
			}
		}
	}
	for _, text := range texts {
		s, _ := selector.Parse(text)
		stops("things "+text, things.Matching(policy.Scope{Pods: s}))
		stops("things of n "+text, things.Matching(policy.Scope{Namespace: "n", Pods: s}))
	}
	ns := Namespace{Name: "n", Known: true, Labels: selector.MakeLabels(map[string]string{"a": "x"})}
	stops("scopes", scopes.Matching(ns, ns.Labels))
	stops("moved", func(yield func(int) bool) {
		for s := range scopes.Moved(Namespace{Name: "n"}, ns) {
			if !yield(s) {
				return
			}
		}
	})
}
