package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/koratnet/korat/felix/conflist"
)

func TestInstallReplacesAPluginAndLeavesNothingElse(t *testing.T) {
	from, to := filepath.Join(t.TempDir(), conflist.Plugin), filepath.Join(t.TempDir(), conflist.Plugin)
	for _, content := range []string{"old", "new"} {
		if err := os.WriteFile(from, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := install(from, to); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := os.ReadFile(to); err != nil || string(b) != "new" {
		t.Errorf("installed %q, %v", b, err)
	}
	if info, err := os.Stat(to); err != nil || info.Mode() != 0o755 {
		t.Errorf("mode %v, %v: want 0755", info.Mode(), err)
	}
	if files, _ := os.ReadDir(filepath.Dir(to)); len(files) != 1 {
		t.Errorf("%d files: want the plugin alone", len(files))
	}
	if err := install(from, filepath.Join(t.TempDir(), "missing", conflist.Plugin)); err == nil {
		t.Error("no error for a directory that is not there")
	}
}
