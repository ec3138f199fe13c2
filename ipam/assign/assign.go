// Package assign hands out a node's addresses: from blocks that the node owns,
// in memory, and, when they are full, by claiming another block through the API
// or by asking other nodes for a part of theirs. The caller records the result
// in the journal before anybody hears of it.
//
//	own.go       the blocks of this node          request.go  one address for a pod
//	claim.go     one more block                   giveback.go empty blocks back
//	borrow.go    asks other nodes for a part      donate.go   gives others a part
//	takeover.go  blocks of this node's past, and the fence against a second agent
package assign

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/koratnet/korat/ipam"
	"github.com/koratnet/korat/ipam/journal"
	"github.com/koratnet/korat/policy/selector"
)

// Claimer says in the API whose a block is: creating its object is the claim.
type Claimer interface {
	// Claim returns ipam.ErrConflict when the block exists already. A block
	// inside of an own one is claimed for another: that is how it is given.
	Claim(context.Context, ipam.Block) error
	// TakeOver gives the block that from owns to b.Owner. It returns
	// ipam.ErrConflict when from does not own it any more.
	TakeOver(ctx context.Context, b ipam.Block, from ipam.Owner) error
	// Release deletes the block if b.Owner owns it. That it does not, or that
	// there is none, is success.
	Release(ctx context.Context, b ipam.Block) error
	// Ask lays w before the owner of b, in place of what w.By asked before. It
	// returns ipam.ErrConflict when b.Owner does not own b any more, or there is none.
	Ask(ctx context.Context, b ipam.Block, w ipam.Want) error
	// Answer strikes what was asked of b, an own block, and writes why others are
	// refused, as their Refused says.
	Answer(ctx context.Context, b ipam.Block, done, refused []ipam.Want) error
}

// Journal records what blocks the node owns; ipam/journal implements it.
type Journal interface {
	State() journal.State
	Claim(netip.Prefix, journal.Claim) error
	Drop(block netip.Prefix) error
	Carve(netip.Prefix, journal.Gift) error
	Return(part netip.Prefix) error
}

// Allocator is safe for concurrent use. Make it with New.
type Allocator struct {
	owner   ipam.Owner // UID is filled in by SetNode
	claimer Claimer
	journal Journal
	log     *slog.Logger
	now     func() time.Time
	asked   chan struct{} // has one when somebody may have asked for something

	claiming sync.Mutex // which blocks the node gets changes once at a time; held while the API is asked

	mu       sync.Mutex // guards all below
	labels   selector.Labels
	pools    map[string]ipam.Pool
	reserved map[string][]netip.Prefix // by the reservation's name
	taken    map[netip.Prefix]ipam.Block
	standing map[netip.Prefix]ipam.Standing // of what is in taken, as far as told
	own      map[netip.Prefix]ownBlock
	order    []netip.Prefix // of own, as they are filled
	given    map[netip.Prefix]gift
	// idle tells since when own blocks are seen without an address in use or at rest.
	idle map[netip.Prefix]time.Time
	// leaving are blocks that were ours, until the API says that they are gone.
	leaving map[netip.Prefix]ipam.Block
	fence   map[netip.Prefix]challenge
	rival   error         // why this agent must not assign; nil: it may
	number  int64         // of the last Want
	news    chan struct{} // closed, and made anew, when a block or what is asked of it changes
	ready   chan struct{} // closed once the node and its pools may be known
}

// New returns an allocator for the node that owns j, holding what j says.
func New(j Journal, claimer Claimer, now func() time.Time, log *slog.Logger) *Allocator {
	s := j.State()
	a := &Allocator{
		owner: ipam.Owner{Node: s.Node, Journal: s.ID}, claimer: claimer, journal: j, log: log, now: now,
		asked: make(chan struct{}, 1),
		pools: map[string]ipam.Pool{}, reserved: map[string][]netip.Prefix{},
		taken: map[netip.Prefix]ipam.Block{}, standing: map[netip.Prefix]ipam.Standing{},
		own: map[netip.Prefix]ownBlock{}, given: map[netip.Prefix]gift{},
		idle: map[netip.Prefix]time.Time{}, leaving: map[netip.Prefix]ipam.Block{},
		fence: map[netip.Prefix]challenge{}, number: now().UnixNano(),
		news: make(chan struct{}), ready: make(chan struct{}),
	}
	for part, g := range s.Carved {
		a.given[part] = gift{g, now()}
	}
	for cidr, c := range s.Blocks {
		a.open(s, cidr, c)
	}
	return a
}

// SetNode tells what the Node object of this node says.
func (a *Allocator) SetNode(uid string, labels selector.Labels) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.owner.UID, a.labels = uid, labels
}

// SetPool tells of a pool; nil: it is gone.
func (a *Allocator) SetPool(name string, p *ipam.Pool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if p == nil {
		delete(a.pools, name)
		return
	}
	a.pools[name] = *p
	for cidr, b := range a.own {
		if b.pool != name {
			continue
		}
		a.shorten(b)
		if b.restricted == p.Restricted() {
			continue
		}
		// While no pool is known, after a restart without the API server, the journal
		// has to tell who may have the addresses.
		if err := a.journal.Claim(cidr, journal.Claim{Pool: name, Restricted: p.Restricted()}); err != nil {
			a.log.Warn("journal does not know who may use the block", "block", cidr.String(), "error", err)
			continue
		}
		b.restricted = p.Restricted()
		a.own[cidr] = b
	}
}

