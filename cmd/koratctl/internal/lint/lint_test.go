package lint

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/koratnet/korat/cmd/koratctl/internal/manifest"
	"github.com/koratnet/korat/cmd/koratctl/internal/world"
	"github.com/koratnet/korat/policy/whatif"
)

// FuzzLint builds a world of anything at all, checks it, and asks what would be
// different without it.
func FuzzLint(f *testing.F) {
	files, err := filepath.Glob("../../testdata/*.yaml")
	if err != nil || len(files) == 0 {
		f.Fatalf("seeds: %v, %v", files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	nobody := world.Build(nil)
	f.Fuzz(func(t *testing.T, text string) {
		objects, _ := manifest.Parse("f", []byte(text))
		w := world.Build(objects)
		for _, p := range Check(w) {
			if p.Severity == "" || p.Object == "" || p.Expected+p.Effect == "" {
				t.Errorf("%+v says nothing", p)
			}
		}
		if len(w.Cluster.Pods) < 10 && len(w.Cluster.Policies) < 10 {
			if changes := whatif.Compare(&w.Cluster, &w.Cluster); len(changes) > 0 {
				t.Errorf("a world differs from itself: %v", changes)
			}
			whatif.Compare(&nobody.Cluster, &w.Cluster)
		}
	})
}
