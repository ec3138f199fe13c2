package ipset

import (
	"context"
	"errors"
	"fmt"
)

// Uninstall destroys all sets of ours, also those of an earlier life of the agent
// that nobody asked for. The rules that refer to them must have gone before. What
// was wanted is forgotten.
func (s *Sets) Uninstall(context.Context) error {
	there, err := s.list()
	if err != nil {
		return fmt.Errorf("list sets: %w", err)
	}
	var errs []error
	for name := range there {
		if err := s.destroy(name); err != nil {
			errs = append(errs, fmt.Errorf("destroy set %s: %w", name, inWords(err)))
		}
	}
	clear(s.sets)
	return errors.Join(errs...)
}

// Present reports whether there are sets of ours in the network namespace of the
// calling thread.
func Present() (bool, error) {
	s, err := New()
	if err != nil {
		return false, err
	}
	defer s.Close()
	there, err := s.list()
	if err != nil {
		return false, fmt.Errorf("list sets: %w", err)
	}
	return len(there) > 0, nil
}
