package ipset

import (
	"net/netip"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy/ir"
)

// change takes in what c says about the members of family f.
func (one *set) change(c *desired.SetChange, f ir.Family) {
	if c.Whole {
		clear(one.broad)
		for m := range one.members.AllWanted() {
			if _, still := c.Add[m]; !still && !broad(m) {
				one.members.Unwant(m)
			}
		}
	}
	for m := range c.Add {
		switch {
		case !f.Is(m.Prefix.Addr()):
		case broad(m):
			one.broad[m] = struct{}{}
		default:
			one.members.Want(m, struct{}{})
		}
	}
	for m := range c.Del {
		if broad(m) {
			delete(one.broad, m)
		} else {
			one.members.Unwant(m)
		}
	}
	one.halve(f)
}

// broad reports whether m is all addresses of its family, or one half of them.
func broad(m ir.Member) bool { return m.Prefix.Bits() <= 1 }

// halve wants the halves of all addresses: the kernel refuses a prefix of no
// length in a hash:net. Who wants all and one half besides still wants that half
// when all are not wanted any more.
func (one *set) halve(f ir.Family) {
	low, high := netip.IPv4Unspecified(), netip.AddrFrom4([4]byte{0x80})
	if f == ir.IPv6 {
		low, high = netip.IPv6Unspecified(), netip.AddrFrom16([16]byte{0x80})
	}
	_, all := one.broad[ir.Member{Prefix: netip.PrefixFrom(low, 0)}]
	for _, a := range []netip.Addr{low, high} {
		half := ir.Member{Prefix: netip.PrefixFrom(a, 1)}
		if _, wanted := one.broad[half]; wanted || all {
			one.members.Want(half, struct{}{})
		} else {
			one.members.Unwant(half)
		}
	}
}
