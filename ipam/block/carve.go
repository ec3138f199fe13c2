package block

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Carve takes the part out of the block: it is another's from now on. An address
// of it that a pod holds is an error, and nothing is done. To carve what is
// carved is success.
func (b *Block) Carve(part netip.Prefix) error {
	if !b.cidr.Overlaps(part) || part.Bits() < b.cidr.Bits() {
		return fmt.Errorf("%s is no part of block %s", part, b.cidr)
	}
	if b.covered(part) {
		return nil
	}
	for a, h := range b.held {
		if part.Contains(a) {
			return fmt.Errorf("%s cannot be given away: address %s is held by pod %s/%s", part, a, h.Namespace, h.Pod)
		}
	}
	b.carved = slices.DeleteFunc(b.carved, func(p netip.Prefix) bool { return part.Overlaps(p) }) // narrower ones
	b.carved = append(b.carved, part)
	b.forget(part.Contains)
	return nil
}

// Return makes a carved part the block's again. Its addresses are free: who had
// it gave it back only when they had rested.
func (b *Block) Return(part netip.Prefix) {
	i := slices.Index(b.carved, part)
	if i < 0 {
		return
	}
	b.carved = slices.Delete(b.carved, i, i+1)
	b.free = append(b.free, addrs(part)...)
}

// Carved returns the parts that were given away.
func (b *Block) Carved() []netip.Prefix { return slices.Clone(b.carved) }

// Spare returns the widest part, of prefix length bits or longer, of which every
// address is free at now. Of equals it takes the last, as the first ones are
// handed out first.
func (b *Block) Spare(bits int, now time.Time) (netip.Prefix, bool) {
	b.wake(now)
	free := make(map[netip.Addr]bool, len(b.free))
	for _, a := range b.free {
		if !b.isReserved(a) {
			free[a] = true
		}
	}
	for length := max(bits, b.cidr.Bits()); length <= b.cidr.Addr().BitLen(); length++ {
		count := map[netip.Prefix]int{}
		var best netip.Prefix
		for a := range free {
			p := netip.PrefixFrom(a, length).Masked()
			if count[p]++; count[p] == Size(p) && (!best.IsValid() || best.Addr().Less(p.Addr())) {
				best = p
			}
		}
		if best.IsValid() {
			return best, true
		}
	}
	return netip.Prefix{}, false
}

// covered reports whether part lies in a carved part.
func (b *Block) covered(part netip.Prefix) bool {
	return slices.ContainsFunc(b.carved, func(p netip.Prefix) bool { return p.Overlaps(part) && p.Bits() <= part.Bits() })
}
