package manifest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func names(objects []Object) string {
	var out []string
	for _, o := range objects {
		out = append(out, fmt.Sprintf("%s %s %s", o.Place, o.APIVersion, o))
	}
	return strings.Join(out, "\n")
}

func TestDocumentsAndLists(t *testing.T) {
	got, err := Parse("f", []byte(`# a comment alone
---
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: shop}
--- # the next
{"apiVersion": "v1", "kind": "List", "items": [
  {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "b"}},
  {"apiVersion": "v1", "kind": "PodList", "items": []}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicyList
items:
- metadata: {name: c, namespace: shop}
- metadata: {name: d, namespace: shop}
---
`))
	want := `f, document 1 v1 Pod shop/a
f, document 2 v1 Node b
f, document 3 networking.k8s.io/v1 NetworkPolicy shop/c
f, document 3 networking.k8s.io/v1 NetworkPolicy shop/d`
	if err != nil || names(got) != want {
		t.Errorf("%v\n%s\nwant\n%s", err, names(got), want)
	}
	if g := got[0].Group() + "," + got[2].Group(); g != ",networking.k8s.io" {
		t.Errorf("groups %q", g)
	}
}

func TestABadDocumentDoesNotHideTheOthers(t *testing.T) {
	for text, want := range map[string]string{
		"a: [":                        "f, document 1: yaml: line 1: did not find expected node content",
		"a: 1\na: 2":                  "f, document 1: yaml: unmarshal errors:\n  line 2: key \"a\" already set in map",
		"[]":                          "f, document 1: this is no Kubernetes object: json: cannot unmarshal array into Go value of type manifest.head",
		"kind: Pod":                   "f, document 1: this is no Kubernetes object: it has no apiVersion or no kind",
		"{apiVersion: v1, kind: Pod}": "f, document 1: this Pod has no metadata.name",
		"{apiVersion: v1, kind: PodList, items: [{}]}": "f, document 1: items[0]: this Pod has no metadata.name",
	} {
		got, err := Parse("f", []byte(text+"\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: good}\n"))
		if err == nil || err.Error() != want || len(got) != 1 {
			t.Errorf("%q: %v, %s; want %s", text, err, names(got), want)
		}
	}
}

func TestFilesDirectoriesAndTheStandardInput(t *testing.T) {
	dir := t.TempDir()
	for _, file := range []string{"a.yaml", "b.yml", "deep/c.json", "notes.txt"} {
		path := filepath.Join(dir, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("apiVersion: v1\nkind: Pod\nmetadata: {name: x}\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Read([]string{dir, "-", filepath.Join(dir, "notes.txt")}, strings.NewReader("{apiVersion: v1, kind: Node, metadata: {name: node}}"))
	if err != nil || len(got) != 5 || got[3].String() != "Node node" || got[3].Place.String() != "-, document 1" {
		t.Errorf("%v\n%s", err, names(got))
	}
	empty := t.TempDir()
	if _, err := Read([]string{empty}, nil); err == nil || err.Error() != "directory "+empty+" has no files *.yaml, *.yml or *.json" {
		t.Errorf("an empty directory: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("apiVersion: v1\nkind: List\nitems:\n- {kind: Pod, metadata: {name: a}}\n---\nx")
	f.Fuzz(func(t *testing.T, text string) {
		objects, _ := Parse("f", []byte(text))
		for _, o := range objects {
			if o.Kind == "" || o.Name == "" || o.Document == 0 {
				t.Errorf("%+v", o)
			}
		}
	})
}
