package oci_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/koratnet/korat/hack/image/oci"
)

// tree makes a directory as another machine would at another time.
func tree(t *testing.T, umask os.FileMode, when time.Time) string {
	t.Helper()
	root := t.TempDir()
	for _, f := range []struct {
		path, content string
		mode          os.FileMode
	}{{"usr/bin/korat", "program", 0o755}, {"etc/passwd", "root", 0o644}} {
		path := filepath.Join(root, f.path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(f.content), f.mode); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.Chmod(path, f.mode&^umask), os.Chtimes(path, when, when)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Mkdir(filepath.Join(root, "tmp"), 0o700), os.Symlink("../run", filepath.Join(root, "run"))); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(root, "tmp"), 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	return root
}

func write(t *testing.T, roots ...string) (string, []byte) {
	t.Helper()
	image := oci.Image{
		Name: "example.org/korat:v1", Also: []string{"example.org/other:v2"}, Entrypoint: []string{"/usr/bin/korat"}, User: "65532",
		Labels: map[string]string{"org.opencontainers.image.version": "v1", "a": "b"},
	}
	for i, root := range roots {
		image.Platforms = append(image.Platforms, oci.Platform{Architecture: []string{"amd64", "arm64"}[i], Root: root})
	}
	var b bytes.Buffer
	digest, err := oci.Write(&b, image)
	if err != nil {
		t.Fatal(err)
	}
	return digest, b.Bytes()
}

func TestTwoBuildsAreTheSameToTheLastByte(t *testing.T) {
	d1, b1 := write(t, tree(t, 0, time.Unix(1, 0)), tree(t, 0, time.Unix(2, 0)))
	d2, b2 := write(t, tree(t, 0o022, time.Unix(3, 0)), tree(t, 0o077, time.Now()))
	if d1 != d2 || !bytes.Equal(b1, b2) {
		t.Errorf("digests %s and %s, archives equal: %v", d1, d2, bytes.Equal(b1, b2))
	}
	if d3, _ := write(t, tree(t, 0, time.Unix(1, 0))); d3 == d1 {
		t.Error("an image for one platform has the digest of one for two")
	}
}

// files reads an archive.
func files(t *testing.T, archive []byte) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	r := tar.NewReader(bytes.NewReader(archive))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if out[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}

type reference struct {
	Digest      string
	Platform    struct{ Architecture string }
	Annotations map[string]string
}

type document struct {
	Manifests, Layers []reference
	Config            json.RawMessage
	Architecture      string
}

func TestArchiveNamesEverythingThatAnImporterFollows(t *testing.T) {
	digest, archive := write(t, tree(t, 0, oci.Epoch), tree(t, 0, oci.Epoch))
	all := files(t, archive)
	read := func(name string) document {
		t.Helper()
		var d document
		if err := json.Unmarshal(all[name], &d); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return d
	}
	blob := func(r reference) document { return read("blobs/" + strings.Replace(r.Digest, ":", "/", 1)) }

	top := read("index.json").Manifests
	if len(top) != 2 || top[1].Digest != digest || top[1].Annotations["org.opencontainers.image.ref.name"] != "v2" || top[0].Digest != digest || top[0].Annotations["io.containerd.image.name"] != "example.org/korat:v1" {
		t.Fatalf("index.json: %+v, digest %s", top, digest)
	}
	platforms := blob(top[0]).Manifests
	if len(platforms) != 2 || platforms[0].Platform.Architecture != "amd64" || platforms[1].Platform.Architecture != "arm64" {
		t.Fatalf("platforms: %+v", platforms)
	}
	m := blob(platforms[1])
	var config reference
	if err := json.Unmarshal(m.Config, &config); err != nil {
		t.Fatal(err)
	}
	if c := blob(config); c.Architecture != "arm64" || !strings.Contains(string(c.Config), `"User":"65532"`) {
		t.Errorf("configuration: %s %s", c.Architecture, c.Config)
	}
	layer := files(t, all["blobs/"+strings.Replace(m.Layers[0].Digest, ":", "/", 1)])
	var names []string
	for n := range layer {
		names = append(names, n)
	}
	want := []string{"etc/", "etc/passwd", "run", "tmp/", "usr/", "usr/bin/", "usr/bin/korat"}
	if diff := cmp.Diff(len(want), len(names)); diff != "" || string(layer["usr/bin/korat"]) != "program" {
		t.Errorf("layer holds %v, want %v", names, want)
	}
}

func TestMaterialsNameModulesAndPackages(t *testing.T) {
	root := t.TempDir()
	program := "github.com/koratnet/korat/cmd/koratctl" // a test's own binary does not say what it is made of
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(root, "koratctl"), program).CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	if err := os.MkdirAll(filepath.Join(root, "usr/share/sbom"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "usr/share/sbom/packages"), []byte("libc6 2.36-9 arm64\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	bom, err := oci.Materials(root, "korat", "v1")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for _, c := range bom.Components {
		got[c.Type+" "+c.Name] = true
		if c.Name == "github.com/spf13/cobra" && !strings.HasPrefix(c.PURL, "pkg:golang/github.com/spf13/cobra@v") {
			t.Errorf("URL of a module: %s", c.PURL)
		}
		if c.Name == "libc6" && c.PURL != "pkg:deb/debian/libc6@2.36-9?arch=arm64" {
			t.Errorf("URL of a package: %s", c.PURL)
		}
	}
	for _, want := range []string{"application /koratctl", "library stdlib", "library github.com/spf13/cobra", "library libc6"} {
		if !got[want] {
			t.Errorf("%q is missing", want)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "usr/share/sbom/packages"), []byte("libc6\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := oci.Materials(root, "korat", "v1"); err == nil {
		t.Error("no error for a package without a version")
	}
}
