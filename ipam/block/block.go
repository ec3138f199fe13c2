// Package block keeps the books of one address block: who holds which address,
// which addresses rest after use, which part was given away, and which address
// may be handed out next. It is pure; the time is an argument. ipam/assign owns
// the blocks of a node.
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
	cidr     netip.Prefix
	held     map[netip.Addr]ipam.Handle
	resting  []rest         // in the order of release
	free     []netip.Addr   // in the order in which they became free
	carved   []netip.Prefix // given away; none of their addresses is in the lists above
	reserved []netip.Prefix // not to be handed out unless asked for by name
}

type rest struct {
	addr  netip.Addr
	until time.Time
	pod   string // for whose return it is kept; empty: for nobody's
}

// Counts are how many addresses of a block are what. They add up to its size.
type Counts struct {
	Held, Resting, Free, Reserved, Given int
}

// New returns an empty block for cidr, which is masked and holds at most 4096 addresses.
func New(cidr netip.Prefix) *Block {
	b := &Block{cidr: cidr, held: map[netip.Addr]ipam.Handle{}}
	b.free = addrs(cidr)
	return b
}

func addrs(cidr netip.Prefix) []netip.Addr {
	all := make([]netip.Addr, 0, Size(cidr))
	for a := cidr.Addr(); a.IsValid() && cidr.Contains(a); a = a.Next() {
		all = append(all, a)
	}
	return all
}

// Size returns how many addresses cidr holds.
func Size(cidr netip.Prefix) int { return 1 << (cidr.Addr().BitLen() - cidr.Bits()) }

// CIDR returns the block's range.
func (b *Block) CIDR() netip.Prefix { return b.cidr }

// Reserve says which ranges are handed out to nobody who does not ask for the
// very address. It replaces what was said before.
func (b *Block) Reserve(ranges []netip.Prefix) { b.reserved = ranges }

// Assign hands the longest free address to h. It returns false when none is free at now.
func (b *Block) Assign(h ipam.Handle, now time.Time) (netip.Addr, bool) {
	b.wake(now)
	i := slices.IndexFunc(b.free, func(a netip.Addr) bool { return !b.isReserved(a) })
	if i < 0 {
		return netip.Addr{}, false
	}
	a := b.free[i]
	if i == 0 {
		b.free = b.free[1:] // the usual case moves nothing
	} else {
		b.free = slices.Delete(b.free, i, i+1)
	}
	b.held[a] = h
	return a, true
}

// Hold gives the very address a to h, whether it rests or is free: a journal
// is being replayed, or the address was asked for. Holding what h holds already
// is success; what another holds, or what is kept for another, is an error.
func (b *Block) Hold(a netip.Addr, h ipam.Handle) error {
	if !b.Has(a) {
		return fmt.Errorf("address %s is not in block %s", a, b.cidr)
	}
	if b.held[a] == h && h != (ipam.Handle{}) {
		return nil
	}
	if why := b.Refusal(a, h.PodName()); why != "" {
		return fmt.Errorf("address %s %s", a, why)
	}
	b.forget(func(x netip.Addr) bool { return x == a })
	b.held[a] = h
	return nil
}

// Refusal says why pod, as namespace/name, cannot have the address a of the
// block; it is empty when the pod can.
func (b *Block) Refusal(a netip.Addr, pod string) string {
	if other, ok := b.held[a]; ok {
		return fmt.Sprintf("is held by pod %s/%s (sandbox %s)", other.Namespace, other.Pod, other.Sandbox)
	}
	for _, r := range b.resting {
		if r.addr == a && r.pod != "" && r.pod != pod {
			return fmt.Sprintf("is kept for pod %s until %s", r.pod, r.until.UTC().Format(time.RFC3339))
		}
	}
	return ""
}

// Release takes a back from h; it rests until the given time, kept for pod if
// that is not empty. It returns false, and does nothing, when h does not hold a:
// a late release of an earlier sandbox must not free the address of its successor.
func (b *Block) Release(a netip.Addr, h ipam.Handle, until time.Time, pod string) bool {
	if holder, ok := b.held[a]; !ok || holder != h {
		return false
	}
	delete(b.held, a)
	b.resting = append(b.resting, rest{a, until, pod})
	return true
}

// Rest puts the free address a to rest, as Release did before a restart.
func (b *Block) Rest(a netip.Addr, until time.Time, pod string) {
	i := slices.Index(b.free, a)
	if i < 0 {
		return
	}
	b.free = slices.Delete(b.free, i, i+1)
	b.resting = append(b.resting, rest{a, until, pod})
}

// Shorten lets no address rest beyond latest: a clock may have jumped, or the
// pool's cooldown was made shorter. What is kept for a pod rests until latestKept
// at most.
func (b *Block) Shorten(latest, latestKept time.Time) {
	for i, r := range b.resting {
		bound := latest
		if r.pod != "" {
			bound = latestKept
		}
		if r.until.After(bound) {
			b.resting[i].until = bound
		}
	}
}

// Kept returns the address of the wanted length that is kept for pod.
func (b *Block) Kept(pod string, now time.Time) (netip.Addr, bool) {
	b.wake(now)
	for _, r := range b.resting {
		if r.pod == pod {
			return r.addr, true
		}
	}
	return netip.Addr{}, false
}

// EachKept calls f for every address that is kept for a pod.
func (b *Block) EachKept(f func(a netip.Addr, pod string, until time.Time)) {
	for _, r := range b.resting {
		if r.pod != "" {
			f(r.addr, r.pod, r.until)
		}
	}
}

// Counts returns how many addresses are what at now.
func (b *Block) Counts(now time.Time) Counts {
	b.wake(now)
	c := Counts{Held: len(b.held), Resting: len(b.resting), Free: len(b.free)}
	for _, p := range b.carved {
		c.Given += Size(p)
	}
	if len(b.reserved) > 0 {
		for _, a := range b.free {
			if b.isReserved(a) {
				c.Reserved++
			}
		}
		c.Free -= c.Reserved
	}
	return c
}

// Held calls f for every address that is held, in no order.
func (b *Block) Held(f func(netip.Addr, ipam.Handle)) {
	for a, h := range b.held {
		f(a, h)
	}
}

// Has reports whether a is the block's: in its range and not given away.
func (b *Block) Has(a netip.Addr) bool { return b.cidr.Contains(a) && !inAny(b.carved, a) }

func (b *Block) isReserved(a netip.Addr) bool { return inAny(b.reserved, a) }

func inAny(ranges []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(ranges, func(p netip.Prefix) bool { return p.Contains(a) })
}

// forget strikes addresses from what rests and what is free.
func (b *Block) forget(which func(netip.Addr) bool) {
	b.free = slices.DeleteFunc(b.free, which)
	b.resting = slices.DeleteFunc(b.resting, func(r rest) bool { return which(r.addr) })
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
