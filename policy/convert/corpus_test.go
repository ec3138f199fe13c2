package convert

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// addRecipes adds the specs of one kind among the recipes that policy/eval
// keeps to the corpus.
func addRecipes(f *testing.F, apiVersion, kind string) {
	f.Helper()
	files, err := filepath.Glob("../eval/testdata/recipes/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	added := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for _, doc := range strings.Split(string(text), "\n---\n") {
			var o map[string]any
			if err := yaml.Unmarshal([]byte(doc), &o); err != nil {
				f.Fatalf("%s: %v", file, err)
			}
			if o["apiVersion"] != apiVersion || o["kind"] != kind {
				continue
			}
			spec, err := yaml.Marshal(o["spec"])
			if err != nil {
				f.Fatal(err)
			}
			f.Add(string(spec))
			added++
		}
	}
	if added == 0 {
		f.Fatalf("no recipe of kind %s", kind)
	}
}
