package controller

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// strict makes unknown fields mistakes, as kubectl does.
const strict = client.FieldValidation("Strict")

// The files under api/v1/testdata are judged there by the schemas; here the real
// API server judges them again, and with them what the documentation shows.
func TestManifestsAreAccepted(t *testing.T) {
	for _, pattern := range []string{"/api/v1/testdata/valid/*.yaml", "/docs/examples/*.yaml"} {
		forEach(t, pattern, func(t *testing.T, _ string, objects []*unstructured.Unstructured) {
			for _, o := range objects {
				if err := admin.Create(t.Context(), o, strict, client.DryRunAll); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestManifestsAreRefused(t *testing.T) {
	forEach(t, "/api/v1/testdata/invalid/*.yaml", func(t *testing.T, first string, objects []*unstructured.Unstructured) {
		judge(t, first, admin.Create(t.Context(), objects[0], strict, client.DryRunAll))
	})
}

func TestUpdatesAreJudged(t *testing.T) {
	forEach(t, "/api/v1/testdata/update/*.yaml", func(t *testing.T, first string, objects []*unstructured.Unstructured) {
		old, o := objects[0], objects[1]
		if err := admin.Create(t.Context(), old, strict); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := admin.Delete(t.Context(), old); err != nil {
				t.Error(err)
			}
		}()
		o.SetResourceVersion(old.GetResourceVersion())
		judge(t, first, admin.Update(t.Context(), o, strict, client.DryRunAll))
	})
}

// judge compares an answer with what the first line of a manifest promises.
func judge(t *testing.T, first string, err error) {
	t.Helper()
	want, refused := strings.CutPrefix(first, "# refused: ")
	switch {
	case !refused && first != "# accepted":
		t.Errorf("first line is %q, want # accepted or # refused: MESSAGE", first)
	case !refused && err != nil:
		t.Errorf("refused: %v", err)
	case refused && (err == nil || !strings.Contains(err.Error(), want)):
		t.Errorf("got %v, want a refusal with %q", err, want)
	}
}

// forEach runs a subtest for each file, with its first line and its objects.
func forEach(t *testing.T, pattern string, run func(*testing.T, string, []*unstructured.Unstructured)) {
	t.Helper()
	files, err := filepath.Glob(root + pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no manifests match %s: %v", pattern, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			objects, err := manifests(file)
			if err != nil {
				t.Fatal(err)
			}
			first, _, _ := strings.Cut(string(text), "\n")
			run(t, first, objects)
		})
	}
}
