package assign

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"

	"github.com/koratnet/korat/ipam"
)

// maxBlockAddresses is the size of the largest block, a /20 or /116.
const maxBlockAddresses = 4096

// claim makes one more block ours, from the first pool of the family that has
// a free one, and records it.
func (a *Allocator) claim(ctx context.Context, bits int) error {
	a.mu.Lock()
	owner, pools := a.owner, a.usablePools()
	a.mu.Unlock()
	if owner.UID == "" {
		return fmt.Errorf("the Node object %q is not known yet, so no block can be claimed: try again", owner.Node)
	}
	tries := 0
	for _, p := range pools {
		if p.CIDR.Addr().BitLen() != bits {
			continue
		}
		for ; tries < maxTries; tries++ {
			cidr, ok := a.candidate(p)
			if !ok {
				break // this pool is full
			}
			b := ipam.Block{CIDR: cidr, Pool: p.Name, Owner: owner}
			err := a.claimer.Claim(ctx, b)
			if errors.Is(err, ipam.ErrConflict) {
				a.lost(cidr)
				continue
			}
			if err != nil {
				return fmt.Errorf("claim block %s of pool %s: %w", cidr, p.Name, err)
			}
			return a.won(b)
		}
	}
	return fmt.Errorf("%w: no pool that selects node %s has a free block (%d tries): add an IPPool or free addresses", ipam.ErrExhausted, owner.Node, tries)
}

// lost remembers that another node was faster, until the watch says who.
func (a *Allocator) lost(cidr netip.Prefix) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, known := a.taken[cidr]; !known {
		a.taken[cidr] = ipam.Block{CIDR: cidr}
	}
}

func (a *Allocator) won(b ipam.Block) error {
	if err := a.journal.Claim(b.CIDR, b.Pool); err != nil {
		return err // SetBlock adopts it when the disk is well again
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.taken[b.CIDR] = b
	if _, known := a.own[b.CIDR]; !known { // the watch may have been faster
		a.open(a.journal.State(), b.CIDR, b.Pool)
	}
	return nil
}

// candidate returns a free block of p. Each node starts to look at another
// place, a function of its name, so that nodes that start together seldom meet.
func (a *Allocator) candidate(p ipam.Pool) (netip.Prefix, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := uint64(1) << min(p.BlockSize-p.CIDR.Bits(), 62)
	h := fnv.New64a()
	h.Write([]byte(a.owner.Node))
	start := h.Sum64() % n
	// A known block takes away one candidate, or as many as a block can have
	// addresses where pools overlap. So this is bounded by what exists.
	most := uint64(len(a.taken)+len(a.own)+1) * maxBlockAddresses
	for i := uint64(0); i < min(n, most); i++ {
		if cidr := nth(p, (start+i)%n); a.free(p, cidr) {
			return cidr, true
		}
	}
	return netip.Prefix{}, false
}

// free reports whether no block that is known covers cidr, a block of p, or a
// part of it. Only blocks of another pool can do so other than by being equal,
// when an operator made pools that overlap.
func (a *Allocator) free(p ipam.Pool, cidr netip.Prefix) bool {
	_, taken := a.taken[cidr]
	_, own := a.own[cidr]
	if taken || own {
		return false
	}
	for name, other := range a.pools {
		if name != p.Name && other.CIDR.Overlaps(cidr) {
			return !a.overlapsAny(cidr)
		}
	}
	return true
}

func (a *Allocator) overlapsAny(cidr netip.Prefix) bool {
	for known := range a.taken {
		if known.Overlaps(cidr) {
			return true
		}
	}
	for known := range a.own {
		if known.Overlaps(cidr) {
			return true
		}
	}
	return false
}

// nth returns block number i of p.
func nth(p ipam.Pool, i uint64) netip.Prefix {
	if p.CIDR.Addr().Is4() {
		b := p.CIDR.Addr().As4()
		binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+uint32(i<<(32-p.BlockSize)))
		return netip.PrefixFrom(netip.AddrFrom4(b), p.BlockSize)
	}
	b := p.CIDR.Addr().As16()
	hi, lo := binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
	shift := 128 - p.BlockSize // 0 to 12
	lo |= i << shift
	if shift > 0 {
		hi |= i >> (64 - shift)
	}
	binary.BigEndian.PutUint64(b[:8], hi)
	binary.BigEndian.PutUint64(b[8:], lo)
	return netip.PrefixFrom(netip.AddrFrom16(b), p.BlockSize)
}
