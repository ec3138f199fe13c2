package selector

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func mustParse(t *testing.T, text string) *Selector {
	t.Helper()
	s, err := Parse(text)
	if err != nil {
		t.Fatalf("Parse(%q): %v", text, err)
	}
	return s
}

func TestMatches(t *testing.T) {
	db := map[string]string{"app": "db", "env": "prod", "all": "x", "in": "y", "k8s.io/a-b_c": ""}
	for _, c := range []struct {
		text   string
		labels map[string]string
		want   bool
	}{
		{"", db, true},
		{"  ", nil, true},
		{"all()", nil, true},
		{"!all()", db, false},
		{"global()", db, false},
		{"!global()", db, true},
		{"app == 'db'", db, true},
		{`app=="db"`, db, true},
		{"app == 'd'", db, false},
		{"app == 'db'", nil, false},
		{"app != 'db'", db, false},
		{"app != 'web'", db, true},
		{"app != 'db'", nil, true},
		{"app in {'web', 'db'}", db, true},
		{"app in {}", db, false},
		{"app not in {}", db, true},
		{"app not in {'web'}", nil, true},
		{"app not in {'db'}", db, false},
		{"has(app)", db, true},
		{"has( app ) ", db, true},
		{"has(x)", db, false},
		{"!has(x)", db, true},
		{"!!has(x)", db, false},
		{"! ! !has(x)", db, true},
		{"app contains 'b'", db, true},
		{"app contains ''", db, true},
		{"x contains ''", db, false},
		{"!x contains ''", db, true},
		{"env starts with 'pr'", db, true},
		{"env ends  with 'od'", db, true},
		{"env ends with 'pr'", db, false},
		{"app == 'db' && env == 'stage' || all == 'x'", db, true},
		{"app == 'db' && (env == 'stage' || all == 'z')", db, false},
		{"!(app == 'web' || env == 'stage')", db, true},
		{"!(app == 'db' && env == 'stage')", db, true},
		{"in in {'y'}", db, true},
		{"has(k8s.io/a-b_c)&&k8s.io/a-b_c==''", db, true},
	} {
		if got := mustParse(t, c.text).Matches(MakeLabels(c.labels)); got != c.want {
			t.Errorf("%q on %v: %v, want %v", c.text, c.labels, got, c.want)
		}
	}
}

func TestEqualMeaningHasEqualText(t *testing.T) {
	for _, c := range []struct {
		want string
		same []string
	}{
		{"all()", []string{"", "!!all()", "all() && all()", "all() || a == 'x'", "has(a) || !has(a)", "a not in {}", "!(!all())"}},
		{"!all()", []string{"a in {}", "all() && !all()", "a == 'x' && a == 'y'", "has(a) && !has(a)", "a == 'x' && a != 'x'"}},
		{"a == 'x'", []string{`a=="x"`, "a in {'x'}", "a in {'x','x'}", "!(a != 'x')", "(((a == 'x')))", "a == 'x' && a == 'x'", "all() && a == 'x'", "a in {'x','y'} && a in {'x','z'}"}},
		{"a != 'x'", []string{"!a == 'x'", "a not in {'x'}", "!(a in {'x'})"}},
		{"a in {'x', 'y'}", []string{"a in {'y','x'}", "a == 'y' || a == 'x'", "!(a != 'x' && a != 'y')"}},
		{"a not in {'x', 'y'}", []string{"a != 'y' && a != 'x'", "!(a == 'x' || a == 'y')"}},
		{"a == 'x' && has(b)", []string{"has(b) && a == 'x'", "has(b) && a == 'x' && has(b)", "!(!has(b) || a != 'x')"}},
		{"a == 'x' && b == 'y' && has(c)", []string{"(has(c) && b == 'y') && a == 'x'", "has(c) && (b == 'y' && a == 'x')"}},
		{"a == 'x' && (b == 'y' || has(c))", []string{"(has(c) || b == 'y') && a == 'x'"}},
		{`a == "it's"`, []string{`a == "it's"`}},
	} {
		for _, text := range append(c.same, c.want) {
			s := mustParse(t, text)
			if s.String() != c.want || !s.Equal(mustParse(t, c.want)) {
				t.Errorf("%q has text %q, want %q", text, s, c.want)
			}
		}
	}
}

