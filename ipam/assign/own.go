package assign

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/koratnet/korat/ipam"
	"github.com/koratnet/korat/ipam/block"
	"github.com/koratnet/korat/ipam/journal"
)

// maxKeep bounds how long an address is kept for a pod, whatever a journal or a
// clock says.
const maxKeep = 24 * time.Hour

// ownBlock is a block that the node owns.
type ownBlock struct {
	*block.Block
	pool       string // its name
	restricted bool   // the pool is not for everybody
}

// open makes the block cidr one to hand out of, in which what s says is held
// and rests, but for parts that are another's. The caller holds mu, and the
// journal knows that the block is ours.
func (a *Allocator) open(s journal.State, cidr netip.Prefix, c journal.Claim) {
	b := ownBlock{block.New(cidr), c.Pool, c.Restricted}
	for part := range s.Carved {
		if inside(part, cidr) {
			a.log1(b.Carve(part))
		}
	}
	for _, part := range a.partsOf(cidr) {
		a.log1(b.Carve(part))
	}
	for _, at := range s.Attachments {
		for _, addr := range at.Addrs {
			if b.Has(addr) {
				a.log1(b.Hold(addr, at.Handle))
			}
		}
	}
	for addr, r := range s.Resting {
		if b.Has(addr) {
			b.Rest(addr, r.Until, r.Pod)
		}
	}
	b.Reserve(a.reservedIn(cidr))
	a.shorten(b)
	a.own[cidr] = b
	a.sort()
}

// log1 tells of books that contradict each other: a bug, or a state directory
// that is not this node's.
func (a *Allocator) log1(err error) {
	if err != nil {
		a.log.Error("books of addresses contradict each other", "error", err)
	}
}

// inside reports whether part is a part of whole and not all of it.
func inside(part, whole netip.Prefix) bool {
	return part.Bits() > whole.Bits() && whole.Contains(part.Addr())
}

// partsOf returns the blocks in the API that lie inside cidr.
func (a *Allocator) partsOf(cidr netip.Prefix) (parts []netip.Prefix) {
	for p := range a.taken {
		if inside(p, cidr) {
			parts = append(parts, p)
		}
	}
	for p := range a.own {
		if inside(p, cidr) {
			parts = append(parts, p)
		}
	}
	slices.SortFunc(parts, netip.Prefix.Compare) // wider ones first
	return parts
}

// sort orders own blocks as they are filled: whole ones before parts of others',
// then by address, so that late blocks empty first and can be given back.
func (a *Allocator) sort() {
	a.order = slices.SortedFunc(maps.Keys(a.own), func(x, y netip.Prefix) int {
		return cmp.Or(cmp.Compare(x.Bits(), y.Bits()), x.Addr().Compare(y.Addr()))
	})
}

// shorten lets no address of b rest longer than its pool says, from now on: a
// clock that jumped must not make addresses rest for ever. A pool that is
// disabled keeps nothing for anybody.
func (a *Allocator) shorten(b ownBlock) {
	p := a.pools[b.pool]
	latest, kept := a.now().Add(p.Rests()), a.now().Add(maxKeep)
	if p.Disabled {
		kept = latest
	}
	b.Shorten(latest, kept)
}

// adopt records a block that the API says is ours, and opens it. The caller holds mu.
func (a *Allocator) adopt(b ipam.Block) error {
	c := journal.Claim{Pool: b.Pool}
	if p, known := a.pools[b.Pool]; known {
		c.Restricted = p.Restricted()
	}
	if err := a.journal.Claim(b.CIDR, c); err != nil {
		return err
	}
	a.open(a.journal.State(), b.CIDR, c)
	for _, part := range a.partsOf(b.CIDR) {
		if x, known := a.taken[part]; known {
			a.leave(x)
		}
	}
	return nil
}

