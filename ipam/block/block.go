// Package block keeps the books of one address block: who holds which address,
// which addresses rest after use, and which may be handed out next. It is pure;
// the time is an argument. ipam/assign owns the blocks of a node.
//
// Addresses are reused first in, first out, and rest before they are free
// again: traffic, conntrack entries and DNS answers for a pod that is gone must
// not reach its successor.
package block

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/koratnet/korat/ipam"
)

// Block is the allocation state of one block. All addresses of it are usable:
// pods have host routes, so there is no network or broadcast address. A Block
// is not safe for concurrent use.
type Block struct {
	cidr    netip.Prefix
	held    map[netip.Addr]ipam.Handle
	resting []rest       // in the order of release
	free    []netip.Addr // in the order in which they became free
}

type rest struct {
	addr  netip.Addr
	until time.Time
}

// New returns an empty block for cidr, which is masked and holds at most 4096 addresses.
func New(cidr netip.Prefix) *Block {
	b := &Block{cidr: cidr, held: map[netip.Addr]ipam.Handle{}}
	b.free = make([]netip.Addr, 0, Size(cidr))
	for a := cidr.Addr(); a.IsValid() && cidr.Contains(a); a = a.Next() {
		b.free = append(b.free, a)
	}
	return b
}

// Size returns how many addresses cidr holds.
func Size(cidr netip.Prefix) int { return 1 << (cidr.Addr().BitLen() - cidr.Bits()) }

// CIDR returns the block's range.
func (b *Block) CIDR() netip.Prefix { return b.cidr }

// Assign hands the longest free address to h. It returns false when none is free at now.
func (b *Block) Assign(h ipam.Handle, now time.Time) (netip.Addr, bool) {
	b.wake(now)
	if len(b.free) == 0 {
		return netip.Addr{}, false
	}
	a := b.free[0]
	b.free = b.free[1:]
	b.held[a] = h
	return a, true
}

// Hold gives the very address a to h, whether it rests or is free: a journal
// is being replayed, or the address was asked for. Holding what h holds already
// is success; what another holds is an error.
func (b *Block) Hold(a netip.Addr, h ipam.Handle) error {
	if !b.cidr.Contains(a) {
		return fmt.Errorf("address %s is not in block %s", a, b.cidr)
	}
	if other, ok := b.held[a]; ok {
		if other == h {
			return nil
		}
		return fmt.Errorf("address %s is held by pod %s/%s (sandbox %s)", a, other.Namespace, other.Pod, other.Sandbox)
	}
	b.free = slices.DeleteFunc(b.free, func(f netip.Addr) bool { return f == a })
	b.resting = slices.DeleteFunc(b.resting, func(r rest) bool { return r.addr == a })
	b.held[a] = h
	return nil
}

// Release takes a back from h; it rests until the given time. It returns false,
// and does nothing, when h does not hold a: a late release of an earlier
// sandbox must not free the address of its successor.
func (b *Block) Release(a netip.Addr, h ipam.Handle, until time.Time) bool {
	if holder, ok := b.held[a]; !ok || holder != h {
		return false
	}
	delete(b.held, a)
	b.resting = append(b.resting, rest{a, until})
	return true
}

// Rest puts the free address a to rest, as Release did before a restart.
func (b *Block) Rest(a netip.Addr, until time.Time) {
	i := slices.Index(b.free, a)
	if i < 0 {
		return
	}
	b.free = slices.Delete(b.free, i, i+1)
	b.resting = append(b.resting, rest{a, until})
}

// Counts returns how many addresses are held, rest and are free at now.
func (b *Block) Counts(now time.Time) (held, resting, free int) {
	b.wake(now)
	return len(b.held), len(b.resting), len(b.free)
}

// Held calls f for every address that is held, in no order.
func (b *Block) Held(f func(netip.Addr, ipam.Handle)) {
	for a, h := range b.held {
		f(a, h)
	}
}

// wake frees what has rested long enough.
func (b *Block) wake(now time.Time) {
	b.resting = slices.DeleteFunc(b.resting, func(r rest) bool {
		done := !now.Before(r.until)
		if done {
			b.free = append(b.free, r.addr)
		}
		return done
	})
}