// SetReservation tells which ranges a reservation takes from everybody who does
// not ask for the very address; none: it is gone.
func (a *Allocator) SetReservation(name string, ranges []netip.Prefix) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.reserved[name] = ranges
	if len(ranges) == 0 {
		delete(a.reserved, name)
	}
	for _, b := range a.own {
		b.Reserve(a.reservedIn(b.CIDR()))
	}
}

// reservedIn returns the reserved ranges that touch cidr.
func (a *Allocator) reservedIn(cidr netip.Prefix) (in []netip.Prefix) {
	for _, ranges := range a.reserved {
		for _, p := range ranges {
			if p.Overlaps(cidr) {
				in = append(in, p)
			}
		}
	}
	return in
}

// SetBlock tells of a block in the API. A block of our own that the journal
// lacks was claimed, taken over or given to us, and not recorded before a crash:
// what is in use of it the journal knew before.
func (a *Allocator) SetBlock(b ipam.Block) {
	a.mu.Lock()
	defer a.mu.Unlock()
	defer a.tell()
	a.taken[b.CIDR] = b
	if b.Owner != a.owner {
		delete(a.leaving, b.CIDR)
		a.leave(b)
		return
	}
	a.leave(b) // an own block around it has no say in it
	_, known := a.own[b.CIDR]
	if _, leaves := a.leaving[b.CIDR]; known || leaves {
		return
	}
	if err := a.adopt(b); err != nil {
		a.log.Warn("block claimed before a restart is not used", "block", b.CIDR.String(), "error", err)
	}
}

// SetStanding tells what nodes say about the block.
func (a *Allocator) SetStanding(cidr netip.Prefix, s ipam.Standing) {
	a.mu.Lock()
	defer a.mu.Unlock()
	defer a.tell()
	a.standing[cidr] = s
	if _, ours := a.own[cidr]; ours && len(s.Wants) > 0 {
		a.wake()
	}
}

// BlockGone tells that a block is no more in the API.
func (a *Allocator) BlockGone(cidr netip.Prefix) {
	a.mu.Lock()
	defer a.mu.Unlock()
	defer a.tell()
	delete(a.taken, cidr)
	delete(a.standing, cidr)
	delete(a.leaving, cidr)
	delete(a.fence, cidr)
}

// tell wakes who waits for news of blocks. The caller holds mu.
func (a *Allocator) tell() {
	close(a.news)
	a.news = make(chan struct{})
}

// wake makes Serve look.
func (a *Allocator) wake() {
	select {
	case a.asked <- struct{}{}:
	default:
	}
}

// Listed tells that SetNode, SetPool, SetReservation and SetBlock have been called
// for all that exists. Assign waits for it when it needs to claim a block.
func (a *Allocator) Listed() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.listed() {
		close(a.ready)
	}
}

// listed reports whether Listed was called.
func (a *Allocator) listed() bool {
	select {
	case <-a.ready:
		return true
	default:
		return false
	}
}

func (a *Allocator) waitListed(ctx context.Context) error {
	select {
	case <-a.ready:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Hold gives h the addresses that it has already, as far as they are the node's.
func (a *Allocator) Hold(h ipam.Handle, addrs []netip.Addr) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var errs []error
	for _, addr := range addrs {
		if b, ours := a.blockOf(addr); ours {
			delete(a.idle, b.CIDR())
			errs = append(errs, b.Hold(addr, h))
		}
	}
	return errors.Join(errs...)
}

// Undo takes back what Assign gave and nobody has used: no rest is needed.
func (a *Allocator) Undo(h ipam.Handle, addrs []netip.Addr) {
	a.Release(h, addrs, journal.Rest{Until: a.now()})
}

// Rest returns how long the addresses of h rest that are released now: the
// longest cooldown of their pools, or keep, for the return of the pod.
func (a *Allocator) Rest(h ipam.Handle, addrs []netip.Addr, keep time.Duration) journal.Rest {
	a.mu.Lock()
	defer a.mu.Unlock()
	rest, disabled := time.Duration(0), false
	for _, addr := range addrs {
		b, _ := a.blockOf(addr)
		p := a.pools[b.pool]
		rest = max(rest, p.Rests())
		disabled = disabled || p.Disabled
	}
	if keep > rest && !disabled {
		return journal.Rest{Until: a.now().Add(keep), Pod: h.PodName()}
	}
	return journal.Rest{Until: a.now().Add(rest)}
}

// Release puts the addresses of h to rest. The journal knows of it already: what
// it still counts as held nobody else may get.
func (a *Allocator) Release(h ipam.Handle, addrs []netip.Addr, r journal.Rest) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, addr := range addrs {
		if b, ours := a.blockOf(addr); ours {
			b.Release(addr, h, r.Until, r.Pod)
		}
	}
}

// Problem says why this agent assigns nothing although it could; nil if it does.
func (a *Allocator) Problem() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.rival != nil {
		return fmt.Errorf("addresses: %w", a.rival)
	}
	return nil
}
