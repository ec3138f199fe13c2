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
)

const (
	// fenceWait is how long an agent of the same node name and another journal has
	// to say that it is alive, before its blocks are taken over.
	fenceWait = 5 * time.Second
	// fenceRetry is when one that said so is asked again: it may have ended.
	fenceRetry = time.Minute
)

// challenge is the question, put to whoever has a block under this node's name,
// whether it is alive.
type challenge struct {
	want  ipam.Want
	since time.Time
}

// Former returns the blocks that this node claimed before its journal was lost,
// or before its Node object was made anew, sorted. If both happened, only what
// runs says that the machine is the same: the journal has an address of the block,
// which Adopt found in the kernel.
func (a *Allocator) Former() []ipam.Block {
	inUse := a.journal.State().Attachments
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []ipam.Block
	for _, b := range a.taken {
		o := b.Owner
		if a.owner.UID == "" || o == a.owner || o.Node != a.owner.Node {
			continue
		}
		same := o.UID == a.owner.UID || o.Journal == a.owner.Journal
		if !same {
			for _, at := range inUse {
				same = same || slices.ContainsFunc(at.Addrs, b.CIDR.Contains)
			}
		}
		if same {
			out = append(out, b)
		}
	}
	slices.SortFunc(out, func(x, y ipam.Block) int {
		return cmp.Or(x.CIDR.Addr().Compare(y.CIDR.Addr()), cmp.Compare(x.CIDR.Bits(), y.CIDR.Bits()))
	})
	return out
}

// TakeOver makes blocks ours that Former returned. The caller has put into the
// journal, before, every address of them that is in use: only this node can have
// given out addresses of these blocks, so the others are free. One of another
// journal is asked for first, in case its agent is alive: then this one has no
// business here, and Problem says so. All blocks are tried; the errors are joined.
func (a *Allocator) TakeOver(ctx context.Context, former []ipam.Block) error {
	a.claiming.Lock()
	defer a.claiming.Unlock()
	var errs []error
	var rival error
	for _, b := range former {
		from := b.Owner
		if err := a.challenge(ctx, b); err != nil {
			if errors.Is(err, ipam.ErrRival) {
				rival = err
			}
			errs = append(errs, err)
			continue
		}
		if !a.due(b.CIDR, from) {
			continue
		}
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
	a.mu.Lock()
	a.rival = rival
	a.mu.Unlock()
	return errors.Join(errs...)
}

// due reports whether the block of an earlier owner can be taken over now.
func (a *Allocator) due(cidr netip.Prefix, from ipam.Owner) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	c, asked := a.fence[cidr]
	return from.Journal == a.owner.Journal || asked && a.now().Sub(c.since) >= fenceWait
}

// Challenging reports whether somebody has still time to say that blocks under
// this node's name are its own. Until then the node claims no others: with its
// former ones it may need none.
func (a *Allocator) Challenging() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.fence {
		if a.now().Sub(c.since) < fenceWait {
			return true
		}
	}
	return false
}

// challenge asks for b, if its owner has another journal and was not asked lately.
// It returns ipam.ErrRival when that owner is alive.
func (a *Allocator) challenge(ctx context.Context, b ipam.Block) error {
	a.mu.Lock()
	if b.Owner.Journal == a.owner.Journal {
		a.mu.Unlock()
		return nil
	}
	c, asked := a.fence[b.CIDR]
	refused := ""
	for _, w := range a.standing[b.CIDR].Wants {
		if w.Same(c.want) {
			refused = w.Refused
		}
	}
	again := refused != "" && a.now().Sub(c.since) >= fenceRetry
	if !asked || again {
		a.number++
		c = challenge{ipam.Want{By: a.owner, CIDR: b.CIDR, Number: a.number}, a.now()}
	}
	a.mu.Unlock()
	if !asked || again {
		if err := a.claimer.Ask(ctx, b, c.want); err != nil {
			return fmt.Errorf("ask for block %s, which node %s had: %w", b.CIDR, b.Owner.Node, err)
		}
		a.mu.Lock()
		a.fence[b.CIDR] = c
		a.mu.Unlock()
	}
	if refused != "" {
		return fmt.Errorf("%w: block %s of node %s: %s; end one of the two agents, or give its machine a name of its own",
			ipam.ErrRival, b.CIDR, b.Owner.Node, refused)
	}
	return nil
}

func (a *Allocator) identity() ipam.Owner {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.owner
}