func TestConstructors(t *testing.T) {
	for _, c := range []struct {
		s    *Selector
		want string
	}{
		{nil, "all()"},
		{All(), "all()"},
		{Not(nil), "!all()"},
		{And(), "all()"},
		{Or(), "!all()"},
		{And(nil, Has("a")), "has(a)"},
		{Equals("a", "x"), "a == 'x'"},
		{NotEquals("a", "x"), "a != 'x'"},
		{In("a", "y", "x"), "a in {'x', 'y'}"},
		{NotIn("a", "y", "x"), "a not in {'x', 'y'}"},
		{In("a"), "!all()"},
		{NotIn("a"), "all()"},
		{And(Equals("a", "x"), Not(Has("b"))), "!has(b) && a == 'x'"},
		{Or(Equals("a", "x"), Equals("a", "y")), "a in {'x', 'y'}"},
	} {
		if c.s.String() != c.want {
			t.Errorf("text %q, want %q", c.s, c.want)
		}
	}
	if !(*Selector)(nil).Matches(nil) || !(*Selector)(nil).IsAll() || (*Selector)(nil).Hooks() != nil {
		t.Error("a nil selector does not select everything")
	}
}

func TestWordsThatCannotBeQuotedKeepTheirIdentity(t *testing.T) {
	words := []string{`'"`, `"'`, `'"\`, `a'" || b`, "'\"\n", `\`, ``, `x`, `\"'"`}
	seen := map[string]string{}
	for _, w := range words {
		s := Equals("k", w)
		if other, dup := seen[s.String()]; dup {
			t.Errorf("values %q and %q have the same text %q", w, other, s)
		}
		seen[s.String()] = w
		if !s.Matches(MakeLabels(map[string]string{"k": w})) || s.Matches(MakeLabels(map[string]string{"k": w + "x"})) {
			t.Errorf("%q does not select exactly its value", s)
		}
		if strings.Contains(w, "'") && strings.Contains(w, `"`) {
			if _, err := Parse(s.String()); err == nil {
				t.Errorf("%q can be parsed, although the language cannot quote %q", s, w)
			}
		}
	}
	if Has("a b").String() == Has("a c").String() || Has("").String() == Has(`""`).String() {
		t.Error("different label names have the same text")
	}
}

func TestParseErrorsSayWhereAndWhat(t *testing.T) {
	long := strings.Repeat("a", MaxLength)
	for _, c := range []struct {
		text     string
		column   int
		expected string
		found    string
	}{
		{"app", 4, `"=="`, "the end"},
		{"app = 'x'", 5, `"=="`, `"="`},
		{"app == x", 8, "a string in quotes", `"x"`},
		{"app == 'x", 10, "a closing '", "the end"},
		{"app == 'x' &&", 14, "a label name", "the end"},
		{"app == 'x' & has(b)", 12, `"&&"`, `"&"`},
		{"app == 'x' has(b)", 12, `"&&"`, `"has"`},
		{"(app == 'x'", 12, `")"`, "the end"},
		{"app == 'x')", 11, "the end", `")"`},
		{"has app", 5, `"=="`, `"app"`},
		{"has()", 5, "a label name", `")"`},
		{"has(a", 6, `")"`, "the end"},
		{"hash(a)", 1, "has(…)", `"hash"`},
		{"all(a)", 5, `")"`, `"a"`},
		{"a in 'x'", 6, `"{"`, `"'"`},
		{"a in {'x' 'y'}", 11, `"," or "}"`, `"'"`},
		{"a in {'x',}", 11, "a string in quotes", `"}"`},
		{"a not == 'x'", 7, `"in"`, `"="`},
		{"a starts 'x'", 10, `"with"`, `"'"`},
		{"a == 'ü' und b", 10, `"&&"`, `"und"`},
		{"ä == 'x'", 1, "a label name", `"ä"`},
		{"!", 2, "a label name", "the end"},
		{strings.Repeat("(", MaxDepth+1) + "all()" + strings.Repeat(")", MaxDepth+1), MaxDepth + 1, "at most 50 levels", `"("`},
		{strings.Repeat("a", 513) + " == 'x'", 1, "at most 512", `"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"…`},
		{long + " == 'x'", MaxLength + 1, "at most 1024 characters", "1031"},
	} {
		_, err := Parse(c.text)
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%q: error %v, want an *Error", c.text, err)
			continue
		}
		if e.Column != c.column || !strings.Contains(e.Expected, c.expected) || e.Found != c.found {
			t.Errorf("%q: %v; want column %d, expected %s, found %s", c.text, err, c.column, c.expected, c.found)
		}
	}
	if _, err := Parse(strings.Repeat("(", MaxDepth) + "all()" + strings.Repeat(")", MaxDepth)); err != nil {
		t.Errorf("%d levels: %v", MaxDepth, err)
	}
}

