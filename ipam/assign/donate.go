package assign

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/koratnet/korat/ipam"
	"github.com/koratnet/korat/ipam/journal"
)

const (
	// answerEvery is how often Serve looks although nobody woke it: what failed is
	// tried again, and parts that came back are noticed.
	answerEvery = 5 * time.Second
	// returnAfter is how long the object of a part that was given has to be missing
	// before the part is the owner's again: longer than a request to make it, of
	// which the reply was lost, may still be under way.
	returnAfter = 2 * time.Minute
)

// gift is a part of an own block that was given to another.
type gift struct {
	journal.Gift
	missing time.Time // since when the API has no block for it; zero: it has
}

// Serve answers what other nodes ask for, and claims ahead, until ctx ends. One
// goroutine runs it.
func (a *Allocator) Serve(ctx context.Context) error {
	tick := time.NewTicker(answerEvery)
	defer tick.Stop()
	for {
		if err := a.Answer(ctx); err != nil && ctx.Err() == nil {
			a.log.Warn("parts of blocks are not given up yet", "error", err)
		}
		if err := a.Ahead(ctx); err != nil && ctx.Err() == nil {
			a.log.Debug("no block is claimed ahead", "error", err)
		}
		select {
		case <-a.asked:
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Answer answers once. All requests are tried; the errors are joined.
func (a *Allocator) Answer(ctx context.Context) error {
	err := a.takeBack()
	for _, b := range a.askedBlocks() {
		err = errors.Join(err, a.answerFor(ctx, b))
	}
	return err
}

// askedBlocks returns the own blocks of which something is asked.
func (a *Allocator) askedBlocks() (out []ipam.Block) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, cidr := range a.order {
		if len(a.standing[cidr].Wants) > 0 && a.valid(cidr) {
			out = append(out, ipam.Block{CIDR: cidr, Pool: a.own[cidr].pool, Owner: a.owner})
		}
	}
	return out
}

func (a *Allocator) answerFor(ctx context.Context, b ipam.Block) error {
	a.mu.Lock()
	wants := a.standing[b.CIDR].Wants
	a.mu.Unlock()
	var done, refused []ipam.Want
	var errs []error
	for _, w := range wants {
		if w.Refused != "" {
			continue
		}
		part, why, err := a.carve(b, w)
		switch {
		case err != nil:
			errs = append(errs, err)
			continue
		case why != "":
			w.Refused = why
			refused = append(refused, w)
			continue
		}
		err = a.claimer.Claim(ctx, ipam.Block{CIDR: part, Pool: b.Pool, Owner: w.By})
		if err != nil && !errors.Is(err, ipam.ErrConflict) { // there already: of an earlier try, whoever has it
			errs = append(errs, fmt.Errorf("give %s of block %s to node %s: %w", part, b.CIDR, w.By.Node, err))
			continue
		}
		a.log.Info("part of a block given", "part", part.String(), "block", b.CIDR.String(), "to", w.By.Node)
		done = append(done, w)
	}
	if len(done)+len(refused) > 0 {
		errs = append(errs, a.claimer.Answer(ctx, b, done, refused))
	}
	return errors.Join(errs...)
}

// carve takes what w asks for out of the block, in the journal first: from then
// on it is not handed out here, whether or not anybody else gets it. It returns
// why not, if w is refused.
func (a *Allocator) carve(b ipam.Block, w ipam.Want) (part netip.Prefix, why string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	own, ours := a.own[b.CIDR]
	switch {
	case !ours:
		return part, "the block is being given back", nil
	case w.By.Node == a.owner.Node:
		a.log.Error("another agent runs under the name of this node", "journal", w.By.Journal, "uid", w.By.UID)
		return part, fmt.Sprintf("the agent whose journal is %s is alive", a.owner.Journal), nil
	}
	if !w.CIDR.IsValid() {
		if part, ours = a.answered(b.CIDR, w); ours {
			return part, "", nil
		}
		if part, ours = own.Spare(w.Bits, a.now()); !ours {
			return part, "it has no free address", nil
		}
	} else if part, why = w.CIDR, a.refusal(own, w); part != b.CIDR && why != "" {
		return part, why, nil
	}
	if part == b.CIDR {
		// It has one object, so it cannot be carved out of itself.
		a.idle[part] = time.Time{} // but goes with the next GiveBack, if it is empty
		return part, "it is the whole of the block, which its owner gives back when it is empty", nil
	}
	g, carved := a.given[part]
	if carved && g.To == w.By {
		return part, "", nil
	}
	if carved {
		return part, fmt.Sprintf("it was given to node %s", g.To.Node), nil
	}
	g = gift{journal.Gift{To: w.By, Number: w.Number}, a.now()}
	if err := a.journal.Carve(part, g.Gift); err != nil {
		return part, "", err
	}
	a.given[part] = g
	return part, "", own.Carve(part)
}

// answered returns the part that was carved for w already: what followed failed,
// or its reply was lost.
func (a *Allocator) answered(cidr netip.Prefix, w ipam.Want) (netip.Prefix, bool) {
	for part, g := range a.given {
		if g.To == w.By && g.Number == w.Number && inside(part, cidr) {
			return part, true
		}
	}
	return netip.Prefix{}, false
}

// refusal says why the part that w names cannot be given.
func (a *Allocator) refusal(own ownBlock, w ipam.Want) string {
	if !inside(w.CIDR, own.CIDR()) {
		return fmt.Sprintf("%s is no part of it", w.CIDR)
	}
	if _, carved := a.given[w.CIDR]; carved {
		return "" // the caller looks to whom
	}
	for x := w.CIDR.Addr(); x.IsValid() && w.CIDR.Contains(x); x = x.Next() {
		if !own.Has(x) {
			return fmt.Sprintf("%s was given to another node", x)
		}
		if why := own.Refusal(x, w.Pod); why != "" {
			return fmt.Sprintf("%s %s", x, why)
		}
	}
	return ""
}

// leave takes a block that is another's out of the own one around it. That is
// known already, but for a journal that was lost. The caller holds mu.
func (a *Allocator) leave(b ipam.Block) {
	for cidr, own := range a.own {
		if !inside(b.CIDR, cidr) {
			continue
		}
		if g, known := a.given[b.CIDR]; known && g.To == b.Owner && g.missing.IsZero() {
			return
		}
		if err := own.Carve(b.CIDR); err != nil {
			a.log.Error("a part of an own block is another's although it is in use here", "owner", b.Owner.Node, "error", err)
			continue
		}
		g := a.given[b.CIDR]
		if g.missing = (time.Time{}); g.To != b.Owner {
			g.Gift = journal.Gift{To: b.Owner}
			if err := a.journal.Carve(b.CIDR, g.Gift); err != nil {
				a.log.Warn("journal does not know of a part that was given", "part", b.CIDR.String(), "error", err)
			}
		}
		a.given[b.CIDR] = g
	}
}

// takeBack makes parts the own blocks' again that nobody has any more.
func (a *Allocator) takeBack() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.listed() {
		return nil
	}
	now := a.now()
	var errs []error
	for part, g := range a.given {
		_, there := a.taken[part]
		_, ours := a.own[part]
		switch {
		case there || ours:
			g.missing = time.Time{}
			a.given[part] = g
		case g.missing.IsZero():
			g.missing = now
			a.given[part] = g
		case now.Sub(g.missing) >= returnAfter && !a.wanted(part, g):
			if err := a.journal.Return(part); err != nil {
				errs = append(errs, err)
				continue
			}
			delete(a.given, part)
			for cidr, own := range a.own {
				if inside(part, cidr) {
					own.Return(part)
				}
			}
			a.log.Info("part of a block is back", "part", part.String(), "from", g.To.Node)
		}
	}
	return errors.Join(errs...)
}

// wanted reports whether somebody still asks for the part, so that it is about to
// be given.
func (a *Allocator) wanted(part netip.Prefix, g gift) bool {
	for cidr, s := range a.standing {
		if !inside(part, cidr) {
			continue
		}
		for _, w := range s.Wants {
			if w.By == g.To && w.Refused == "" {
				return true
			}
		}
	}
	return false
}
