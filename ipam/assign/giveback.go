package assign

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/koratnet/korat/ipam"
)

// idleGrace is how long a block has to be without an address in use or at rest
// before it is given back.
const idleGrace = time.Minute

// GiveBack gives blocks back that it found empty at an earlier call, idleGrace
// ago or more, and ever since. Of each family one block with free addresses is
// kept. Call it now and then.
//
// The journal drops the block first: from then on nothing is handed out of it.
// Killed before the object is deleted, the next start adopts the block again.
func (a *Allocator) GiveBack(ctx context.Context) error {
	a.claiming.Lock()
	defer a.claiming.Unlock()
	err := a.dropIdle()
	for _, b := range a.leavers() {
		if e := a.claimer.Release(ctx, b); e != nil {
			err = errors.Join(err, fmt.Errorf("give back block %s: %w", b.CIDR, e))
		}
	}
	return err
}

// dropIdle moves blocks from own to leaving.
func (a *Allocator) dropIdle() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.listed() {
		return nil
	}
	var errs []error
	for _, cidr := range a.surplus(a.now()) {
		b := ipam.Block{CIDR: cidr, Pool: a.own[cidr].pool, Owner: a.owner}
		if err := a.journal.Drop(cidr); err != nil {
			errs = append(errs, err)
			continue
		}
		a.close(cidr)
		if a.taken[cidr].Owner == a.owner {
			a.leaving[cidr] = b
		}
		a.log.Info("empty block given back", "block", cidr.String())
	}
	return errors.Join(errs...)
}

// surplus notes which own blocks are empty and returns those that have been for
// long and are not needed. Blocks that must not be handed out of are never needed,
// nor are parts of others' blocks, nor those of pools that are not for everybody.
// One of which a part was given away is not empty.
func (a *Allocator) surplus(now time.Time) []netip.Prefix {
	var out []netip.Prefix
	kept := map[int]bool{}   // by address length
	var spare []netip.Prefix // in the order in which they are filled
	for cidr := range maps.Keys(a.own) {
		c := a.own[cidr].Counts(now)
		if !a.valid(cidr) { // another's, with all that is in it
			c.Given, c.Resting = 0, 0
		}
		if c.Held+c.Resting+c.Given > 0 {
			delete(a.idle, cidr)
			if c.Free > 0 && a.needed(cidr) {
				kept[cidr.Addr().BitLen()] = true
			}
			continue
		}
		since, known := a.idle[cidr]
		if !known {
			since = now
			a.idle[cidr] = now
		}
		switch long := now.Sub(since) >= idleGrace; {
		case a.needed(cidr):
			spare = append(spare, cidr)
		case long:
			out = append(out, cidr)
		}
	}
	slices.SortFunc(spare, netip.Prefix.Compare)
	for _, cidr := range spare {
		bits := cidr.Addr().BitLen()
		if kept[bits] && now.Sub(a.idle[cidr]) >= idleGrace {
			out = append(out, cidr)
		}
		kept[bits] = true
	}
	return out
}

// needed reports whether any pod of the node may get an address of the own block.
func (a *Allocator) needed(cidr netip.Prefix) bool {
	if !a.usable(cidr, ipam.Request{}, cidr.Addr().BitLen()) {
		return false
	}
	p, known := a.pools[a.own[cidr].pool]
	return !known || cidr.Bits() == p.BlockSize
}

func (a *Allocator) leavers() []ipam.Block {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Collect(maps.Values(a.leaving))
}
