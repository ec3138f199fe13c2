// Package assign hands out a node's addresses: from blocks that the node owns,
// in memory, and by claiming another block through the API when they are full.
// The caller records the result in the journal before anybody hears of it.
package assign

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/koratnet/korat/ipam"
	"github.com/koratnet/korat/ipam/block"
	"github.com/koratnet/korat/ipam/journal"
	"github.com/koratnet/korat/policy/selector"
)

// Cooldown is how long a freed address rests: longer than the SYN-SENT and the
// unreplied UDP timeouts of conntrack, so that packets for its last holder
// have died.
const Cooldown = 30 * time.Second

// maxTries bounds how many candidates for a block are tried in one Assign. Each
// failure means that another node was faster, which the watch tells soon.
const maxTries = 32

// Claimer makes a block the owner's, in the API: creating its object is the claim.
type Claimer interface {
	// Claim returns ipam.ErrConflict when the block exists already.
	Claim(context.Context, ipam.Block) error
	// TakeOver gives the block that from owns to b.Owner. It returns
	// ipam.ErrConflict when from does not own it any more.
	TakeOver(ctx context.Context, b ipam.Block, from ipam.Owner) error
	// Release deletes the block if b.Owner owns it. That it does not, or that
	// there is none, is success.
	Release(ctx context.Context, b ipam.Block) error
}

// Journal records what blocks the node owns; ipam/journal implements it.
type Journal interface {
	State() journal.State
	Claim(block netip.Prefix, pool string) error
	Drop(block netip.Prefix) error
}

// Allocator is safe for concurrent use. Make it with New.
type Allocator struct {
	owner   ipam.Owner // UID is filled in by SetNode
	claimer Claimer
	journal Journal
	log     *slog.Logger
	now     func() time.Time

	claiming sync.Mutex // who owns a block changes once at a time; held while the API is asked

	mu     sync.Mutex // guards all below
	labels selector.Labels
	pools  map[string]ipam.Pool
	taken  map[netip.Prefix]ipam.Block // blocks in the API, of all nodes
	own    map[netip.Prefix]ownBlock
	// idle tells since when own blocks are seen without an address in use or at rest.
	idle map[netip.Prefix]time.Time
	// leaving are blocks that were ours, until the API says that they are gone.
	leaving map[netip.Prefix]ipam.Block
	ready   chan struct{} // closed once the node and its pools may be known
}

// New returns an allocator for the node that owns j, holding what j says.
func New(j Journal, claimer Claimer, now func() time.Time, log *slog.Logger) *Allocator {
	s := j.State()
	a := &Allocator{
		owner: ipam.Owner{Node: s.Node, Journal: s.ID}, claimer: claimer, journal: j, log: log, now: now,
		pools: map[string]ipam.Pool{}, taken: map[netip.Prefix]ipam.Block{}, own: map[netip.Prefix]ownBlock{},
		idle: map[netip.Prefix]time.Time{}, leaving: map[netip.Prefix]ipam.Block{},
		ready: make(chan struct{}),
	}
	for cidr, pool := range s.Blocks {
		a.open(s, cidr, pool)
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
}

// SetBlock tells of a block in the API. A block of our own that the journal
// lacks was claimed or taken over just before a crash: what is in use of it the
// journal knew before.
func (a *Allocator) SetBlock(b ipam.Block) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.taken[b.CIDR] = b
	if b.Owner != a.owner {
		delete(a.leaving, b.CIDR)
		return
	}
	_, known := a.own[b.CIDR]
	if _, leaves := a.leaving[b.CIDR]; known || leaves {
		return
	}
	if err := a.journal.Claim(b.CIDR, b.Pool); err != nil {
		a.log.Warn("block claimed before a restart is not used", "block", b.CIDR.String(), "error", err)
		return
	}
	a.open(a.journal.State(), b.CIDR, b.Pool)
}

// BlockGone tells that a block is no more in the API.
func (a *Allocator) BlockGone(cidr netip.Prefix) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.taken, cidr)
	delete(a.leaving, cidr)
}

// Listed tells that SetNode, SetPool and SetBlock have been called for all
// that exists. Assign waits for it when it needs to claim a block.
func (a *Allocator) Listed() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.listed() {
		close(a.ready)
	}
}

// Assign gives h one address of each family that the node has: those of its
// enabled pools, or of its blocks while the pools are not known. All or nothing.
// Errors: ipam.ErrNoPool, ipam.ErrExhausted, or what the API server said.
func (a *Allocator) Assign(ctx context.Context, h ipam.Handle) ([]netip.Addr, error) {
	families := a.families()
	if len(families) == 0 {
		if err := a.waitListed(ctx); err != nil {
			return nil, fmt.Errorf("the node owns no block and the API server has not told of pools yet: %w", err)
		}
		if families = a.families(); len(families) == 0 {
			return nil, fmt.Errorf("%w for node %s: create an IPPool, or correct nodeSelector or disabled of those there are", ipam.ErrNoPool, a.owner.Node)
		}
	}
	var addrs []netip.Addr
	for _, bits := range families {
		addr, err := a.assign(ctx, h, bits)
		if err != nil {
			a.Undo(h, addrs)
			return nil, err
		}
		addrs = append(addrs, addr)
	}
	return addrs, nil
}

// Hold gives h the addresses that it has already, as far as they are the node's.
func (a *Allocator) Hold(h ipam.Handle, addrs []netip.Addr) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var errs []error
	for _, addr := range addrs {
		if b := a.blockOf(addr); b != nil {
			delete(a.idle, b.CIDR())
			errs = append(errs, b.Hold(addr, h))
		}
	}
	return errors.Join(errs...)
}

