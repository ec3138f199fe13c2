package wireguard_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

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
	even, since := first.Key(desired.WireGuard4)
	odd, _ := first.Key(desired.WireGuard4Odd)
	if of6, _ := first.Key(desired.WireGuard6); of6 != even || odd == even {
		t.Fatalf("keys are %s and, in IPv6, %s, and of the second ends %s", even, of6, odd)
	}
	old := time.Unix(1000, 0)
	for _, name := range []string{"wireguard.key", "wireguard-odd.key"} {
		if err := os.Chtimes(filepath.Join(dir, name), old, old); err != nil {
			t.Fatal(err)
		}
	}
	if got, at := ring(t, dir).Key(desired.WireGuard4); got != even || !at.Equal(old) || since.Before(old) {
		t.Errorf("key is %s of %s after a restart, want %s of %s", got, at, even, old)
	}
	if err := first.Renew(desired.WireGuard6Odd); err != nil {
		t.Fatal(err)
	}
	second := ring(t, dir)
	if got, at := second.Key(desired.WireGuard4Odd); got == odd || got == even || !at.After(old) {
		t.Errorf("key is %s of %s after it was renewed, and was %s", got, at, odd)
	}
	if got, _ := second.Key(desired.WireGuard4); got != even {
		t.Errorf("key is %s, want %s: another was renewed", got, even)
	}
	files, _ := os.ReadDir(dir)
	for _, f := range files {
		if info, err := f.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("mode of %s: %v, %v; want 0600", f.Name(), info.Mode(), err)
		}
	}
	if len(files) != 2 {
		t.Errorf("%d files, want two", len(files))
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
