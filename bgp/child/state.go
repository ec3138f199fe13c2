package child

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/koratnet/korat/bgp"
)

// state is what a speaker was told.
type state struct {
	Config *sealed    `json:"config,omitempty"` // nil: nothing yet
	Paths  []bgp.Path `json:"paths,omitempty"`
}

// sealed is a configuration as JSON: a Password does not marshal, so that it
// cannot get into logs by accident, and is written beside it here on purpose.
type sealed struct {
	bgp.Config
	Passwords map[int]string `json:"passwords,omitempty"` // by index of the peer
}

func seal(c bgp.Config) *sealed {
	s := &sealed{Config: c}
	for i, p := range c.Peers {
		if p.Password != "" {
			if s.Passwords == nil {
				s.Passwords = map[int]string{}
			}
			s.Passwords[i] = string(p.Password)
		}
	}
	return s
}

// open returns the configuration that was sealed.
func (s *sealed) open() bgp.Config {
	c := s.Config
	for i := range c.Peers {
		c.Peers[i].Password = bgp.Password(s.Passwords[i])
	}
	return c
}

// loadState reads what the speaker before this one was told. before is false if
// there was none since the node booted. A file that does not parse is an error, and
// before is true.
func loadState(dir string) (s state, before bool, err error) {
	text, err := os.ReadFile(filepath.Join(dir, stateName))
	if errors.Is(err, fs.ErrNotExist) {
		return state{}, false, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	if err != nil {
		return state{}, true, fmt.Errorf("what the speaker was told: %w", err)
	}
	return s, true, nil
}

// saveState replaces the file as a whole. It is not synced: the directory does not
// survive a crash of the kernel anyway.
func saveState(dir string, s state) error {
	text, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("keep what the speaker was told: %w", err)
	}
	name := filepath.Join(dir, stateName)
	if err := os.WriteFile(name+".new", text, 0o600); err != nil {
		return fmt.Errorf("keep what the speaker was told: %w", err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		return fmt.Errorf("keep what the speaker was told: %w", err)
	}
	return nil
}
