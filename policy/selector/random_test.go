package selector

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// claim is a selector written out by a generator: its text, the selector that
// the constructors make of it, and what it means, said as plainly as possible.
type claim struct {
	text  string
	built *Selector
	means func(map[string]string) bool
}

var (
	genKey   = rapid.SampledFrom([]string{"a", "b", "has", "in", "k8s.io/x-y"})
	genValue = rapid.SampledFrom([]string{"", "x", "y", "xy", "it's", `"`, "&&"})
)

func genLabels(t *rapid.T) map[string]string {
	return rapid.MapOfN(genKey, genValue, 0, 5).Draw(t, "labels")
}

func genClaim(t *rapid.T, depth int) claim {
	most := 9
	if depth == 0 {
		most = 5
	}
	switch rapid.IntRange(0, most).Draw(t, "form") {
	case 0:
		return claim{"all()", All(), func(map[string]string) bool { return true }}
	case 1:
		k := genKey.Draw(t, "key")
		return claim{"has(" + k + ")", Has(k), func(l map[string]string) bool { _, ok := l[k]; return ok }}
	case 2, 3:
		k, v := genKey.Draw(t, "key"), genValue.Draw(t, "value")
		return claim{k + "==" + quote(v), Equals(k, v), func(l map[string]string) bool { got, ok := l[k]; return ok && got == v }}
	case 4:
		return genSet(t)
	case 5:
		return genPart(t)
	case 6:
		c := genClaim(t, depth-1)
		return claim{"!(" + c.text + ")", Not(c.built), func(l map[string]string) bool { return !c.means(l) }}
	}
	cs := make([]claim, rapid.IntRange(1, 3).Draw(t, "operands"))
	texts, built := make([]string, len(cs)), make([]*Selector, len(cs))
	for i := range cs {
		cs[i] = genClaim(t, depth-1)
		texts[i], built[i] = "("+cs[i].text+")", cs[i].built
	}
	if rapid.Bool().Draw(t, "and") {
		return claim{strings.Join(texts, "&&"), And(built...), func(l map[string]string) bool {
			for _, c := range cs {
				if !c.means(l) {
					return false
				}
			}
			return true
		}}
	}
	return claim{strings.Join(texts, "||"), Or(built...), func(l map[string]string) bool {
		for _, c := range cs {
			if c.means(l) {
				return true
			}
		}
		return false
	}}
}

func genSet(t *rapid.T) claim {
	k, vs := genKey.Draw(t, "key"), rapid.SliceOfN(genValue, 0, 3).Draw(t, "values")
	quoted := make([]string, len(vs))
	for i, v := range vs {
		quoted[i] = quote(v)
	}
	inside := func(l map[string]string) bool {
		got, ok := l[k]
		for _, v := range vs {
			if ok && v == got {
				return true
			}
		}
		return false
	}
	set := "{" + strings.Join(quoted, ",") + "}"
	if rapid.Bool().Draw(t, "not in") {
		return claim{k + " not in" + set, NotIn(k, vs...), func(l map[string]string) bool { return !inside(l) }}
	}
	return claim{k + " in " + set, In(k, vs...), inside}
}

// genPart makes the claims that have no constructor.
func genPart(t *rapid.T) claim {
	k, v := genKey.Draw(t, "key"), genValue.Draw(t, "value")
	op := rapid.SampledFrom([]string{"contains", "starts with", "ends with"}).Draw(t, "op")
	test := map[string]func(string, string) bool{
		"contains": strings.Contains, "starts with": strings.HasPrefix, "ends with": strings.HasSuffix,
	}[op]
	text := fmt.Sprintf("%s %s %s", k, op, quote(v))
	s, err := Parse(text)
	if err != nil {
		t.Fatalf("Parse(%q): %v", text, err)
	}
	return claim{text, s, func(l map[string]string) bool { got, ok := l[k]; return ok && test(got, v) }}
}

func TestRandomSelectorsMeanWhatTheySay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := genClaim(t, 3)
		s, err := Parse(c.text)
		if err != nil {
			if len(c.text) > MaxLength {
				return
			}
			t.Fatalf("Parse(%q): %v", c.text, err)
		}
		if s.String() != c.built.String() {
			t.Fatalf("%q: parsed to %q, built to %q", c.text, s, c.built)
		}
		checkRoundTrip(t, s)
		for range 8 {
			m := genLabels(t)
			l := MakeLabels(m)
			if s.Matches(l) != c.means(m) {
				t.Fatalf("%q, canonically %q, on %v: %v", c.text, s, m, s.Matches(l))
			}
			checkHooks(t, s, l)
		}
	})
}

type fataler interface {
	Helper()
	Fatalf(string, ...any)
}

// checkRoundTrip wants the canonical text to be a fixed point of Parse.
func checkRoundTrip(t fataler, s *Selector) {
	t.Helper()
	if len(s.String()) > MaxLength {
		return
	}
	again, err := Parse(s.String())
	if err != nil {
		t.Fatalf("Parse of the canonical %q: %v", s, err)
	}
	if again.String() != s.String() {
		t.Fatalf("canonical %q is read back as %q", s, again)
	}
	if twice := Not(Not(s)); twice.String() != s.String() {
		t.Fatalf("%q negated twice is %q", s, twice)
	}
}

// checkHooks wants every alternative to have a hook among labels that match.
func checkHooks(t fataler, s *Selector, l Labels) {
	t.Helper()
	if !s.Matches(l) {
		return
	}
	for _, alternative := range s.Hooks() {
		found := false
		for _, h := range alternative {
			_, hasKey := l.Get(h.Key)
			for _, p := range l {
				found = found || p == h.Pair
			}
			found = found || hasKey && h.Pair == (Pair{})
		}
		if !found {
			t.Fatalf("%q matches %v but none of its hooks %v is there", s, l, alternative)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{
		"", "all()", "global()", "app == 'db' && env in {'prod', \"stage\"}", "!has(a) || !(b != 'c')",
		"a not in {}", "a contains ''", "a starts with 'x' && a ends with 'y'", "((a == 'b'", "a == '\xff'", "has(/-_.)",
	} {
		f.Add(text)
	}
	l := MakeLabels(map[string]string{"a": "b", "app": "db", "env": "prod"})
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse(text)
		if err != nil {
			return
		}
		checkRoundTrip(t, s)
		checkHooks(t, s, l)
		if s.Matches(l) == Not(s).Matches(l) {
			t.Fatalf("%q and its opposite agree on %v", s, l)
		}
	})
}
