package assign

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/koratnet/korat/ipam"
	"github.com/koratnet/korat/ipam/block"
	"github.com/koratnet/korat/ipam/journal"
)

// ownBlock is a block that the node owns.
type ownBlock struct {
	*block.Block
	pool string // its name
}

// open makes the block cidr one to hand out of, in which what s says is held
// and rests. The caller holds mu, and the journal knows that the block is ours.
func (a *Allocator) open(s journal.State, cidr netip.Prefix, pool string) {
	b := block.New(cidr)
	for _, at := range s.Attachments {
		for _, addr := range at.Addrs {
			if !cidr.Contains(addr) {
				continue
			}
			if err := b.Hold(addr, at.Handle); err != nil {
				a.log.Error("journal holds an address twice", "address", addr.String(), "error", err)
			}
		}
	}
	latest := a.now().Add(Cooldown) // a clock that jumped must not make addresses rest for ever
	for addr, until := range s.Resting {
		if cidr.Contains(addr) {
			b.Rest(addr, earlier(until, latest))
		}
	}
	a.own[cidr] = ownBlock{b, pool}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// TakeOver makes those blocks ours that this node claimed before its journal
// was lost, or before its Node object was made anew. The caller has put into
// the journal, before, every address of this node that is in use: only this
// node can have given out addresses of these blocks, so the others are free.
// A block of both another UID and another journal is left to the controller:
// nothing says that the machine is the same. All blocks are tried; the errors
// are joined.
func (a *Allocator) TakeOver(ctx context.Context) error {
	a.claiming.Lock()
	defer a.claiming.Unlock()
	var errs []error
	for _, b := range a.Former() {
		from := b.Owner
		b.Owner = a.identity()
		switch err := a.claimer.TakeOver(ctx, b, from); {
		case errors.Is(err, ipam.ErrConflict): // the watch tells whose it is now
		case err != nil:
			errs = append(errs, fmt.Errorf("take over block %s: %w", b.CIDR, err))
		default:
			a.log.Info("block taken over", "block", b.CIDR.String(), "journal", from.Journal, "uid", from.UID)
			errs = append(errs, a.won(b))
		}
	}
	return errors.Join(errs...)
}

// Former returns the blocks that TakeOver is for, sorted.
func (a *Allocator) Former() []ipam.Block {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []ipam.Block
	for _, b := range a.taken {
		o := b.Owner
		sameMachine := o.UID == a.owner.UID || o.Journal == a.owner.Journal
		if a.owner.UID != "" && o != a.owner && o.Node == a.owner.Node && sameMachine {
			out = append(out, b)
		}
	}
	slices.SortFunc(out, func(x, y ipam.Block) int {
		return cmp.Or(x.CIDR.Addr().Compare(y.CIDR.Addr()), cmp.Compare(x.CIDR.Bits(), y.CIDR.Bits()))
	})
	return out
}

func (a *Allocator) identity() ipam.Owner {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.owner
}
