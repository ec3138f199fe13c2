package wireguard

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/koratnet/korat/felix/desired"
)

// ringName is the file of a Ring in the agent's state directory.
const ringName = "wireguard.key"

// Private is a private key. It neither prints nor marshals.
type Private struct{ reveal func() wgtypes.Key } // fmt follows pointers, and into fields, but no functions

const hidden = "(hidden)"

func hide(key wgtypes.Key) Private { return Private{func() wgtypes.Key { return key }} }

// String hides the key.
func (Private) String() string { return hidden }

// GoString hides the key.
func (Private) GoString() string { return hidden }

// LogValue hides the key.
func (Private) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalText hides the key.
func (Private) MarshalText() ([]byte, error) { return []byte(hidden), nil }

func (p Private) public() desired.Key { return desired.Key(p.reveal().PublicKey()) }

// Ring holds this node's private keys, in a file that root alone reads. It has one,
// and two while the node changes from one to the next. Its methods may be called
// concurrently.
type Ring struct {
	name string

	mu   sync.Mutex // guards keys, and the file
	keys []Private  // oldest first
}

// OpenRing reads the keys in the agent's state directory, and makes the first one
// where there is none. A file that does not parse is an error, and stays as it is.
func OpenRing(stateDir string) (*Ring, error) {
	r := &Ring{name: filepath.Join(stateDir, ringName)}
	text, err := os.ReadFile(r.name)
	if errors.Is(err, fs.ErrNotExist) {
		_, err = r.Add()
		return r, err
	}
	if err != nil {
		return nil, fmt.Errorf("private keys: %w", err)
	}
	if err := os.Chmod(r.name, 0o600); err != nil {
		return nil, fmt.Errorf("private keys: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		raw, err := base64.StdEncoding.Strict().DecodeString(strings.TrimSuffix(line, "\n"))
		if err != nil || len(raw) != wgtypes.KeyLen { // the error would quote the key
			return nil, fmt.Errorf("private keys: %s: line %d is no key: remove the file, and new ones are made", r.name, len(r.keys)+1)
		}
		r.keys = append(r.keys, hide(wgtypes.Key(raw)))
	}
	if len(r.keys) == 0 {
		_, err = r.Add()
	}
	return r, err
}

// Keys returns the public keys, oldest first.
func (r *Ring) Keys() []desired.Key {
	r.mu.Lock()
	defer r.mu.Unlock()
	keys := make([]desired.Key, len(r.keys))
	for i, k := range r.keys {
		keys[i] = k.public()
	}
	return keys
}

// Add makes one key more and returns its public half once the private one is safe on
// the disk.
func (r *Ring) Add() (desired.Key, error) {
	key, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		return desired.Key{}, fmt.Errorf("private key: %w", err)
	}
	added := hide(key)
	return added.public(), r.change(func(keys []Private) []Private { return append(keys, added) })
}

// Remove forgets the private key whose public half is k. One that is not there is no
// error.
func (r *Ring) Remove(k desired.Key) error {
	return r.change(func(keys []Private) []Private {
		return slices.DeleteFunc(keys, func(p Private) bool { return p.public() == k })
	})
}

// private returns the private half of k.
func (r *Ring) private(k desired.Key) (Private, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.keys {
		if p.public() == k {
			return p, nil
		}
	}
	return Private{}, fmt.Errorf("the node has no private key of %s", k)
}

// change replaces the keys, first in the file.
func (r *Ring) change(do func([]Private) []Private) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	keys := do(slices.Clone(r.keys))
	if err := save(r.name, keys); err != nil {
		return fmt.Errorf("private keys: %w", err)
	}
	r.keys = keys
	return nil
}

// save writes the file in one step, so that a crash leaves the old one or the new.
func save(name string, keys []Private) error {
	f, err := os.CreateTemp(filepath.Dir(name), "."+ringName+"-*") // of mode 0600
	if err != nil {
		return err
	}
	for _, k := range keys {
		_, err2 := f.WriteString(k.reveal().String() + "\n")
		err = errors.Join(err, err2)
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