// close forgets an own block. The caller holds mu.
func (a *Allocator) close(cidr netip.Prefix) {
	delete(a.own, cidr)
	delete(a.idle, cidr)
	for part := range a.given {
		if inside(part, cidr) && !a.insideOwn(part) {
			delete(a.given, part)
		}
	}
	a.sort()
}

func (a *Allocator) insideOwn(part netip.Prefix) bool {
	for cidr := range a.own {
		if inside(part, cidr) {
			return true
		}
	}
	return false
}

// blockOf returns the own block that addr belongs to.
func (a *Allocator) blockOf(addr netip.Addr) (ownBlock, bool) {
	for _, b := range a.own {
		if b.Has(addr) {
			return b, true
		}
	}
	return ownBlock{}, false
}

// valid reports whether the own block is ours as far as the API was heard.
func (a *Allocator) valid(cidr netip.Prefix) bool {
	b, known := a.taken[cidr]
	if !known {
		return !a.listed() // deleted: it may become another's at any time
	}
	o := a.owner
	return b.Owner.Node == o.Node && b.Owner.Journal == o.Journal && (o.UID == "" || b.Owner.UID == o.UID)
}

// Usage is the state of one own block.
type Usage struct {
	CIDR netip.Prefix
	Held map[netip.Addr]ipam.Handle
	Kept map[netip.Addr]string // pods as namespace/name, for whose return addresses rest
	block.Counts
}

// Usage returns the state of the node's blocks, sorted.
func (a *Allocator) Usage() []Usage {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	all := make([]Usage, 0, len(a.own))
	for _, cidr := range slices.SortedFunc(maps.Keys(a.own), netip.Prefix.Compare) {
		all = append(all, usage(a.own[cidr], now))
	}
	return all
}

func usage(b ownBlock, now time.Time) Usage {
	u := Usage{CIDR: b.CIDR(), Held: map[netip.Addr]ipam.Handle{}, Kept: map[netip.Addr]string{}, Counts: b.Counts(now)}
	b.Held(func(addr netip.Addr, h ipam.Handle) { u.Held[addr] = h })
	b.EachKept(func(addr netip.Addr, pod string, _ time.Time) { u.Kept[addr] = pod })
	return u
}

// EachBlock calls f for every block of the node, with its owner as it is claimed
// in the API. No lock is held meanwhile: what f writes it must write only if the
// block is still that owner's. The errors are joined.
func (a *Allocator) EachBlock(f func(ipam.Block, Usage) error) error {
	var errs []error
	for _, u := range a.Usage() {
		a.mu.Lock()
		own, known := a.own[u.CIDR]
		b := ipam.Block{CIDR: u.CIDR, Pool: own.pool, Owner: a.owner}
		known = known && a.valid(u.CIDR)
		a.mu.Unlock()
		if known {
			errs = append(errs, f(b, u))
		}
	}
	return errors.Join(errs...)
}

// Reclaim claims own blocks again whose objects somebody deleted. One that another
// claimed meanwhile is lost: what pods hold of it is told as a problem.
func (a *Allocator) Reclaim(ctx context.Context) error {
	a.claiming.Lock()
	defer a.claiming.Unlock()
	a.mu.Lock()
	var gone []ipam.Block
	for cidr, b := range a.own {
		if _, there := a.taken[cidr]; !there && a.listed() && a.owner.UID != "" {
			gone = append(gone, ipam.Block{CIDR: cidr, Pool: b.pool, Owner: a.owner})
		}
	}
	a.mu.Unlock()
	var errs []error
	for _, b := range gone {
		if err := a.claimer.Claim(ctx, b); err != nil {
			errs = append(errs, fmt.Errorf("block %s was deleted and cannot be claimed again: %w", b.CIDR, err))
			continue
		}
		a.log.Warn("block was deleted and is claimed again", "block", b.CIDR.String())
		a.mu.Lock()
		a.taken[b.CIDR] = b
		a.mu.Unlock()
	}
	return errors.Join(errs...)
}
