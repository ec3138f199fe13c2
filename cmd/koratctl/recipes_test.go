package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/koratnet/korat/cmd/koratctl/internal/explain"
	"github.com/koratnet/korat/cmd/koratctl/internal/manifest"
	"github.com/koratnet/korat/cmd/koratctl/internal/world"
	"github.com/koratnet/korat/policy"
)

// TestRecipesAreExplainedAsTheyAreMeant asks about every cell of the tables
// beside the recipes of policy/eval, which two evaluators agree about, through
// manifests and the words of a command line.
func TestRecipesAreExplainedAsTheyAreMeant(t *testing.T) {
	const recipes = "../../policy/eval/testdata/recipes/"
	cells := 0
	files, err := filepath.Glob(recipes + "*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("recipes: %v, %v", files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			objects, err := manifest.Read([]string{"testdata/recipes-world.yaml", file}, nil)
			if err != nil {
				t.Fatal(err)
			}
			w := world.Build(objects)
			if len(w.Problems) > 0 {
				t.Fatal(w.Problems)
			}
			tables, err := os.ReadFile(strings.TrimSuffix(file, ".yaml") + ".table")
			if err != nil {
				t.Fatal(err)
			}
			for _, table := range strings.Split(strings.TrimSpace(string(tables)), "\n\n") {
				cells += check(t, w, table)
			}
		})
	}
	if cells < 1000 {
		t.Errorf("%d cells were compared, expected thousands", cells)
	}
}

// check compares one table: its first line is what is tried, and to whom. What
// staged policies would say stands behind an arrow.
func check(t *testing.T, w *world.World, table string) (cells int) {
	t.Helper()
	lines := strings.Split(strings.ReplaceAll(table, " ->", "->"), "\n")
	head := strings.Fields(lines[0])
	what := head[0] // 80/TCP, or ICMP with the type 0
	if !strings.Contains(what, "/") {
		what = "0/" + what
	}
	for _, line := range lines[1:] {
		row := strings.Fields(line)
		for i, cell := range row[1:] {
			q, err := explain.Parse(w, recipeEnd(w, row[0]), recipeEnd(w, head[i+1])+":"+what, explain.AnyFamily)
			if err != nil {
				t.Fatal(err)
			}
			got := explain.Ask(w, q)
			want, staged, _ := strings.Cut(cell, "->")
			if staged == "" {
				staged = want
			}
			pending := got.Trace
			if pending.Pending != nil {
				pending = *pending.Pending
			}
			if got.Verdict != action(want) || pending.Action != action(staged) {
				t.Errorf("the table says %q, explain:\n%s", cell, got.Text(explain.Rules))
			}
			cells++
		}
	}
	return cells
}

// action is what a cell of a table means.
func action(cell string) policy.Action {
	if strings.HasPrefix(cell, "y") {
		return policy.Allow
	}
	return policy.Deny
}

// recipeEnd returns a column's name as explain understands it.
func recipeEnd(w *world.World, name string) string {
	if outside, ok := map[string]string{"internet": "203.0.113.9", "office": "192.168.7.9"}[name]; ok {
		return outside
	}
	for _, p := range w.Cluster.Pods {
		if p.Name == name {
			return p.Namespace + "/" + name
		}
	}
	return name
}
