package wireguard_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/wireguard"
)

func ring(t *testing.T, dir string) *wireguard.Ring {
	t.Helper()
	r, err := wireguard.OpenRing(dir)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestKeysSurviveARestart(t *testing.T) {
	dir := t.TempDir()
	first := ring(t, dir)
	second, err := first.Add()
	if err != nil {
		t.Fatal(err)
	}
	want := first.Keys()
	if len(want) != 2 || want[1] != second || want[0] == second {
		t.Fatalf("keys are %v, and %v was added", want, second)
	}
	if got := ring(t, dir).Keys(); !slices.Equal(got, want) {
		t.Errorf("keys are %v after a restart, want %v", got, want)
	}
	for range 2 { // what is not there may be removed
		if err := first.Remove(want[0]); err != nil {
			t.Fatal(err)
		}
	}
	if got := ring(t, dir).Keys(); !slices.Equal(got, []desired.Key{second}) {
		t.Errorf("keys are %v, want %v alone", got, second)
	}
	info, err := os.Stat(filepath.Join(dir, "wireguard.key"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode of the file: %v, %v; want 0600", info.Mode(), err)
	}
	if files, _ := os.ReadDir(dir); len(files) != 1 {
		t.Errorf("%d files, want one", len(files))
	}
}

func TestAFileThatDoesNotParseStaysAndIsNotQuoted(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "wireguard.key")
	const content = "c2VjcmV0\n"
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := wireguard.OpenRing(dir)
	if err == nil || strings.Contains(err.Error(), "c2VjcmV0") || !strings.Contains(err.Error(), name) {
		t.Errorf("OpenRing: %v", err)
	}
	if now, _ := os.ReadFile(name); string(now) != content {
		t.Errorf("the file is %q now", now)
	}
}

// TestPrivateKeysDoNotPrint in any way that something is printed by accident.
func TestPrivateKeysDoNotPrint(t *testing.T) {
	dir := t.TempDir()
	r := ring(t, dir)
	text, err := os.ReadFile(filepath.Join(dir, "wireguard.key"))
	if err != nil {
		t.Fatal(err)
	}
	key := wireguard.PrivateOf(r)
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "key", key)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "key", key, "in", struct{ K wireguard.Private }{key})
	marshaled, err := json.Marshal(map[string]any{"k": key})
	if err != nil {
		t.Fatal(err)
	}
	printed := log.String() + string(marshaled)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		for _, of := range []any{key, &key, r, []wireguard.Private{key}, struct{ k any }{key}} {
			printed += fmt.Sprintf(verb, of)
		}
	}
	raw := wireguard.Raw(key)
	for what, secret := range map[string]string{
		"in base64": strings.TrimSpace(string(text)), "in hex": fmt.Sprintf("%x", raw), "in decimal": strings.Trim(fmt.Sprint(raw), "[]"),
	} {
		if strings.Contains(printed, secret) {
			t.Errorf("the key is there %s", what)
		}
	}
}
