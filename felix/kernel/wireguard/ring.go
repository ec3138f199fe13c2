package wireguard

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/koratnet/korat/felix/desired"
)

// The files of a Ring in the agent's state directory: the key of a node's first ends,
// and that of its second ones.
const (
	ringName    = "wireguard.key"
	ringNameOdd = "wireguard-odd.key"
)

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

// Ring holds this node's two private keys, each for ends of both families, in files that
// root alone reads. Its methods may be called concurrently.
type Ring struct {
	mu    sync.Mutex // guards slots, and the files
	slots [2]slot
}

// slot is a key in its file.
type slot struct {
	name  string
	key   Private
	since time.Time // when the file was written
	// before is the key that this one took the place of: who heard of no other asks
	// for it.
	before *Private
}

// OpenRing reads the keys in the agent's state directory, and makes those that are not
// there. A file that does not parse is an error, and stays as it is.
func OpenRing(stateDir string) (*Ring, error) {
	r := &Ring{slots: [2]slot{{name: filepath.Join(stateDir, ringName)}, {name: filepath.Join(stateDir, ringNameOdd)}}}
	for i := range r.slots {
		if err := r.slots[i].open(); err != nil {
			return nil, fmt.Errorf("private keys: %w", err)
		}
	}
	return r, nil
}

func (s *slot) open() error {
	text, err := os.ReadFile(s.name)
	if errors.Is(err, fs.ErrNotExist) {
		return s.renew()
	}
	if err != nil {
		return err
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(strings.TrimSuffix(string(text), "\n"))
	if err != nil || len(raw) != wgtypes.KeyLen { // the error would quote the key
		return fmt.Errorf("%s is no key: remove the file, and a new one is made", s.name)
	}
	s.key = hide(wgtypes.Key(raw))
	return errors.Join(os.Chmod(s.name, 0o600), s.date())
}

// renew makes another key, first in the file.
func (s *slot) renew() error {
	key, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		return err
	}
	if err := save(s.name, key); err != nil {
		return err
	}
	if s.key.reveal != nil {
		before := s.key
		s.before = &before
	}
	s.key = hide(key)
	return s.date()
}

func (s *slot) date() error {
	info, err := os.Stat(s.name)
	if err == nil {
		s.since = info.ModTime()
	}
	return err
}

// slot returns that of ends of kind.
func (r *Ring) slot(kind desired.TunnelKind) *slot {
	if kind.Odd() {
		return &r.slots[1]
	}
	return &r.slots[0]
}

// Key returns the public key of ends of kind, and when it was made.
func (r *Ring) Key(kind desired.TunnelKind) (key desired.Key, since time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.slot(kind)
	return s.key.public(), s.since
}

// Renew makes another key for ends of kind, of both families, and returns once it is
// safe on the disk.
func (r *Ring) Renew(kind desired.TunnelKind) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.slot(kind).renew(); err != nil {
		return fmt.Errorf("private key: %w", err)
	}
	return nil
}

// private returns the private half of k.
func (r *Ring) private(k desired.Key) (Private, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.slots {
		if s.key.public() == k {
			return s.key, nil
		}
		if s.before != nil && s.before.public() == k {
			return *s.before, nil
		}
	}
	return Private{}, fmt.Errorf("the node has no private key of %s", k)
}

// save writes the file in one step, so that a crash leaves the old one or the new.
func save(name string, key wgtypes.Key) error {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-*") // of mode 0600
	if err != nil {
		return err
	}
	_, err = f.WriteString(key.String() + "\n")
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
