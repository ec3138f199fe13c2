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

// maxTries bounds how many candidates for a block are tried in one Assign. Each
// failure means that another node was faster, which the watch tells soon.
const maxTries = 32

// claim makes one more block ours, from the first pool of the family that has
// a free one, and records it.
func (a *Allocator) claim(ctx context.Context, r ipam.Request, bits int) error {
	a.mu.Lock()
	owner, pools := a.owner, a.eligible(r, bits)
	a.mu.Unlock()
	if owner.UID == "" {
		return fmt.Errorf("the Node object %q is not known yet, so no block can be claimed: try again", owner.Node)
	}
	tries, why := 0, ""
	for _, p := range pools {
		if a.atLimit(p) {
			why = fmt.Sprintf(", and the node has its %d blocks of pool %s, which its maxBlocksPerNode allows", p.MaxBlocks, p.Name)
			continue
		}
		for ; tries < maxTries; tries++ {
			cidr, ok := a.candidate(p, tries)
			if !ok {
				break // this pool is full
			}
			err := a.take(ctx, ipam.Block{CIDR: cidr, Pool: p.Name, Owner: owner})
			if errors.Is(err, ipam.ErrConflict) {
				continue
			}
			return err
		}
	}
	return fmt.Errorf("%w: no pool for this pod on node %s has a free block (%d tries)%s: add an IPPool or free addresses", ipam.ErrExhausted, owner.Node, tries, why)
}

// take claims b.
func (a *Allocator) take(ctx context.Context, b ipam.Block) error {
	err := a.claimer.Claim(ctx, b)
	if errors.Is(err, ipam.ErrConflict) {
		a.lost(b.CIDR)
	}
	if err != nil {
		return fmt.Errorf("claim block %s of pool %s: %w", b.CIDR, b.Pool, err)
	}
	return a.won(b)
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
	a.mu.Lock()
	defer a.mu.Unlock()
	a.taken[b.CIDR] = b
	if _, known := a.own[b.CIDR]; known { // the watch may have been faster
		return nil
	}
	return a.adopt(b) // if not: SetBlock does when the disk is well again
}

// atLimit reports whether the node has as many blocks of p as one may. Parts of
// other nodes' blocks do not count.
func (a *Allocator) atLimit(p ipam.Pool) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := 0
	for cidr, b := range a.own {
		if b.pool == p.Name && cidr.Bits() == p.BlockSize {
			n++
		}
	}
	return p.MaxBlocks > 0 && n >= p.MaxBlocks
}

// candidate returns a free block of p. Each node looks at another place at each
// try, a function of its name, so that nodes that start together seldom meet,
// and those that met do not meet again.
func (a *Allocator) candidate(p ipam.Pool, try int) (netip.Prefix, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	h := fnv.New64a()
	fmt.Fprint(h, a.owner.Node, "/", try)
	n := uint64(1) << min(p.BlockSize-p.CIDR.Bits(), 62)
	start := mix(h.Sum64()) % n
	odd := a.oddIn(p)
	// A block of the pool's size takes away one candidate, a wider one or a
	// reservation as many as it has. So this is bounded by what exists.
	for i, tried := uint64(0), 0; i < n && tried <= maxScan; i++ {
		cidr := nth(p, (start+i)%n)
		if p, covered := coveredBy(odd, cidr); covered {
			i += skip(p, cidr, n)
			tried++
			continue
		}
		_, taken := a.taken[cidr]
		if _, own := a.own[cidr]; !taken && !own {
			return cidr, true
		}
	}
	return netip.Prefix{}, false
}

// maxScan bounds how many obstacles other than ordinary blocks one search passes.
const maxScan = 1 << 16

// mix spreads the bits of h: those of FNV are alike for names that are.
func mix(h uint64) uint64 {
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// oddIn returns what else than blocks of p's size takes candidates of p away:
// parts that were given, blocks of pools that overlap, and reservations.
func (a *Allocator) oddIn(p ipam.Pool) (odd []netip.Prefix) {
	for cidr := range a.taken {
		if cidr.Bits() != p.BlockSize && cidr.Overlaps(p.CIDR) {
			odd = append(odd, cidr)
		}
	}
	for cidr := range a.own {
		if cidr.Bits() != p.BlockSize && cidr.Overlaps(p.CIDR) {
			odd = append(odd, cidr)
		}
	}
	for _, r := range a.reservedIn(p.CIDR) {
		if r.Bits() <= p.BlockSize {
			odd = append(odd, r)
		}
	}
	return odd
}

func coveredBy(odd []netip.Prefix, cidr netip.Prefix) (netip.Prefix, bool) {
	for _, p := range odd {
		if p.Overlaps(cidr) {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

// skip returns how many candidates after cidr, of n, p covers too.
func skip(p, cidr netip.Prefix, n uint64) uint64 {
	if p.Bits() >= cidr.Bits() {
		return 0
	}
	shift := cidr.Bits() - p.Bits()
	if shift >= 62 {
		return n
	}
	size := uint64(1) << shift
	return size - 1 - index(cidr)%size
}

// index returns the number of cidr among all prefixes of its length, modulo 2^64.
func index(cidr netip.Prefix) uint64 {
	if cidr.Addr().Is4() {
		b := cidr.Addr().As4()
		return uint64(binary.BigEndian.Uint32(b[:])) >> (32 - cidr.Bits())
	}
	b := cidr.Addr().As16()
	hi, lo := binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
	shift := 128 - cidr.Bits()
	return lo>>shift | hi<<(64-shift)
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