// Undo takes back what Assign gave and nobody has used: no rest is needed.
func (a *Allocator) Undo(h ipam.Handle, addrs []netip.Addr) { a.Release(h, addrs, a.now()) }

// RestUntil returns how long an address rests that is released now.
func (a *Allocator) RestUntil() time.Time { return a.now().Add(Cooldown) }

// Release puts the addresses of h to rest until the given time. The journal
// knows of it already: what it still counts as held nobody else may get.
func (a *Allocator) Release(h ipam.Handle, addrs []netip.Addr, until time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, addr := range addrs {
		if b := a.blockOf(addr); b != nil {
			b.Release(addr, h, until)
		}
	}
}

// Usage is the state of one own block.
type Usage struct {
	CIDR                netip.Prefix
	Held                map[netip.Addr]ipam.Handle
	Allocated           int
	Quarantined, Unused int
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
	u := Usage{CIDR: b.CIDR(), Held: map[netip.Addr]ipam.Handle{}}
	b.Held(func(addr netip.Addr, h ipam.Handle) { u.Held[addr] = h })
	u.Allocated, u.Quarantined, u.Unused = b.Counts(now)
	return u
}

// EachBlock calls f for every block of the node, with its owner as it is claimed
// in the API. While f runs the block stays the node's as far as it depends on the
// node. The errors are joined.
func (a *Allocator) EachBlock(f func(ipam.Block, Usage) error) error {
	var errs []error
	for _, u := range a.Usage() {
		errs = append(errs, a.withBlock(u.CIDR, f))
	}
	return errors.Join(errs...)
}

func (a *Allocator) withBlock(cidr netip.Prefix, f func(ipam.Block, Usage) error) error {
	a.claiming.Lock()
	defer a.claiming.Unlock()
	a.mu.Lock()
	own, known := a.own[cidr]
	b := ipam.Block{CIDR: cidr, Pool: own.pool, Owner: a.owner}
	var u Usage
	if known {
		u = usage(own, a.now())
	}
	a.mu.Unlock()
	if !known {
		return nil
	}
	return f(b, u)
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

// families returns the address lengths (32, 128) that pods of this node get.
func (a *Allocator) families() []int {
	a.mu.Lock()
	defer a.mu.Unlock()
	has := map[int]bool{}
	for _, p := range a.usablePools() {
		has[p.CIDR.Addr().BitLen()] = true
	}
	if len(a.pools) == 0 {
		for cidr := range a.own {
			has[cidr.Addr().BitLen()] = true
		}
	}
	return slices.Sorted(maps.Keys(has))
}

// assign finds one address of the family with addresses of bits bits.
func (a *Allocator) assign(ctx context.Context, h ipam.Handle, bits int) (netip.Addr, error) {
	if addr, ok := a.fromOwn(h, bits); ok {
		return addr, nil
	}
	a.claiming.Lock()
	defer a.claiming.Unlock()
	if addr, ok := a.fromOwn(h, bits); ok { // somebody claimed while we waited
		return addr, nil
	}
	if err := a.waitListed(ctx); err != nil {
		return netip.Addr{}, fmt.Errorf("the node's blocks are full and the API server has not told of pools yet: %w", err)
	}
	if err := a.claim(ctx, bits); err != nil {
		return netip.Addr{}, err
	}
	addr, ok := a.fromOwn(h, bits)
	if !ok {
		return netip.Addr{}, errors.New("addresses of a block that was just claimed are gone already: try again")
	}
	return addr, nil
}

// fromOwn looks through the blocks in the order of their addresses, so that
// late blocks empty first and can be given back.
func (a *Allocator) fromOwn(h ipam.Handle, bits int) (netip.Addr, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	for _, cidr := range slices.SortedFunc(maps.Keys(a.own), netip.Prefix.Compare) {
		if cidr.Addr().BitLen() != bits || !a.usable(cidr) {
			continue
		}
		if addr, ok := a.own[cidr].Assign(h, now); ok {
			delete(a.idle, cidr)
			return addr, true
		}
	}
	return netip.Addr{}, false
}

// usable reports whether the own block may be handed out of: the API says that
// it is ours, as far as it was heard, and its pool is enabled here, as far as pools are known.
func (a *Allocator) usable(cidr netip.Prefix) bool {
	b, known := a.taken[cidr]
	if !known && a.listed() { // deleted: it may become another's at any time
		return false
	}
	if o := a.owner; known && (b.Owner.Node != o.Node || b.Owner.Journal != o.Journal || o.UID != "" && b.Owner.UID != o.UID) {
		return false
	}
	p, known := a.pools[a.own[cidr].pool]
	return len(a.pools) == 0 || known && a.selects(p)
}

func (a *Allocator) selects(p ipam.Pool) bool {
	return !p.Disabled && (p.Nodes == nil || p.Nodes.Matches(a.labels))
}

func (a *Allocator) usablePools() []ipam.Pool {
	var out []ipam.Pool
	for _, name := range slices.Sorted(maps.Keys(a.pools)) {
		if p := a.pools[name]; a.selects(p) {
			out = append(out, p)
		}
	}
	return out
}

func (a *Allocator) blockOf(addr netip.Addr) *block.Block {
	for cidr, b := range a.own {
		if cidr.Contains(addr) {
			return b.Block
		}
	}
	return nil
}
