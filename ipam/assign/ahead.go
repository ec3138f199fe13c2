package assign

import (
	"context"
	"errors"

	"github.com/koratnet/korat/ipam"
)

// Ahead claims a block of each family of which the node has blocks and no free
// address in them for an ordinary pod: the next one need not wait for the API
// server. GiveBack keeps one such block too. That no pool has a free block is no
// failure; the pods that come will say so.
func (a *Allocator) Ahead(ctx context.Context) error {
	if !a.listed() || a.Problem() != nil {
		return nil
	}
	a.claiming.Lock()
	defer a.claiming.Unlock()
	var errs []error
	for _, bits := range []int{32, 128} {
		if !a.full(bits) {
			continue
		}
		if err := a.claim(ctx, ipam.Request{}, bits); !errors.Is(err, ipam.ErrExhausted) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// full reports whether the node has blocks of the family for ordinary pods, and none
// has a free address.
func (a *Allocator) full(bits int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	now, any := a.now(), false
	for _, cidr := range a.inOrder(ipam.Request{}, bits) {
		if any = true; a.own[cidr].Counts(now).Free > 0 {
			return false
		}
	}
	return any
}
