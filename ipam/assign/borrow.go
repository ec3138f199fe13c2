package assign

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/koratnet/korat/ipam"
)

const (
	// maxDonors bounds how many owners are asked in one Assign.
	maxDonors = 4
	// donorWait is how long one is waited for. A node that is alive answers within
	// the time that two watches take.
	donorWait = 3 * time.Second
	// quarter is how much longer the prefix of the part is that a node asks for
	// than that of the owner's block: a fourth of it.
	quarter = 2
)

// borrow asks other nodes for a part of their blocks, those first that have most
// to give, until one gives something.
func (a *Allocator) borrow(ctx context.Context, r ipam.Request, bits int) error {
	asked := map[netip.Prefix]bool{}
	var errs []error
	for range maxDonors {
		b, ok := a.donor(r, bits, asked)
		if !ok {
			break
		}
		asked[b.CIDR] = true
		w := ipam.Want{Bits: min(b.CIDR.Bits()+quarter, bits)}
		err := a.obtain(ctx, b, w, func() bool { return a.hasFree(r, bits) })
		if err == nil || ctx.Err() != nil {
			return err
		}
		errs = append(errs, err)
	}
	if len(errs) == 0 {
		return fmt.Errorf("%w: no other node has a free address to give", ipam.ErrExhausted)
	}
	return errors.Join(errs...)
}

// donor returns the block of another node that has most free addresses for r.
func (a *Allocator) donor(r ipam.Request, bits int, asked map[netip.Prefix]bool) (best ipam.Block, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	most := 0
	for cidr, s := range a.standing {
		b := a.taken[cidr]
		p, known := a.pools[b.Pool]
		if !known || cidr.Addr().BitLen() != bits || asked[cidr] || b.Owner.Node == a.owner.Node || !a.serves(p, r) || p.MaxBlocks > 0 {
			continue
		}
		if s.Free > most || s.Free == most && most > 0 && cidr.Addr().Less(best.CIDR.Addr()) {
			best, most = b, s.Free
		}
	}
	return best, most > 0
}

// hasFree reports whether an own block has an address for r.
func (a *Allocator) hasFree(r ipam.Request, bits int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	for _, cidr := range a.inOrder(r, bits) {
		if a.own[cidr].Counts(now).Free > 0 {
			return true
		}
	}
	return false
}

// obtain asks the owner of b for w, and waits until got, a refusal, or for
// donorWait. The caller holds claiming.
func (a *Allocator) obtain(ctx context.Context, b ipam.Block, w ipam.Want, got func() bool) error {
	a.mu.Lock()
	a.number++
	w.By, w.Number = a.owner, a.number
	a.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, donorWait)
	defer cancel()
	if err := a.claimer.Ask(ctx, b, w); err != nil {
		return fmt.Errorf("ask node %s for a part of its block %s: %w", b.Owner.Node, b.CIDR, err)
	}
	for {
		a.mu.Lock()
		news, said := a.news, a.standing[b.CIDR]
		a.mu.Unlock()
		if got() {
			return nil
		}
		for _, x := range said.Wants {
			if x.Same(w) && x.Refused != "" {
				return fmt.Errorf("%w: node %s, which owns block %s, says: %s", ipam.ErrTaken, b.Owner.Node, b.CIDR, x.Refused)
			}
		}
		select {
		case <-news:
		case <-ctx.Done():
			return fmt.Errorf("%w: node %s, which owns block %s, has not given it up yet: try again", ipam.ErrTaken, b.Owner.Node, b.CIDR)
		}
	}
}