func TestHooks(t *testing.T) {
	pair := func(k, v string) Hook { return Hook{Pair: MakePair(k, v)} }
	for _, c := range []struct {
		text string
		want [][]Hook
	}{
		{"", nil},
		{"!all()", [][]Hook{{}}},
		{"a == 'x'", [][]Hook{{pair("a", "x")}}},
		{"a in {'x','y'}", [][]Hook{{pair("a", "x"), pair("a", "y")}}},
		{"has(a)", [][]Hook{{{Key: "a"}}}},
		{"a starts with 'x'", [][]Hook{{{Key: "a"}}}},
		{"a != 'x'", nil},
		{"!has(a)", nil},
		{"!a contains 'x'", nil},
		{"global()", nil},
		{"a == 'x' && has(b) && c != 'z'", [][]Hook{{pair("a", "x")}, {{Key: "b"}}}},
		{"a == 'x' || has(b)", [][]Hook{{pair("a", "x"), {Key: "b"}}}},
		{"a == 'x' || b != 'y'", nil},
		{"has(c) && a == 'x' || b == 'y'", [][]Hook{{pair("a", "x"), pair("b", "y")}}},
	} {
		got := mustParse(t, c.text).Hooks()
		if !slices.EqualFunc(got, c.want, slices.Equal[[]Hook]) || (got == nil) != (c.want == nil) {
			t.Errorf("%q: hooks %v, want %v", c.text, got, c.want)
		}
	}
}

func TestSplit(t *testing.T) {
	for text, want := range map[string]struct {
		namespaces string
		outside    bool
	}{
		"":                               {"all()", false},
		"all()":                          {"all()", false},
		"global()":                       {"!all()", true},
		"!global()":                      {"all()", false},
		"a == 'b' || global()":           {"a == 'b'", true},
		"a == 'b' && global()":           {"!all()", false},
		"!(a == 'b' || global())":        {"a != 'b'", false},
		"!has(a) && !global()":           {"!has(a)", false},
		"(global() || has(a)) && has(b)": {"has(a) && has(b)", false},
	} {
		s, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		namespaces, outside := s.Split()
		if namespaces.String() != want.namespaces || outside != want.outside {
			t.Errorf("%q: %s, %v; want %s, %v", text, namespaces, outside, want.namespaces, want.outside)
		}
	}
}

func TestPrefixed(t *testing.T) {
	for text, want := range map[string]string{
		"":                                 "all()",
		"a in {'x', 'y'} && !has(b)":       "!has(p/b) && p/a in {'x', 'y'}",
		"a contains 'x' || b not in {'y'}": "p/a contains 'x' || p/b != 'y'",
		"!(a starts with 'x' && global())": "!global() || !p/a starts with 'x'",
	} {
		s, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Prefixed("p/").String(); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
	var none *Selector
	if !none.Prefixed("p/").IsAll() || none.IsNone() || !Not(none).IsNone() {
		t.Error("the nil selector does not select everything")
	}
}
