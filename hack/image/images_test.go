package cluster_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestTwoBuildsOfTheImageAreEqual: to the last byte, bills of materials too.
func TestTwoBuildsOfTheImageAreEqual(t *testing.T) {
	build := func() map[string]string {
		out := t.TempDir()
		cmd := exec.CommandContext(t.Context(), "../../hack/images.sh", "amd64")
		cmd.Env = append(os.Environ(), "VERSION=test", "OUT="+out)
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("hack/images.sh: %v: %s", err, text)
		}
		files, err := filepath.Glob(out + "/*")
		if err != nil || len(files) != 2 {
			t.Fatalf("built %v, %v: want an archive and a bill of materials", files, err)
		}
		sums := map[string]string{}
		for _, f := range files {
			sum, err := exec.CommandContext(t.Context(), "sha256sum", f).Output()
			if err != nil {
				t.Fatal(err)
			}
			sums[filepath.Base(f)] = string(sum[:64])
		}
		return sums
	}
	if diff := cmp.Diff(build(), build()); diff != "" {
		t.Errorf("two builds differ:\n%s", diff)
	}
}
